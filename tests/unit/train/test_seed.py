"""The generators: gold values, and back as they were."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from torso.train import seed


def draw() -> list[float]:
    return [*torch.rand(2).tolist(), torch.randn(1).item(), random.random(), random.gauss(), *np.random.randn(2)]  # noqa: NPY002


@pytest.mark.part("seed/everything")
def test_gold_values_of_seed_0() -> None:
    seed.seed_everything(0)
    assert torch.rand(5).tolist() == pytest.approx([0.4963, 0.7682, 0.0885, 0.1320, 0.3074], abs=5e-5)
    assert random.random() == random.Random(0).random()
    assert np.random.rand() == np.random.RandomState(0).rand()  # noqa: NPY002


def test_a_seed_of_any_size() -> None:
    seed.seed_everything(2**40 + 3)
    first = draw()
    seed.seed_everything(2**40 + 3)
    assert draw() == first


def test_capture_and_restore() -> None:
    seed.seed_everything(5)
    draw()  # leaves random and numpy with half a pair of normal numbers
    tensors, rest = seed.capture()
    expected = draw()
    draw()
    seed.restore(tensors, rest)
    assert draw() == expected


def test_undisturbed_by_a_loader() -> None:
    """Gold: iterating a loader shifts the global stream by two numbers."""
    loader: DataLoader[int] = DataLoader(range(4))  # type: ignore[arg-type]
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    list(loader)
    assert not torch.equal(torch.rand(4), expected)
    torch.manual_seed(0)
    with seed.undisturbed():
        list(loader)
    assert torch.equal(torch.rand(4), expected)

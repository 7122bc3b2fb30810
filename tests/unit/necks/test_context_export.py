"""Necks that look around a place, exported and compiled for any batch and size. ``TORSO_SLOW=1`` tries them all."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch.export import Dim

from tests.unit.necks.pyramids import pyramid
from torso.necks import NECKS
from torso.necks.matrix import Matrix

SLOW = pytest.mark.skipif(not os.environ.get("TORSO_SLOW"), reason="seconds for each: TORSO_SLOW=1")
QUICK = {"aspp", "rfp", "unet"}  # the others are made of the same pieces
SMALL: dict[str, dict[str, Any]] = {
    "aspp": {"channels": 4, "rates": (2, 3)},
    "rfb": {"channels": 4, "extra": 1},
    "rfp": {"channels": 4, "extra": 1},
    "sam": {},
    "sfam": {"channels": 4, "repeats": 2, "scales": 3},
    "unet": {"channels": 4, "finer": 1},
    "matrix": {"channels": 4, "extra": 0},
}
CHANNELS, STRIDES = [8, 12], [8, 16]


def made(name: str) -> torch.nn.Module:
    make = Matrix if name == "matrix" else NECKS[name]
    return make(CHANNELS, STRIDES, **SMALL[name]).double().eval()


@pytest.mark.part("neck/aspp", "neck/rfp", "neck/unet")
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else SLOW) for name in SMALL])
def test_an_exported_neck_answers_for_another_batch_and_size(name):
    neck = made(name)
    batch, height, width = Dim("batch", min=2), Dim("height", min=8), Dim("width", min=8)
    shapes = [{0: batch, 2: 2 * height, 3: 2 * width}, {0: batch, 2: height, 3: width}]
    program = torch.export.export(neck, (pyramid(CHANNELS, STRIDES, (160, 192)),), dynamic_shapes=(shapes,))
    other = pyramid(CHANNELS, STRIDES, (128, 256), batch=3)
    torch.testing.assert_close(program.module()(other), neck(other), rtol=1e-9, atol=1e-9)


@SLOW
@pytest.mark.parametrize("name", SMALL)
def test_a_compiled_neck_answers_the_same(name):
    neck = made(name)
    compiled = torch.compile(neck, fullgraph=True, backend="aot_eager")
    for size in ((96, 128), (104, 72)):
        features = pyramid(CHANNELS, STRIDES, size)
        torch.testing.assert_close(compiled(features), neck(features), rtol=1e-9, atol=1e-9)

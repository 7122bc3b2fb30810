"""The four generators a training run draws from: set, written down, and put back as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed torch (CPU and CUDA), numpy and random.

    >>> seed_everything(0)
    >>> [round(x, 4) for x in torch.rand(5).tolist()]
    [0.4963, 0.7682, 0.0885, 0.132, 0.3074]
    """
    torch.manual_seed(seed)  # all devices
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries in the loop may still draw from the global one)


def capture() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of every generator: tensors for a safetensors file, and the rest for JSON."""
    version, words, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    tensors = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        tensors |= {f"cuda.{place}": state for place, state in enumerate(torch.cuda.get_rng_state_all())}
    rest = {
        "python": {"version": version, "gauss": gauss},
        "numpy": {"pos": int(numpy["state"]["pos"]), "has_gauss": numpy["has_gauss"], "gauss": numpy["gauss"]},
    }
    return tensors, rest


def restore(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
    """Put every generator back to what `capture` saw. CUDA devices that are not here any more are left out."""
    torch.set_rng_state(tensors["torch"])
    for place in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda.{place}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{place}"], place)
    python = rest["python"]
    random.setstate((python["version"], tuple(tensors["python"].tolist()), python["gauss"]))
    numpy = rest["numpy"]
    key = tensors["numpy"].numpy().astype(np.uint32)
    state = {"bit_generator": "MT19937", "state": {"key": key, "pos": numpy["pos"]}}
    np.random.set_state(state | {"has_gauss": numpy["has_gauss"], "gauss": numpy["gauss"]})  # noqa: NPY002


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever is drawn inside, the generators outside never notice."""
    tensors, rest = capture()
    try:
        yield
    finally:
        restore(tensors, rest)

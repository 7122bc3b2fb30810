"""What every sampler offers, and how a sampler makes one that it wraps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from torso.data.draws import generator_of
from torso.data.index import Index


class Sampler(Protocol):
    """The pictures of an epoch in their order."""

    def __len__(self) -> int:
        """Pictures an epoch, the same in every epoch."""
        ...

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows of the index, ``[len]``; the same for the same numbers, on every machine and in any order of calls."""
        ...


Maker = Callable[..., Sampler]
"""Makes a sampler from an index: a class of this package, or a ``functools.partial`` of one."""


def inner(maker: Maker, index: Index, batch_size: int) -> Sampler:
    """A wrapped sampler; it is told the size of a batch where it asks for it."""
    asks = "batch_size" in inspect.signature(maker).parameters
    return maker(index, batch_size=batch_size) if asks else maker(index)


def drawn(seed: int, epoch: int, *more: int) -> Generator:
    """The generator of an epoch's order, which is no sample's generator."""
    return generator_of(seed, epoch, -1, *more)


def shuffled(rows: NDArray[np.int64], generator: Generator) -> NDArray[np.int64]:
    """The rows in a new order."""
    mixed: NDArray[np.int64] = rows[torch.randperm(len(rows), generator=generator).numpy()]
    return mixed

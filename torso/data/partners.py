"""Other pictures for transforms that mix several, chosen so that few pictures are decoded twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from torso.data.index import Index
from torso.data.scene import Scene

LANES = 8
POOL = 32


def pool(position: int, batch: int, count: int) -> NDArray[np.int64]:
    """Positions of an epoch from which partners of the one at ``position`` are drawn; it is one of them.

    They lie in its own batch and in the 8th, 16th, ... batch before, until there are 32. A loader's workers take
    batches in turn, so that with 1, 2, 4 or 8 workers one and the same has just decoded all of them: partners cost
    no decoding. With any other number of workers the samples are the same, and some pictures are decoded again.
    """
    number = position // batch
    depth = max(-(-POOL // batch), 1)
    numbers = [number - LANES * back for back in range(depth) if number >= LANES * back]
    return np.concatenate([np.arange(n * batch, min((n + 1) * batch, count)) for n in numbers])


class Pool:
    """The partners of one sample (``torso.data.scene.Partners``).

    Args:
        index: the data.
        rows: rows to draw from, ``[k]``.
        own: the row that asks; it is drawn only where there is no other.
        target: width and height the network wants.
        before: what the transforms before make of a row.
    """

    def __init__(
        self,
        index: Index,
        rows: NDArray[np.int64],
        own: int,
        target: tuple[int, int],
        before: Callable[[int, Generator], Scene],
    ) -> None:
        self.index = index
        self._rows = rows
        self._own = own
        self._target = target
        self._before = before

    def row(self, generator: Generator) -> int:
        """Another row."""
        count = len(self._rows)
        found = self._own
        for _ in range(8):
            found = int(self._rows[int(torch.randint(count, (), generator=generator))])
            if found != self._own:
                break
        return found

    def raw(self, generator: Generator) -> Scene:
        """Another picture as it is in its file."""
        row = self.row(generator)
        width, height = self.index.sizes[row].tolist()
        return Scene.of(row, (width, height), self._target)

    def like(self, generator: Generator) -> Scene:
        """Another picture after the transforms that come before the one that asks."""
        return self._before(self.row(generator), generator)

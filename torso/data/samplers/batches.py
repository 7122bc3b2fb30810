"""An order cut into batches, and what becomes of the last one."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from torso.config import Role
from torso.data.index import Index
from torso.data.samplers.orders import Random
from torso.data.samplers.sampler import Maker, Sampler, inner


class Batches:
    """The order of another sampler in batches, with a rule for a last one that is not full.

    A last batch of one picture makes batch normalisation fail or learn from nothing: drop it or fill it.

    Args:
        index: the pictures.
        sampler: the order.
        batch_size: pictures a step (wired).
        last: leave the last batch out where it is not full (``drop``), keep it short (``keep``), or complete it from
            the start of the same order (``fill``).

    Raises:
        ValueError: ``batch_size`` is below 1, or nothing is left after dropping.

    Source: torch.utils.data.BatchSampler.
    """

    def __init__(
        self,
        index: Index,
        sampler: Annotated[Maker, Role("sampler", factory=True)] = Random,
        *,
        batch_size: int,
        last: Literal["drop", "keep", "fill"] = "drop",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, came {batch_size}")
        self.sampler: Sampler = inner(sampler, index, batch_size)
        self.batch_size = batch_size
        count = len(self.sampler)
        full, rest = divmod(count, batch_size)
        self._count = {"drop": count - rest, "keep": count, "fill": (full + bool(rest)) * batch_size}[last]
        if not self._count:
            raise ValueError(f"last: a full batch of {batch_size} needs as many pictures, there are {count}; use fill")

    def __len__(self) -> int:
        return self._count

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]``."""
        return np.resize(self.sampler.rows(seed, epoch), self._count)

    def batches(self, seed: int, epoch: int) -> list[NDArray[np.int64]]:
        """Rows, a batch an entry."""
        return np.split(self.rows(seed, epoch), range(self.batch_size, self._count, self.batch_size))

"""Samplers that ask nothing about labels: in order, at random, some of the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from torso.data.index import Index
from torso.data.samplers.sampler import drawn, shuffled


class Sequential:
    """All pictures once, in the order of the index.

    Args:
        index: the pictures.

    Source: torch.utils.data.SequentialSampler.
    """

    def __init__(self, index: Index) -> None:
        self._count = len(index)

    def __len__(self) -> int:
        return self._count

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]``, the same in every epoch."""
        return np.arange(self._count, dtype=np.int64)


class Random:
    """A new order each epoch: all pictures once, or each drawn evenly from all.

    Args:
        index: the pictures.
        replacement: draw each picture from all of them, so that some come twice and others not.
        num_samples: pictures an epoch, at least 1; as many as there are when None. Without replacement, more than
            there are begin another order of all.

    Raises:
        ValueError: ``num_samples`` is below 1.

    Source: torch.utils.data.RandomSampler.
    """

    def __init__(self, index: Index, *, replacement: bool = False, num_samples: int | None = None) -> None:
        self._population = len(index)
        self._replacement = replacement
        self._count = at_least_one(len(index) if num_samples is None else num_samples)

    def __len__(self) -> int:
        return self._count

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]``."""
        generator = drawn(seed, epoch)
        if self._replacement:
            return torch.randint(self._population, (self._count,), generator=generator).numpy()
        orders = [
            torch.randperm(self._population, generator=generator).numpy()
            for _ in range(-(-self._count // self._population))
        ]
        return np.concatenate(orders)[: self._count]


class Subset:
    """Some of the pictures, in a new order each epoch.

    Args:
        index: the pictures.
        rows: which, counted from 0; one may come twice.
        fraction: without ``rows``: so large a part of all, above 0 to 1, chosen once for the whole run.
        choice: the number that decides which; the seed of the run does not, so that runs with other seeds compare.
        shuffle: a new order each epoch, or that of the rows.

    Raises:
        ValueError: a row that is not there, no rows, or a fraction outside of 0..1.

    Source: torch.utils.data.SubsetRandomSampler.
    """

    def __init__(
        self,
        index: Index,
        *,
        rows: Sequence[int] | None = None,
        fraction: float = 1.0,
        choice: int = 0,
        shuffle: bool = True,
    ) -> None:
        if rows is None:
            if not 0 < fraction <= 1:
                raise ValueError(f"fraction: expected more than 0 and at most 1, came {fraction:g}")
            count = max(round(len(index) * fraction), 1)
            rows = sorted(torch.randperm(len(index), generator=drawn(choice, 0, 1))[:count].tolist())
        self._rows = np.asarray(rows, np.int64)
        if not len(self._rows) or self._rows.min() < 0 or self._rows.max() >= len(index):
            came = f"{self._rows.min()}..{self._rows.max()}" if len(self._rows) else "none"
            raise ValueError(f"rows: expected some of 0..{len(index) - 1}, came {came}")
        self._shuffle = shuffle

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]``."""
        if not self._shuffle:
            return self._rows.copy()
        return shuffled(self._rows, drawn(seed, epoch))


def at_least_one(num_samples: int) -> int:
    """The number itself.

    Raises:
        ValueError: it is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, came {num_samples}")
    return num_samples

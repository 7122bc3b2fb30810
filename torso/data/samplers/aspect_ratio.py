"""Pictures of similar shape together in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from torso.config import Role
from torso.data.index import Index
from torso.data.samplers.orders import Random
from torso.data.samplers.sampler import Maker, Sampler, inner


class AspectRatio:
    """The order of another sampler, changed so that the pictures of a batch have similar shapes.

    A batch is complete when its group has enough pictures, and comes then; what is left of the groups at the end
    makes mixed batches, sorted by shape. Every picture comes as often as the other sampler says.

    This is an order and nothing more. With a canvas of fixed size, which is what a recipe has, the cost of a step
    does not depend on it: it gives nothing there. It saves padding where canvases follow the batch.

    Args:
        index: the pictures.
        sampler: the order to begin with.
        batch_size: pictures a step (wired).
        edges: width / height at which one group ends and the next begins, rising; 1 parts upright from wide.

    Raises:
        ValueError: edges that do not rise, or ``batch_size`` below 1.

    Source: torchvision's detection references (GroupedBatchSampler).
    """

    def __init__(
        self,
        index: Index,
        sampler: Annotated[Maker, Role("sampler", factory=True)] = Random,
        *,
        batch_size: int,
        edges: Sequence[float] = (1.0,),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, came {batch_size}")
        if list(edges) != sorted(set(edges)) or any(edge <= 0 for edge in edges):
            raise ValueError(f"edges: expected rising numbers above 0, came {list(edges)}")
        self.sampler: Sampler = inner(sampler, index, batch_size)
        self.batch_size = batch_size
        self._ratio = index.sizes[:, 0] / index.sizes[:, 1]  # [N]
        self._group = np.searchsorted(np.asarray(edges, np.float64), self._ratio, side="right")  # [N]

    def __len__(self) -> int:
        return len(self.sampler)

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]``; every ``batch_size`` of them are a batch."""
        rows = self.sampler.rows(seed, epoch)
        group = self._group[rows]
        complete: list[NDArray[np.int64]] = []  # positions in the first order
        rest = [np.zeros(0, np.int64)]
        for number in np.unique(group):
            at = np.flatnonzero(group == number)
            full = len(at) // self.batch_size * self.batch_size
            complete += list(at[:full].reshape(-1, self.batch_size))
            rest.append(at[full:])
        complete.sort(key=lambda at: int(at[-1]))
        left = np.concatenate(rest)
        left = left[np.argsort(self._ratio[rows[left]], kind="stable")]
        grouped: NDArray[np.int64] = rows[np.concatenate([*complete, left])]
        return grouped

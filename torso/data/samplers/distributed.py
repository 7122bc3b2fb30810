"""The same epoch on several processes: each takes its share of every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from torso.config import Role
from torso.data.index import Index
from torso.data.samplers.orders import Random
from torso.data.samplers.sampler import Maker, Sampler, inner


@dataclass(frozen=True)
class Shares:
    """How the positions of an epoch fall to steps and ranks.

    Of a full step rank r takes the r-th ``batch`` positions, so that all ranks together see in a step what one process
    with ``world_size * batch`` pictures a step sees. The last step, where it is not full, is shared evenly. Every rank
    has the same number of steps and, in each, of pictures: by construction, so that no rank waits for another. What
    is missing for that, fewer pictures than there are ranks, are repeats from the start of the epoch: positions from
    ``count`` on.
    """

    count: int  # positions of an epoch
    batch: int  # pictures a step on one rank
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False  # leave out a last step that is not full

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch: expected at least 1, came {self.batch}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank: expected 0..{self.world_size - 1}, came {self.rank}")

    @property
    def whole(self) -> int:
        """Pictures a step on all ranks."""
        return self.batch * self.world_size

    @property
    def steps(self) -> int:
        """Steps an epoch, the same on every rank."""
        return self.count // self.whole if self.drop_last else -(-self.count // self.whole)

    def positions(self, step: int) -> range:
        """The positions of this rank in a step; one from ``count`` on is a repeat of that from the start."""
        left = self.count - step * self.whole
        size = self.batch if left >= self.whole else -(-left // self.world_size)
        first = step * self.whole + self.rank * size
        return range(first, first + size)

    @property
    def repeats(self) -> int:
        """How many pictures this rank sees that another has seen already; they are the last of the last step."""
        last = self.positions(self.steps - 1) if self.steps else range(0)
        return sum(position >= self.count for position in last)


class Distributed:
    """One rank's share of another sampler's order, with as many steps and pictures as every other rank has.

    The loader shares out the order by itself where it is given a rank; this part is for a share taken by hand, one
    machine a share.

    Args:
        index: the pictures.
        sampler: the order that is shared.
        batch_size: pictures a step on this rank (wired).
        rank: which share, from 0.
        world_size: how many shares.
        drop_last: leave out a last step that is not full; else fewer than ``world_size`` pictures come twice.

    Raises:
        ValueError: a rank that is none of 0..world_size - 1, or fewer pictures than a step needs.

    Source: torch.utils.data.DistributedSampler (which repeats likewise, but deals pictures one by one).
    """

    def __init__(
        self,
        index: Index,
        sampler: Annotated[Maker, Role("sampler", factory=True)] = Random,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.sampler: Sampler = inner(sampler, index, batch_size * world_size)
        self.shares = Shares(len(self.sampler), batch_size, rank, world_size, drop_last)
        if not self.shares.steps:
            needed = self.shares.whole
            raise ValueError(f"drop_last: a step of {needed} needs as many pictures, there are {len(self.sampler)}")
        positions = [position for step in range(self.shares.steps) for position in self.shares.positions(step)]
        self._positions = np.array(positions, np.int64)  # [len]

    def __len__(self) -> int:
        return len(self._positions)

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]`` of this rank."""
        rows = self.sampler.rows(seed, epoch)
        own: NDArray[np.int64] = rows[self._positions % len(rows)]
        return own

    @property
    def repeated(self) -> NDArray[np.bool_]:
        """Which of the rows are repeats that other ranks have too, ``[len]``: an evaluation leaves them out."""
        found: NDArray[np.bool_] = self._positions >= len(self.sampler)
        return found

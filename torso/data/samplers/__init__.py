"""Samplers: which pictures an epoch shows, and in what order.

The contract: a constructor takes the index first and the user's options after it; ``rows(seed, epoch)`` gives the rows
of an epoch in order, int64, as a pure function; ``len`` is how many they are, the same in every epoch, so that the
number of steps stays. A sampler keeps no position: a run that is resumed asks for the same rows again and goes on where
it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torso.data.samplers.aspect_ratio import AspectRatio
from torso.data.samplers.balance import ClassBalanced, Over, Under
from torso.data.samplers.batches import Batches
from torso.data.samplers.distributed import Distributed, Shares
from torso.data.samplers.orders import Random, Sequential, Subset
from torso.data.samplers.repeat_factor import RepeatFactor
from torso.data.samplers.sampler import Sampler
from torso.data.samplers.weighted import Weighted

SAMPLERS: dict[str, Callable[..., Any]] = {
    "sequential": Sequential,
    "random": Random,
    "subset": Subset,
    "weighted": Weighted,
    "over": Over,
    "under": Under,
    "class_balanced": ClassBalanced,
    "repeat_factor": RepeatFactor,
    "aspect_ratio": AspectRatio,
    "batch": Batches,
    "distributed": Distributed,
}

__all__ = [
    "SAMPLERS",
    "AspectRatio",
    "Batches",
    "ClassBalanced",
    "Distributed",
    "Over",
    "Random",
    "RepeatFactor",
    "Sampler",
    "Sequential",
    "Shares",
    "Subset",
    "Under",
    "Weighted",
]

"""Pictures drawn by their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from torso.config import suggestion
from torso.data.index import Index
from torso.data.samplers.orders import at_least_one
from torso.data.samplers.presence import Presence
from torso.data.samplers.sampler import drawn

_MOST = 1 << 24  # what torch.multinomial can tell apart


class Weighted:
    """Each picture is drawn with a probability in proportion to its weight.

    Args:
        index: the pictures.
        weights: of classes, by name, or of pictures, one for each. With several classes on a picture the largest
            counts; classes that are not named, and pictures without any, weigh 1.
        num_samples: pictures an epoch, at least 1; as many as there are when None.
        replacement: whether a picture may come twice.

    Raises:
        ValueError: weights that are negative or all 0, of unknown classes, or fewer or more than pictures.

    Source: torch.utils.data.WeightedRandomSampler.
    """

    def __init__(
        self,
        index: Index,
        weights: Mapping[str, float] | Sequence[float],
        *,
        num_samples: int | None = None,
        replacement: bool = True,
    ) -> None:
        values = _of_classes(index, weights) if isinstance(weights, Mapping) else np.asarray(weights, np.float64)
        if values.shape != (len(index),):
            raise ValueError(f"weights: expected one for each of {len(index)} pictures, came {values.size}")
        if len(index) > _MOST:
            raise ValueError(f"weights: expected at most {_MOST} pictures, came {len(index)}; use class_balanced")
        if not np.isfinite(values).all() or values.min() < 0 or values.max() == 0:
            raise ValueError("weights: expected numbers from 0 up, not all of them 0")
        self._weights = torch.from_numpy(values)
        self._count = at_least_one(len(index) if num_samples is None else num_samples)
        self._replacement = replacement
        possible = int((values > 0).sum())
        if not replacement and self._count > possible:
            raise ValueError(
                f"num_samples: without replacement at most the {possible} pictures with a weight, came {self._count}"
            )

    def __len__(self) -> int:
        return self._count

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]``."""
        chosen = torch.multinomial(self._weights, self._count, self._replacement, generator=drawn(seed, epoch))
        return chosen.numpy()


def _of_classes(index: Index, weights: Mapping[str, float]) -> NDArray[np.float64]:
    """The weight of each picture, ``[N]``."""
    for name in weights:
        if name not in index.classes:
            raise ValueError(f"weights: there is no class {name!r}{suggestion(name, index.classes)}")
    values = np.array([weights.get(name, 1.0) for name in index.classes], np.float64)
    return Presence.of(index).largest(values, len(index), 1.0)

"""Repeat-factor sampling: pictures of rare classes come more often."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torso.data.index import Index
from torso.data.samplers.presence import Presence, whole
from torso.data.samplers.sampler import drawn, shuffled


class RepeatFactor:
    """Pictures with a class rarer than a threshold come several times an epoch.

    A class on a fraction f of the pictures has the factor max(1, sqrt(threshold / f)), a picture the largest factor of
    its classes, 1 where it has none. Factors are rounded at random, anew each epoch, but so that an epoch always has
    the same number of pictures: the sum of the factors, rounded.

    Args:
        index: the pictures.
        threshold: the fraction of pictures below which a class is rare, above 0 to 1.

    Raises:
        ValueError: a threshold outside of 0..1.
        DataError: there are no labels.

    Source: LVIS: A Dataset for Large Vocabulary Instance Segmentation, 2019, arXiv:1908.03195.
    """

    def __init__(self, index: Index, *, threshold: float = 0.001) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold: expected more than 0 and at most 1, came {threshold:g}")
        presence = Presence.of(index)
        fraction = np.maximum(presence.counts, 1) / len(index)  # a class that is nowhere has no picture to repeat
        self.factors = presence.largest(np.maximum(1.0, np.sqrt(threshold / fraction)), len(index), 1.0)  # [N]
        self._count = len(self._repeats(0, 0))

    def __len__(self) -> int:
        return self._count

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]`` in a random order."""
        return shuffled(self._repeats(seed, epoch), drawn(seed, epoch))

    def _repeats(self, seed: int, epoch: int) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.factors)), whole(self.factors, drawn(seed, epoch, 1)))

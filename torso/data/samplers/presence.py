"""Which classes are on which picture, and how pictures are counted for balancing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from torso.config import DataError
from torso.data.index import Index


@dataclass(frozen=True)
class Presence:
    """Pairs of a picture and a class on it, each pair once, sorted by picture.

    Objects that are not learned (crowd, difficult) do not count.
    """

    rows: NDArray[np.int64]  # [P]
    labels: NDArray[np.int64]  # [P]
    counts: NDArray[np.int64]  # [classes] pictures that show each

    @classmethod
    def of(cls, index: Index) -> Presence:
        """From the labels of an index.

        Raises:
            DataError: it has none: nothing is there to be balanced.
        """
        classes = len(index.classes)
        if index.image_labels is not None:
            pairs = np.arange(len(index)) * classes + index.image_labels
        else:
            owner = np.repeat(np.arange(len(index)), np.diff(index.offsets))
            learned = ~(index.crowd | index.difficult)
            pairs = np.unique(owner[learned] * classes + index.labels[learned])
        if not len(pairs):
            raise DataError(f"{index.root}: no picture has a class that could be balanced; use sampler=random")
        return cls(pairs // classes, pairs % classes, np.bincount(pairs % classes, minlength=classes))

    def largest(self, values: NDArray[np.float64], count: int, otherwise: float) -> NDArray[np.float64]:
        """The largest value of the classes on each of ``count`` pictures; ``otherwise`` where there is none."""
        found = np.full(count, -np.inf)
        np.maximum.at(found, self.rows, values[self.labels])
        return np.where(np.isneginf(found), otherwise, found)

    def rarest(self, count: int) -> NDArray[np.int64]:
        """The class on each picture that the fewest pictures show, ``[count]``; -1 where there is none."""
        found = np.full(count, -1, np.int64)
        # From the rarest class of a picture to its commonest, the lower label first: the first one written stays.
        order = np.lexsort((self.labels, self.counts[self.labels], self.rows))
        rows, first = np.unique(self.rows[order], return_index=True)
        found[rows] = self.labels[order][first]
        return found


def whole(expected: NDArray[np.float64], generator: Generator) -> NDArray[np.int64]:
    """Whole numbers ``[n]`` that are ``expected`` on average, each rounded down or up, their sum always the same.

    Systematic sampling of the fractions in a random order. Where they do not add up to a whole number, the half at
    most that is missing to the next one is spread over all of them.
    """
    least = np.floor(expected)
    part = expected - least
    total = float(part.sum())
    count = round(total)
    if count < total:
        part = part * (count / total)
    elif count > total:
        part = part + (1 - part) * ((count - total) / (len(part) - total))
    order = torch.randperm(len(part), generator=generator).numpy()
    ends = np.cumsum(part[order])
    ends[-1:] = count
    start = float(torch.rand((), dtype=torch.float64, generator=generator))
    more = np.empty(len(part), np.int64)
    more[order] = np.diff(np.floor(np.minimum(ends, count) + start), prepend=0.0).astype(np.int64)
    return least.astype(np.int64) + more


def repeated(members: NDArray[np.int64], count: int, generator: Generator) -> NDArray[np.int64]:
    """``count`` rows of ``members``, each as often as any other or once more; who comes once more is drawn."""
    times, rest = divmod(count, len(members))
    chosen = torch.randperm(len(members), generator=generator)[:rest].numpy()
    return np.concatenate([np.tile(members, times), members[chosen]])

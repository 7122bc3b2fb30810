"""Classes brought to like numbers: the rare ones repeated, the common ones thinned, or all drawn alike.

With several classes on a picture, `Over` and `Under` count it for the rarest of them (that which the fewest pictures
show): every picture is in one group, so the numbers are exact, and a common class comes along with the rare ones.
Pictures without objects are a group that never sets a number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torso.data.index import Index
from torso.data.samplers.orders import at_least_one
from torso.data.samplers.presence import Presence, repeated, whole
from torso.data.samplers.sampler import drawn, shuffled


class _Groups:
    """Groups of pictures and how many of each an epoch shows."""

    def __init__(self, members: list[NDArray[np.int64]], targets: list[int]) -> None:
        self._members = members
        self._targets = targets

    def __len__(self) -> int:
        return sum(self._targets)

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]`` in a random order."""
        generator = drawn(seed, epoch)
        pairs = zip(self._members, self._targets, strict=True)
        return shuffled(np.concatenate([repeated(rows, target, generator) for rows, target in pairs]), generator)


class Over:
    """Random over-sampling: pictures of rare classes come again until each class has as many as the largest.

    All pictures of a class come equally often, up to one; which come once more is drawn anew each epoch. Pictures
    without objects come once.

    Args:
        index: the pictures.
        ratio: what each class shall have of the largest one's number, above 0 to 1; classes with more stay.

    Raises:
        ValueError: a ratio outside of 0..1.
        DataError: there are no labels.

    Source: imbalanced-learn RandomOverSampler (which draws each repeat from all).
    """

    def __init__(self, index: Index, *, ratio: float = 1.0) -> None:
        members, empty = _groups(index)
        target = round(_checked(ratio) * max(map(len, members)))
        targets = [max(len(rows), target) for rows in members]
        self._groups = _Groups([*members, empty], [*targets, len(empty)]) if len(empty) else _Groups(members, targets)

    def __len__(self) -> int:
        return len(self._groups)

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]``."""
        return self._groups.rows(seed, epoch)


class Under:
    """Random under-sampling: of each class only as many pictures an epoch as the smallest has.

    Which ones is drawn anew each epoch, so that in time all are seen. Of pictures without objects at most as many
    come.

    Args:
        index: the pictures.
        ratio: what the smallest class shall be of any other, above 0 to 1; classes with fewer stay.

    Raises:
        ValueError: a ratio outside of 0..1.
        DataError: there are no labels.

    Source: imbalanced-learn RandomUnderSampler.
    """

    def __init__(self, index: Index, *, ratio: float = 1.0) -> None:
        members, empty = _groups(index)
        target = round(min(map(len, members)) / _checked(ratio))
        groups = [*members, empty] if len(empty) else members
        self._groups = _Groups(groups, [min(len(rows), target) for rows in groups])

    def __len__(self) -> int:
        return len(self._groups)

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]``."""
        return self._groups.rows(seed, epoch)


class ClassBalanced:
    """A class first, then a picture that shows it: every class is asked for equally often.

    The pictures of a class come in turn, none a second time before all have come once. A picture with several classes
    may come for each of them. Pictures without objects never come.

    Args:
        index: the pictures.
        num_samples: pictures an epoch, at least 1; as many as there are when None.
        beta: 0 to 1: from the shares that classes have (0) to equal ones (1); the share of a class with n pictures is
            in proportion to n / (1 - beta^n), n over its effective number of samples.

    Raises:
        ValueError: ``num_samples`` below 1, or ``beta`` outside of 0..1.
        DataError: there are no labels.

    Source: Relay Backpropagation, 2015, arXiv:1512.05830; beta: Class-Balanced Loss, 2019, arXiv:1901.05555.
    """

    def __init__(self, index: Index, *, num_samples: int | None = None, beta: float = 1.0) -> None:
        if not 0 <= beta <= 1:
            raise ValueError(f"beta: expected 0 to 1, came {beta:g}")
        presence = Presence.of(index)
        order = np.argsort(presence.labels, kind="stable")
        counts = presence.counts[presence.counts > 0]
        self._members = np.split(presence.rows[order], np.cumsum(counts)[:-1])
        self._count = at_least_one(len(index) if num_samples is None else num_samples)
        share = np.ones(len(counts)) if beta == 1 else counts / (1 - beta ** counts.astype(np.float64))
        self._expected = self._count * share / share.sum()

    def __len__(self) -> int:
        return self._count

    def rows(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows ``[len]`` in a random order."""
        generator = drawn(seed, epoch)
        numbers = whole(self._expected, generator).tolist()
        pairs = zip(self._members, numbers, strict=True)
        return shuffled(np.concatenate([repeated(rows, number, generator) for rows, number in pairs]), generator)


def _groups(index: Index) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """The pictures of each class that has any, and those without a class."""
    group = Presence.of(index).rarest(len(index))
    return [np.flatnonzero(group == label) for label in np.unique(group[group >= 0])], np.flatnonzero(group < 0)


def _checked(ratio: float) -> float:
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio: expected more than 0 and at most 1, came {ratio:g}")
    return ratio

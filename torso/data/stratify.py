"""Which split each picture goes to: by chance, by class, by several classes at once, and never half a group."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError

Parts = NDArray[np.int64]
"""``[n]``: the number of the split of each picture (or group of pictures)."""

_TRIES, _MOST_TRIES = 100, 50_000  # pairs of pictures that may change places: for each picture, and in all


def sizes_of(count: int, fractions: Mapping[str, float]) -> list[int]:
    """How many of ``count`` pictures each split gets: whole parts first, what is left one by one from the first on.

    The rule of torch's ``random_split``.

    Raises:
        DataError: fractions that are not above 0 or do not add up to 1, or a split that would be empty.
    """
    shown = ", ".join(f"{name} {fraction:g}" for name, fraction in fractions.items())
    if len(fractions) < 2 or not all(0 < fraction < 1 for fraction in fractions.values()):
        raise DataError(f"expected two splits or more, each a fraction between 0 and 1, came {shown}")
    if not math.isclose(sum(fractions.values()), 1, rel_tol=1e-6):
        raise DataError(f"expected fractions that add up to 1, came {shown}")
    sizes = [math.floor(count * fraction) for fraction in fractions.values()]
    for extra in range(count - sum(sizes)):
        sizes[extra % len(sizes)] += 1
    empty = [name for name, size in zip(fractions, sizes, strict=True) if not size]
    if empty:
        raise DataError(f"{', '.join(empty)}: would get none of {count} pictures; raise the fraction")
    return sizes


def by_chance(sizes: Sequence[int], random: np.random.Generator) -> Parts:
    """Each picture anywhere, the sizes exact."""
    return random.permutation(np.repeat(np.arange(len(sizes)), sizes))


def by_one_class(labels: NDArray[np.int64], sizes: Sequence[int], random: np.random.Generator) -> Parts:
    """One class a picture: every class is shared out like the whole; sizes exact, of two splits classes within 1.

    A class with too few pictures to share out goes to the largest split, where a model can at least learn it.
    """
    parts = np.empty(len(labels), np.int64)
    share = np.array(sizes) / sum(sizes)
    left = np.array(sizes)
    members = [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    over = []
    for rows in members:
        whole = np.floor(share * len(rows) + 1e-9).astype(np.int64)
        parts[rows[: whole.sum()]] = np.repeat(np.arange(len(sizes)), whole)
        left -= whole
        over.append((bool(whole.any()), rows[whole.sum() :]))
    for fits, rows in sorted(over, key=lambda one: one[0]):
        free = np.ones(len(sizes), np.bool_)
        for row in rows:
            room = np.where(free & (left > 0), left, 0)
            room = room if room.any() else left
            # In proportion to the room that is left, as if drawn from an urn.
            part = random.choice(len(sizes), p=room / room.sum()) if fits else int((share * (room > 0)).argmax())
            parts[row] = part
            left[part] -= 1
            free[part] = False
    return parts


def by_classes(
    holds: Sequence[Mapping[int, int]], weights: Sequence[int], sizes: Sequence[int], random: np.random.Generator
) -> Parts:
    """Several classes a picture, by iterative stratification: the rarest class is shared out first, and so on.

    What is shared out are objects rather than pictures, so the classes' counts of objects come out in proportion.

    Unlike in the paper, a picture goes where a class lacks most for the size of the split, not where it lacks most,
    and at the end pictures of two splits change places where that brings classes nearer to their shares.

    Args:
        holds: of each picture (or group of pictures that stay together) its classes and how many objects of each.
        weights: of each its number of pictures.
        sizes: pictures of each split; kept exactly where nothing is grouped.
        random: breaks ties and orders what is equal.

    Source: On the Stratification of Multi-label Data (Sechidis, Tsoumakas and Vlahavas), 2011.
    """
    parts = np.full(len(holds), -1, np.int64)
    room = [float(size) for size in sizes]
    total = sum(room)
    having: dict[int, list[int]] = {}
    for unit in random.permutation(len(holds)).tolist():
        for label in holds[unit]:
            having.setdefault(label, []).append(unit)
    counts = {label: sum(holds[unit][label] for unit in units) for label, units in having.items()}
    wanted = {label: [count * size / total for size in sizes] for label, count in counts.items()}
    left = {label: len(units) for label, units in having.items()}

    def put(unit: int, part: int) -> None:
        parts[unit] = part
        room[part] -= weights[unit]
        for label, count in holds[unit].items():
            wanted[label][part] -= count
            left[label] -= 1

    while left:
        rarest = min(left, key=lambda label: (left[label], counts[label], label))
        units = [unit for unit in having[rarest] if parts[unit] < 0]
        # Large ones first, while there is room to make up for them; those of about one size in any order.
        for unit in sorted(units, key=lambda unit: -holds[unit][rarest].bit_length()):
            put(unit, _neediest(wanted[rarest], holds[unit][rarest], sizes, room, weights[unit]))
        del left[rarest]
    rest = [unit for unit in random.permutation(len(holds)).tolist() if parts[unit] < 0]
    for unit in sorted(rest, key=lambda unit: -weights[unit].bit_length()):
        chances = np.array([space if space >= weights[unit] else 0.0 for space in room])
        fits = chances.sum() > 0
        put(unit, int(random.choice(len(room), p=chances / chances.sum()) if fits else np.argmax(room)))
    _exchange(parts, holds, weights, sizes, random)
    return parts


def _neediest(wanted: Sequence[float], count: int, sizes: Sequence[int], room: Sequence[float], weight: int) -> int:
    """The split that lacks most of a class for its size, of those that have room; where none has, the roomiest.

    Half of what would be added counts as there already (the rule by which Webster shares out seats): at every moment
    the splits hold shares in proportion, so that crowded pictures do not all go to the first of them.
    """
    free = [part for part, space in enumerate(room) if space >= weight]
    if not free:
        return max(range(len(room)), key=lambda part: room[part])
    return max(free, key=lambda part: ((wanted[part] - count / 2) / sizes[part], room[part]))


def _exchange(
    parts: Parts,
    holds: Sequence[Mapping[int, int]],
    weights: Sequence[int],
    sizes: Sequence[int],
    random: np.random.Generator,
) -> None:
    """Lets pairs of two splits change places where that brings the classes nearer to their shares.

    Random pairs are tried, so that large data cost no more than a second.
    """
    totals: Counter[int] = Counter()
    for held in holds:
        totals.update(held)
    share = [size / sum(sizes) for size in sizes]
    # By how much of its objects each split has too much of a class.
    over = {label: [-one for one in share] for label in totals}
    for unit, part in enumerate(parts.tolist()):
        for label, count in holds[unit].items():
            over[label][part] += count / totals[label]
    for one, other in random.integers(len(holds), size=(min(_TRIES * len(holds), _MOST_TRIES), 2)).tolist():
        here, there = int(parts[one]), int(parts[other])
        if here == there or weights[one] != weights[other]:
            continue
        moved = {
            label: (holds[one].get(label, 0) - holds[other].get(label, 0)) / totals[label]
            for label in {*holds[one], *holds[other]}
        }
        gain = sum(2 * part * (over[label][here] - over[label][there] - part) for label, part in moved.items())
        if gain <= 1e-12:
            continue
        parts[one], parts[other] = there, here
        for label, count in moved.items():
            over[label][here] -= count
            over[label][there] += count


def together(*groupings: Sequence[object]) -> NDArray[np.int64]:
    """The group of each picture, counted from 0, where pictures that any of the groupings joins stay together."""
    above = list(range(len(groupings[0])))

    def top(row: int) -> int:
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    for grouping in groupings:
        first: dict[object, int] = {}
        for row, group in enumerate(grouping):
            above[top(row)] = top(first.setdefault(group, row))
    return np.unique([top(row) for row in range(len(above))], return_inverse=True)[1].astype(np.int64)

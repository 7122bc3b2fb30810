"""Objects of all pictures at once, a column a field: what readers of large files fill instead of ``Object`` by object.

The usual checks run over whole columns; only a row that fails one is looked at by itself (``Builder.table``), so
what is said about it is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.data.index import Mask

Rows = NDArray[np.int64]

# Odd multipliers (digits of the golden ratio, and of other roots) that spread the bits of equal-looking coordinates.
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F)
_MIX_PICTURE = 0xE7037ED1A0B428DB


@dataclass
class Table:
    """T rows in the order of their pictures; ``boxes``, ``area`` and flags mean what they do in ``Object``."""

    pictures: Rows  # [T] rows of the pictures, rising
    numbers: Rows  # [T] where the file has them
    boxes: NDArray[np.float64]  # [T, 4] xyxy
    labels: Rows  # [T]
    area: NDArray[np.float64]  # [T], nan where the file does not say
    crowd: NDArray[np.bool_]  # [T]
    difficult: NDArray[np.bool_]  # [T]
    masks: list[Mask] | None
    keypoints: NDArray[np.float64] | None  # [T, K, 3]
    named: Callable[[int], str]  # a number -> how messages call that place in the file

    def where(self, row: int) -> str:
        """How messages call a row."""
        return f"{self.named(int(self.numbers[row]))}: "

    def plain(self, sizes: Rows, num_classes: int) -> NDArray[np.bool_]:
        """``[T]``: rows that need no second look: finite, with an area, inside their picture, of a known class.

        Args:
            sizes: ``[N, 2]`` width, height of the pictures.
            num_classes: labels count from 0 up to it.
        """
        x0, y0, x1, y1 = self.boxes.T
        good = (self.labels >= 0) & (self.labels < num_classes)
        # Comparisons with nan are false, so nan fails them; infinity lies outside.
        good &= (x0 >= 0) & (x0 < x1)
        good &= (y0 >= 0) & (y0 < y1)
        good &= x1 <= sizes[self.pictures, 0]
        good &= y1 <= sizes[self.pictures, 1]
        return good

    def repeated(self, among: NDArray[np.bool_]) -> list[int]:
        """Rows that say again what an earlier row of their picture said (box and class), unless they are crowds."""
        mixed = self.pictures.astype(np.uint64) * np.uint64(_MIX_PICTURE) + self.labels.astype(np.uint64)
        for column, factor in enumerate(_MIX[:4]):
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(_MIX[4])
            mixed += (self.boxes[:, column] + 0.0).view(np.uint64) * np.uint64(factor)  # + 0.0, for -0 is 0
        ordered = np.sort(mixed)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if not len(twice):
            return []
        seen: dict[tuple[Any, ...], int] = defaultdict(int)
        found = []
        for row in np.flatnonzero(np.isin(mixed, twice) & among).tolist():
            key = (int(self.pictures[row]), int(self.labels[row]), *self.boxes[row].tolist())
            if seen[key] and not self.crowd[row]:
                found.append(row)
            seen[key] += 1
        return found

    def kept(self, good: NDArray[np.bool_]) -> Table:
        """The rows that are good."""
        return self if good.all() else self.taken(np.flatnonzero(good))

    def taken(self, rows: Rows) -> Table:
        """Some rows in the order given."""
        return replace(
            self,
            pictures=self.pictures[rows],
            numbers=self.numbers[rows],
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            area=self.area[rows],
            crowd=self.crowd[rows],
            difficult=self.difficult[rows],
            masks=None if self.masks is None else [self.masks[row] for row in rows.tolist()],
            keypoints=None if self.keypoints is None else self.keypoints[rows],
        )

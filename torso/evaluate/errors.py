"""Why a detector is not perfect: every wrong box and every missed object has one cause, and each cause a price.

A detection that the COCO rule at overlap 0.5 calls wrong is, by the first of these that holds:

- ``localisation``: it overlaps an object of its class by 0.1 to 0.5;
- ``classification``: it overlaps an object of another class by 0.5 or more;
- ``duplicate``: it overlaps an object of its class by 0.5 or more, which a better detection has found;
- ``background``: it overlaps nothing by more than 0.1;
- ``both``: it overlaps an object of another class, and by less than 0.5.

An object that was not found is ``missed``, unless a detection with one of the first two errors is at it. The price of a
kind of error is what AP50 would gain were it mended, and it alone: the place or the class of a detection set right (at
one object only of the best that has one of these errors; all others go), the detection taken away, the missed object
not asked for. Prices do not add up to what is missing, because one error hides another; all mended together leave
nothing but right answers. ``false_positive`` and ``false_negative`` are the prices of all wrong detections and of all
objects that were not found.

Crowd regions and difficult objects are no objects here: a detection that the COCO rule leaves out has no error, and one
that only comes near to them lies on background.

Source: TIDE: A General Toolbox for Identifying Object Detection Errors, 2020, arXiv:2008.08115, with the order of tests
and the bounds of its code. There a class of which no object is left to ask for has AP 0, here 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torso.evaluate.mask_pairs import find_mask_pairs
from torso.evaluate.matching import Bools, Floats, Ints, Pairs, find_pairs, ignored, match_coco

if TYPE_CHECKING:
    from torso.data.index import Index
    from torso.evaluate.predictions import Predictions

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
RIGHT = -1
SPECIAL = ("false_positive", "false_negative")
MARKS = np.linspace(0, 1, 101)  # the recalls at which COCO looks at a curve


@dataclass(frozen=True)
class Errors:
    """How many errors of each kind there are, and what each kind costs."""

    ap: float  # AP50 as it is; NaN without objects
    counts: dict[str, int]  # of `KINDS` and `SPECIAL`: detections, or objects
    prices: dict[str, float]  # of the same: what AP50 would gain without them

    def rows(self) -> list[dict[str, Any]]:
        """One row a kind for tables and JSON: ``error``, ``count``, ``dAP`` (None where there is nothing to judge)."""
        return [
            {"error": kind, "count": count, "dAP": None if np.isnan(self.prices[kind]) else self.prices[kind]}
            for kind, count in self.counts.items()
        ]


class Breakdown:
    """The detections that count, what is wrong with each, and AP50 with errors mended.

    Args:
        index: the truth.
        predictions: in original pixels.
        overlap: from which IoU (0..1) a detection is well placed.
        background: up to which IoU with everything it lies on background, less than ``overlap``.
        most: detections of a class in a picture that are looked at, the best.
        masks: overlaps are those of masks, which both sides then have.

    Raises:
        ValueError: the shares are not 0 < background < overlap <= 1.

    Source: TIDE: A General Toolbox for Identifying Object Detection Errors, 2020, arXiv:2008.08115
    """

    def __init__(
        self,
        index: Index,
        predictions: Predictions,
        overlap: float = 0.5,
        background: float = 0.1,
        most: int = 100,
        masks: bool = False,
    ):
        if not 0 < background < overlap <= 1:
            raise ValueError(
                f"background and overlap are shares, 0 < background < overlap, got {background}, {overlap}"
            )
        self.overlap, self.background = overlap, background
        if masks:
            pairs = find_mask_pairs(index, predictions, background)
        else:
            pairs = find_pairs(index, predictions, background, by_class=False)
        same = (predictions.labels[pairs.detection] == index.labels[pairs.target]) & (pairs.overlap >= overlap)
        self.objects = index.labels  # [T] their classes
        self.counts = ~ignored(index)  # [T]
        self.classes = len(index.classes)
        # K' detections that count, by falling score
        own = Pairs(*(column[same] for column in pairs))
        self.detection, self.target = match_coco(index, predictions, overlap, most, own)
        self.labels = predictions.labels[self.detection]
        self.found = np.zeros(len(self.objects), dtype=bool)
        self.found[self.target[self.target >= 0]] = True
        self.kind, self.aim = self._causes(pairs, len(predictions))
        mendable = (self.kind == CLASSIFICATION) | (self.kind == LOCALISATION)
        self.missed = self.counts & ~self.found
        self.missed[self.aim[mendable]] = False
        free = np.flatnonzero(mendable)
        free = free[~self.found[self.aim[free]]]
        self.best = np.zeros(len(self.kind), dtype=bool)  # [K'] what finds an object once it is mended
        self.best[free[np.unique(self.aim[free], return_index=True)[1]]] = True  # they come by falling score

    def _causes(self, pairs: Pairs, count: int) -> tuple[Ints, Ints]:
        """The kind ``[K']`` of every detection that counts, and the object ``[K']`` that it should have found."""
        place = np.full(count, -1, dtype=np.int64)
        place[self.detection] = np.arange(len(self.detection))
        asked = self.counts[pairs.target] & (place[pairs.detection] >= 0)
        rows, targets, amounts = place[pairs.detection[asked]], pairs.target[asked], pairs.overlap[asked]
        same = self.labels[rows] == self.objects[targets]
        own, own_aim = _largest(rows[same], targets[same], amounts[same], len(self.detection))
        other, other_aim = _largest(rows[~same], targets[~same], amounts[~same], len(self.detection))
        kind = np.select(
            [
                self.target >= 0,
                (own >= self.background) & (own <= self.overlap),
                other >= self.overlap,
                own >= self.overlap,
                np.maximum(own, other) <= self.background,
            ],
            [RIGHT, LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND],
            default=BOTH,
        )
        return kind, np.where(kind == CLASSIFICATION, other_aim, own_aim)

    def ap(self, mended: Iterable[int | str] = ()) -> float:
        """AP50 with these kinds of errors mended, numbers or names of `KINDS` and `SPECIAL`.

        A class of which no object is left to ask for has AP 1: all that it lacked was mended.
        """
        names = [KINDS[each] if isinstance(each, int) else each for each in mended]
        labels, right, stays = self.labels.copy(), self.target >= 0, np.ones(len(self.labels), dtype=bool)
        moved = np.flatnonzero(np.isin(self.kind, [KINDS.index(n) for n in names if n in KINDS[:2]]))
        stays[moved] = False
        best = moved[self.best[moved]]
        labels[best], right[best], stays[best] = self.objects[self.aim[best]], True, True
        stays &= ~np.isin(self.kind, [KINDS.index(name) for name in names if name in KINDS[2:5]])
        if "false_positive" in names:
            stays &= right
        lost = np.zeros_like(self.counts)
        if "missed" in names:
            lost = self.missed
        if "false_negative" in names:
            lost = self.counts & ~self.found
        whole = np.bincount(self.objects[self.counts], minlength=self.classes)
        left = np.bincount(self.objects[self.counts & ~lost], minlength=self.classes)
        marks = [_average_precision(right[stays & (labels == label)], left[label]) for label in np.flatnonzero(whole)]
        return float(np.mean(marks)) if marks else float("nan")


def evaluate(
    index: Index,
    predictions: Predictions,
    *,
    overlap: float = 0.5,
    background: float = 0.1,
    most: int = 100,
    masks: bool = False,
) -> Errors:
    """Count the errors of a detector and price them.

    Args:
        index: the truth.
        predictions: in original pixels.
        overlap: from which IoU (0..1) a detection is well placed.
        background: up to which IoU with everything it lies on background, less than ``overlap``.
        most: detections of a class in a picture that are looked at, the best.
        masks: overlaps are those of masks, which both sides then have.
    """
    broken = Breakdown(index, predictions, overlap, background, most, masks)
    counts = {kind: int((broken.kind == number).sum()) for number, kind in enumerate(KINDS[:MISSED])}
    counts["missed"] = int(broken.missed.sum())
    counts["false_positive"] = int((broken.target < 0).sum())
    counts["false_negative"] = int((broken.counts & ~broken.found).sum())
    base = broken.ap()
    return Errors(base, counts, {kind: broken.ap([kind]) - base for kind in counts})


def _largest(rows: Ints, targets: Ints, amounts: Floats, count: int) -> tuple[Floats, Ints]:
    """The largest overlap ``[count]`` of each row and with whom (the first of equals); 0 and -1 without a pair."""
    largest, aim = np.zeros(count), np.full(count, -1, dtype=np.int64)
    order = np.lexsort((targets, -amounts, rows))
    owners, first = np.unique(rows[order], return_index=True)
    largest[owners], aim[owners] = amounts[order][first], targets[order][first]
    return largest, aim


def _average_precision(right: Bools, objects: int) -> float:
    """COCO's AP of one class: the best precision at or beyond each of 101 recalls; detections by falling score."""
    if not objects:
        return 1.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.append(best, 0.0)[np.searchsorted(hits / objects, MARKS)].mean())

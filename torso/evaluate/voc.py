"""PASCAL VOC's average precision, by the rules of its development kit.

A detection is judged by the one object of its class that it overlaps most. Is the overlap below 0.5, it is wrong; is
that object difficult, the detection counts neither way; was the object found before by a better detection, it is
wrong; else it is right. Difficult objects are not searched for. COCO differs: there a detection may take its second
best object when the best is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from torso.evaluate.matching import Floats, find_pairs, ignored

if TYPE_CHECKING:
    from torso.data.index import Index
    from torso.evaluate.predictions import Predictions


class VocResult(NamedTuple):
    """Average precision of every class (NaN without objects) and its mean over the classes that have one."""

    mean: float
    per_class: dict[str, float]


def evaluate(index: Index, predictions: Predictions, *, eleven_point: bool = False, overlap: float = 0.5) -> VocResult:
    """VOC's mean average precision of a detector.

    Args:
        index: the truth; crowd regions are treated as difficult.
        predictions: boxes in original pixels.
        eleven_point: the measure up to VOC 2007; otherwise the area under all points, from VOC 2010 on.
        overlap: least IoU of a hit.
    """
    judged, correct = _judge(index, predictions, overlap)
    counts = np.bincount(index.labels[~ignored(index)], minlength=len(index.classes))
    found: dict[str, float] = {}
    for label, name in enumerate(index.classes):
        hits = correct[predictions.labels[judged] == label]
        true = np.cumsum(hits)
        precision = true / np.arange(1, len(true) + 1)
        recall = true / counts[label] if counts[label] else true
        area = average_precision(recall, precision, eleven_point=eleven_point)
        found[name] = area if counts[label] else float("nan")
    numbers = np.array(list(found.values()))
    numbers = numbers[~np.isnan(numbers)]
    return VocResult(float(numbers.mean()) if len(numbers) else float("nan"), found)


def average_precision(recall: Floats, precision: Floats, *, eleven_point: bool) -> float:
    """Average precision of a curve whose points are in order of falling score.

    Args:
        recall: ``[n]``, rising.
        precision: ``[n]``.
        eleven_point: mean of the best precision at recalls of at least 0, 0.1, ... 1; else the area under the curve
            of the best precision at each recall or more.

    >>> recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
    >>> round(average_precision(recall, precision, eleven_point=False), 6)
    0.833333
    >>> round(average_precision(recall, precision, eleven_point=True), 6)
    0.848485
    """
    if not len(recall):
        return 0.0
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if eleven_point:
        # A recall of 3/10 must reach the mark 0.3, however the two are rounded.
        marks = np.searchsorted(recall, np.arange(11) / 10 - 1e-12)
        return float(np.append(best, 0.0)[marks].mean())
    return float((np.diff(recall, prepend=0.0) * best).sum())


def _judge(
    index: Index, predictions: Predictions, overlap: float
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """The detections that count, by falling score (rows), and which of them are right."""
    skip = ignored(index)
    rank = np.argsort(-predictions.scores, kind="stable")
    pairs = find_pairs(index, predictions, overlap)
    # The pair of largest overlap of every detection; of equal ones the first object, as in the kit.
    order = np.lexsort((pairs.target, -pairs.overlap, pairs.detection))
    owners, first = np.unique(pairs.detection[order], return_index=True)
    target = np.full(len(predictions), -1, dtype=np.int64)
    target[owners] = pairs.target[order][first]

    judged = rank[~np.append(skip, False)[target[rank]]]
    hit = target[judged]
    correct = np.zeros(len(judged), dtype=bool)
    objects, first = np.unique(hit, return_index=True)
    correct[first[objects >= 0]] = True
    return judged, correct

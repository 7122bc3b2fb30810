"""Confusion matrices: rows are the truth, columns what was said; a detector's has a row and a column of background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torso.evaluate.matching import Ints, find_pairs, greedy, ignored

if TYPE_CHECKING:
    from torso.data.index import Index
    from torso.evaluate.predictions import Predictions


def of_classes(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """Count ``[C, C]`` of (true class, predicted class) over pictures.

    >>> of_classes(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def of_detections(index: Index, predictions: Predictions, *, threshold: float = 0.25, overlap: float = 0.5) -> Ints:
    """Count ``[C + 1, C + 1]`` of (true class, predicted class) over objects; the last row and column are background.

    Detections of at least ``threshold`` are paired with objects of any class, the largest overlap first (of equal
    ones the right class, then the higher score). A pair counts at (its true class, its predicted class), a missed
    object in the last column, an invented one in the last row. Crowd regions and difficult objects count neither
    way: they are no rows, and a detection that lies on one and found nothing else is left out.
    """
    classes = len(index.classes)
    skip = ignored(index)
    confident = predictions.scores >= threshold
    pairs = find_pairs(index, predictions, overlap, by_class=False)
    allowed = confident[pairs.detection]
    pairs = type(pairs)(*(column[allowed] for column in pairs))
    wrong = predictions.labels[pairs.detection] != index.labels[pairs.target]
    order = np.lexsort((-predictions.scores[pairs.detection], wrong, -pairs.overlap, skip[pairs.target]))
    chosen = greedy(pairs, order, shared=skip)

    said = np.flatnonzero(confident)
    target = np.array([chosen.get(row, -1) for row in said.tolist()], dtype=np.int64)
    on_ignored = np.append(skip, False)[target]
    truth = np.where(target < 0, classes, np.append(index.labels, classes)[target])[~on_ignored]
    missed = ~skip
    missed[target[target >= 0]] = False
    lost = index.labels[missed]
    rows = np.concatenate([truth, lost])
    columns = np.concatenate([predictions.labels[said][~on_ignored], np.full(len(lost), classes)])
    return of_classes(rows, columns, classes + 1)

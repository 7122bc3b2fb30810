"""Confusion matrices: rows are the truth, columns what was said; a detector's has a row and a column of background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torso.evaluate.matching import Ints, ignored, pair_up

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

    Detections of at least ``threshold`` are paired with objects of any class by ``matching.pair_up``. A pair counts at
    (its true class, its predicted class), a missed object in the last column, an invented one in the last row. Crowd
    regions and difficult objects count neither way: they are no rows, and a detection that lies on one and found
    nothing else is left out.
    """
    classes = len(index.classes)
    skip = ignored(index)
    said, target = pair_up(index, predictions, threshold, overlap)
    counts = ~np.append(skip, False)[target]
    truth = np.where(target < 0, classes, np.append(index.labels, classes)[target])[counts]
    missed = ~skip
    missed[target[target >= 0]] = False
    lost = index.labels[missed]
    rows = np.concatenate([truth, lost])
    columns = np.concatenate([predictions.labels[said][counts], np.full(len(lost), classes)])
    return of_classes(rows, columns, classes + 1)

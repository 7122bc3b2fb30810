"""Which detection found which object: the sparse pairs that overlap enough, and the greedy choice among them.

Only detections and objects of one group (a picture, or a class in a picture) are compared, all groups at once; of the
pairs almost none overlap by half, so the greedy choice is a short loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torso.data.index import Index
    from torso.evaluate.predictions import Predictions

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Pairs(NamedTuple):
    """E pairs of a detection and an object of the same group that overlap by at least the asked amount."""

    detection: Ints  # [E] rows of the predictions
    target: Ints  # [E] rows of the index' boxes
    overlap: Floats  # [E] IoU; with a crowd region: the part of the detection that lies inside it


class Matched(NamedTuple):
    """Detections that count, best first, under the COCO rule at one overlap, and what each found."""

    detection: Ints  # [K'] rows of the predictions by falling score; those on ignored objects are left out
    target: Ints  # [K'] rows of the index' boxes, -1 for none


class Counted(NamedTuple):
    """Detections that count, best first, under the COCO rule at one overlap."""

    detection: Ints  # [K'] rows of the predictions by falling score; those on ignored objects are left out
    correct: Bools  # [K'] found an object that no better detection found


def overlaps(boxes: Floats, targets: Floats, crowd: Bools) -> Floats:
    """Overlap of paired boxes ``[E, 4]`` and ``[E, 4]``: IoU, or intersection / own area where the target is a crowd.

    >>> box, other = np.array([[10.0, 10, 30, 30]]), np.array([[20.0, 20, 40, 40]])
    >>> float(overlaps(box, other, np.array([False]))[0]) == 1 / 7
    True
    """
    # Coordinate by coordinate: a trailing dimension of 2 costs several times more.
    width = np.minimum(boxes[:, 2], targets[:, 2]) - np.maximum(boxes[:, 0], targets[:, 0])
    height = np.minimum(boxes[:, 3], targets[:, 3]) - np.maximum(boxes[:, 1], targets[:, 1])
    shared = width.clip(min=0) * height.clip(min=0)
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    other = (targets[:, 2] - targets[:, 0]) * (targets[:, 3] - targets[:, 1])
    union = np.where(crowd, own, own + other - shared)
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def image_of_objects(index: Index) -> Ints:
    """The picture ``[T]`` of every object of the index."""
    return np.repeat(np.arange(len(index.offsets) - 1), np.diff(index.offsets))


def ignored(index: Index) -> Bools:
    """Objects ``[T]`` that count neither way: COCO crowd regions and VOC difficult objects."""
    return np.asarray(index.crowd | index.difficult, dtype=bool)


def find_pairs(index: Index, predictions: Predictions, overlap: float, *, by_class: bool = True) -> Pairs:
    """All pairs in one picture (and of one class, if ``by_class``) that overlap by at least ``overlap``."""
    classes = len(index.classes) if by_class else 1
    group = predictions.image * classes + (predictions.labels if by_class else 0)  # [K]
    group_of_targets = image_of_objects(index) * classes + (index.labels if by_class else 0)  # [T]
    order = np.argsort(group_of_targets, kind="stable")
    ordered = group_of_targets[order]
    start = np.searchsorted(ordered, group, side="left")
    count = np.searchsorted(ordered, group, side="right") - start
    detection = np.repeat(np.arange(len(group)), count)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    target = order[np.repeat(start, count) + within]
    amount = overlaps(predictions.boxes[detection], index.boxes[target], index.crowd[target])
    enough = amount >= overlap
    return Pairs(detection[enough], target[enough], amount[enough])


def greedy(pairs: Pairs, order: Ints, shared: Bools) -> dict[int, int]:
    """Give each detection at most one object and each object at most one detection, in the given order of the pairs.

    Args:
        pairs: what overlaps.
        order: which pair chooses first, rows of ``pairs``.
        shared: objects ``[T]`` that any number of detections may choose (crowd regions).

    Returns:
        Detection -> object.
    """
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for detection, target in zip(pairs.detection[order].tolist(), pairs.target[order].tolist(), strict=True):
        if detection not in chosen and target not in taken:
            chosen[detection] = target
            if not shared[target]:
                taken.add(target)
    return chosen


def count_coco(index: Index, predictions: Predictions, overlap: float = 0.5, most: int = 100) -> Counted:
    """Judge every detection by the COCO rule, see `match_coco`."""
    found = match_coco(index, predictions, overlap, most)
    return Counted(found.detection, found.target >= 0)


def match_coco(
    index: Index, predictions: Predictions, overlap: float = 0.5, most: int = 100, pairs: Pairs | None = None
) -> Matched:
    """Match detections and objects by the COCO rule: by falling score each takes the free object it overlaps most.

    An object that counts is preferred to an ignored one; a detection on an ignored object is left out. At most
    ``most`` detections of a class in a picture are looked at. ``pairs`` are those that overlap enough: of boxes, where
    they are not given.
    """
    skip = ignored(index)
    rank = np.lexsort((predictions.image, -predictions.scores))  # [K] rows, best first; ties as COCO breaks them
    place = np.empty(len(rank), dtype=np.int64)
    place[rank] = np.arange(len(rank))
    pairs = find_pairs(index, predictions, overlap) if pairs is None else pairs
    # Of objects that are overlapped equally COCO takes the last one.
    order = np.lexsort((-pairs.target, -pairs.overlap, skip[pairs.target], place[pairs.detection]))
    chosen = greedy(pairs, order, np.asarray(index.crowd, dtype=bool))
    target = np.full(len(predictions), -1, dtype=np.int64)
    target[list(chosen.keys())] = list(chosen.values())
    counts = (target < 0) | ~np.append(skip, False)[target]
    counts &= _first_of_group(predictions, rank, len(index.classes), most)
    kept = rank[counts[rank]]
    return Matched(kept, target[kept])


def pair_up(index: Index, predictions: Predictions, threshold: float, overlap: float = 0.5) -> tuple[Ints, Ints]:
    """Pair confident detections with objects of any class: what a person sees who looks at the drawn boxes.

    The largest overlap chooses first, of equal ones the right class, then the higher score. An object that counts is
    preferred to an ignored one, which any number of detections may share.

    Returns:
        The rows ``[K']`` of detections of at least ``threshold``, and the object ``[K']`` of each, -1 for none.
    """
    skip = ignored(index)
    confident = predictions.scores >= threshold
    pairs = find_pairs(index, predictions, overlap, by_class=False)
    kept = confident[pairs.detection]
    pairs = Pairs(pairs.detection[kept], pairs.target[kept], pairs.overlap[kept])
    wrong = predictions.labels[pairs.detection] != index.labels[pairs.target]
    order = np.lexsort((-predictions.scores[pairs.detection], wrong, -pairs.overlap, skip[pairs.target]))
    chosen = greedy(pairs, order, shared=skip)
    said = np.flatnonzero(confident)
    return said, np.array([chosen.get(row, -1) for row in said.tolist()], dtype=np.int64)


def _first_of_group(predictions: Predictions, rank: Ints, classes: int, most: int) -> Bools:
    """The best ``most`` detections ``[K]`` of every class in every picture."""
    group = (predictions.image * classes + predictions.labels)[rank]
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    within = np.arange(len(ordered)) - np.searchsorted(ordered, ordered, side="left")
    kept = np.zeros(len(rank), dtype=bool)
    kept[rank[order[within < most]]] = True
    return kept

"""Pairs of a detection and an object whose masks overlap: what `torso.evaluate.matching` finds for boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torso.evaluate.matching import Pairs

if TYPE_CHECKING:
    from torso.data.index import Index
    from torso.evaluate.predictions import Predictions

Outline = dict[str, Any] | list[list[float]]
"""A mask as COCO has it: run lengths, or polygons."""


def outlines(index: Index) -> list[Outline]:
    """The masks of all objects; of one that has none, beside others that do, its box."""
    found: list[Outline] = []
    for mask, (x0, y0, x1, y1) in zip(index.masks or (), index.boxes.tolist(), strict=True):
        found.append([[x0, y0, x1, y0, x1, y1, x0, y1]] if mask is None else mask)
    return found


def find_mask_pairs(index: Index, predictions: Predictions, overlap: float) -> Pairs:
    """All pairs in one picture, of any classes, whose masks overlap by at least ``overlap``, which is above 0.

    The overlap is the IoU of pixels; with a crowd region it is the part of the detection that lies inside it.
    """
    from hotcoco import mask as rle

    truth, said = outlines(index), predictions.masks or []
    rows = np.argsort(predictions.image, kind="stable")
    images, starts = np.unique(predictions.image[rows], return_index=True)
    found: list[list[Any]] = [[], [], []]
    for image, mine in zip(images.tolist(), np.split(rows, starts)[1:], strict=True):
        objects = index.objects(image)
        targets = np.arange(objects.start, objects.stop)
        if not len(targets):
            continue
        width, height = index.sizes[image].tolist()
        bitmaps = [_runs(truth[row], height, width) for row in targets.tolist()]
        amounts = rle.iou([said[row] for row in mine.tolist()], bitmaps, index.crowd[targets].tolist())
        detection, target = np.nonzero(np.asarray(amounts) >= overlap)
        for column, part in zip(found, (mine[detection], targets[target], amounts[detection, target]), strict=True):
            column.append(part)
    none = np.zeros(0)
    detections, objects_, overlaps = (np.concatenate([none, *column]) for column in found)
    return Pairs(detections.astype(np.int64), objects_.astype(np.int64), overlaps)


def _runs(outline: Outline, height: int, width: int) -> dict[str, Any]:
    """An outline as run lengths."""
    from hotcoco import mask as rle

    if isinstance(outline, dict):
        return outline if isinstance(outline["counts"], str | bytes) else rle.frPyObjects(outline, height, width)
    return rle.merge(rle.frPyObjects(outline, height, width))

"""What layers above hide of the objects below: pasted objects, pasted rectangles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torso.data.bitmaps import Patch, layer_patch, object_patch
from torso.data.index import Index
from torso.data.masks import Bitmap
from torso.data.scene import Layer, Scene
from torso.data.views import Boxes

Covers = list[Bitmap]
"""Of each layer what lies above it, ``[H, W]``."""


def hides(layer: Layer) -> bool:
    """Whether a layer lets nothing through of what lies below."""
    return layer.over and layer.opacity == 1


def covers(scene: Scene, index: Index) -> Covers:
    """What lies above each layer and lets nothing of it through."""
    width, height = scene.size
    above = np.zeros((height, width), np.bool_)
    found = [above]
    for layer in scene.layers[:0:-1]:
        if hides(layer):
            above = above.copy()
            patch = layer_patch(layer, index)
            above[patch.place] |= patch.pixels
        found.append(above)
    return found[::-1]


def left(
    scene: Scene, index: Index, rows: NDArray[np.int64], owner: NDArray[np.int64], boxes: Boxes, above: Covers
) -> tuple[Boxes, NDArray[np.float64]]:
    """What layers above leave of objects: the boxes around it ``[n, 4]``, and its share of the pixels ``[n]``.

    A box shrinks to what is left of the mask, or of the box where there is no mask.

    Args:
        scene: as it was drawn.
        index: the data.
        rows: of the index's objects, ``[n]``.
        owner: their layers, ``[n]``.
        boxes: where they lie on the canvas, ``[n, 4]``.
        above: what lies above each layer.
    """
    boxes, share = boxes.copy(), np.ones(len(rows))
    for at, (row, number) in enumerate(zip(rows.tolist(), owner.tolist(), strict=True)):
        boxes[at], share[at] = _left_of(scene.layers[number], row, index, boxes[at], above[number])
    return boxes, share


def _left_of(
    layer: Layer, row: int, index: Index, box: NDArray[np.float64], above: Bitmap
) -> tuple[NDArray[np.float64], float]:
    """The box around what is left of one object, and how much that is."""
    low, high = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    if not above[low[1] : high[1], low[0] : high[0]].any():
        return box, 1.0
    patch = object_patch(layer, row, index)
    hidden = above[patch.place] & patch.pixels
    if not hidden.any():
        return box, 1.0
    rest = Patch(patch.left, patch.top, patch.pixels & ~hidden)
    # Sides that are not hidden stay where they are to the fraction of a pixel.
    before, after = np.array(patch.box), np.array(rest.box)
    shrunk = np.where(before == after, box, after)
    first, last = np.maximum(shrunk[:2], box[:2]), np.minimum(shrunk[2:], box[2:])
    return np.concatenate([first, np.maximum(last, first)]), float(rest.pixels.sum() / patch.pixels.sum())

"""What a drawn scene shows: boxes, labels, and all that belongs to an object, on the canvas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torso.data import points
from torso.data.bitmaps import object_patch
from torso.data.convex import inside
from torso.data.hidden import Covers, covers, hides, left
from torso.data.index import Index
from torso.data.masks import box_of
from torso.data.scene import Scene, objects_of
from torso.data.views import Boxes, Filter, Matrix, clip

_CORNERS = np.array([[0, 1], [2, 1], [2, 3], [0, 3]])
_LOW, _HIGH = np.array([0, 1, 0, 1]), np.array([2, 3, 2, 3])


@dataclass(frozen=True)
class Objects:
    """The n objects of a sample that still count."""

    rows: NDArray[np.int64]  # [n] of the index
    owner: NDArray[np.int64]  # [n] layer of the scene
    boxes: Boxes  # [n, 4] xyxy pixels of the canvas
    labels: NDArray[np.int64]  # [n]
    ignore: NDArray[np.bool_]  # [n]
    weights: NDArray[np.float64]  # [n] in 0..1
    masks: NDArray[np.bool_] | None = None  # [n, ceil(H / stride), ceil(W / stride)]
    keypoints: points.Keypoints | None = None  # [n, K, 3]


def shown(scene: Scene, index: Index, mask_stride: int = 0) -> Objects:
    """The objects of all layers on the canvas.

    An object counts when more than ``min_visible`` of its area is left, both sides exceed one pixel and its centre
    lies in every window. What layers above hide is not left.

    Args:
        scene: as it was drawn.
        index: the data.
        mask_stride: also give masks, of every so many rows and columns; 0 gives none.
    """
    layers = scene.layers
    found = [objects_of(layer, index) for layer in layers]
    rows, owner = np.concatenate(found), np.repeat(np.arange(len(layers)), [len(each) for each in found])
    frames = np.array([layer.frame for layer in layers])
    matrices = np.stack([layer.view.matrix for layer in layers])
    moved = _moved(index.boxes[rows], matrices[owner])
    boxes = np.minimum(np.maximum(moved, frames[:, _LOW][owner]), frames[:, _HIGH][owner])
    enough = _area(boxes) / np.maximum(_area(moved), 1e-9)
    above = covers(scene, index) if any(map(hides, layers)) else None
    if above is not None:
        boxes, share = left(scene, index, rows, owner, boxes, above)
        enough = enough * share
    kept = (enough > scene.canvas.min_visible) & _large(boxes)
    if any(scene.canvas.windows or layer.view.windows for layer in layers):
        kept &= _central(scene, owner, moved)
    rows, owner = rows[kept], owner[kept]
    objects = Objects(
        rows=rows,
        owner=owner,
        boxes=boxes[kept],
        labels=index.labels[rows],
        ignore=index.crowd[rows] | index.difficult[rows],
        weights=np.array([layer.weight for layer in layers])[owner],
    )
    moving = [one for one in scene.canvas.filters if one.moves]
    if not (mask_stride or moving or index.keypoints is not None):
        return objects
    return _complete(objects, scene, index, above, moving, mask_stride)


def _complete(
    objects: Objects, scene: Scene, index: Index, above: Covers | None, moving: list[Filter], stride: int
) -> Objects:
    """The objects with their masks and keypoints, after the filters that move things about."""
    boxes, masks, keypoints = objects.boxes, None, None
    if index.keypoints is not None:
        keypoints = _keypoints(objects, scene, index, above)
    if stride:
        masks = _masks(objects, scene, index, above)
    for one in moving:
        boxes = follow(boxes, one, scene.size)
        if masks is not None:
            masks = np.stack([one.plane(mask.view(np.uint8)).view(np.bool_) for mask in masks] or [*masks])
        if keypoints is not None:
            keypoints = points.filtered(keypoints, one, scene.size)
    if masks is not None and (moving or any(_turned(layer.view.matrix) for layer in scene.layers)):
        boxes = np.array([box_of(mask) for mask in masks]).reshape(-1, 4)
    kept = _large(boxes)
    return Objects(
        rows=objects.rows[kept],
        owner=objects.owner[kept],
        boxes=boxes[kept],
        labels=objects.labels[kept],
        ignore=objects.ignore[kept],
        weights=objects.weights[kept],
        masks=None if masks is None else masks[kept][:, stride // 2 :: stride, stride // 2 :: stride],
        keypoints=None if keypoints is None else keypoints[kept],
    )


def _masks(objects: Objects, scene: Scene, index: Index, above: Covers | None) -> NDArray[np.bool_]:
    """What can be seen of each object ``[n, H, W]``."""
    width, height = scene.size
    masks = np.zeros((len(objects.rows), height, width), np.bool_)
    for number, (row, owner) in enumerate(zip(objects.rows, objects.owner, strict=True)):
        patch = object_patch(scene.layers[owner], int(row), index)
        seen = patch.pixels if above is None else patch.pixels & ~above[owner][patch.place]
        masks[number][patch.place] = seen
    return masks


def _keypoints(objects: Objects, scene: Scene, index: Index, above: Covers | None) -> points.Keypoints:
    """Keypoints of the objects on the canvas before filters ``[n, K, 3]``."""
    assert index.keypoints is not None
    found = index.keypoints[objects.rows].copy()
    frames = np.array([layer.frame for layer in scene.layers]).reshape(-1, 4)
    for number, layer in enumerate(scene.layers):
        own = objects.owner == number
        found[own] = points.moved(found[own], layer.view.matrix, index.keypoint_names)
        found[own] = points.seen(found[own], frames[number], None if above is None else above[number])
    return found


def _moved(boxes: Boxes, matrices: NDArray[np.float64]) -> Boxes:
    """`torso.data.views.move` with a matrix ``[n, 3, 3]`` for each box."""
    corners = boxes[:, _CORNERS]  # [n, 4, 2]
    moved = corners @ matrices[:, :2, :2].transpose(0, 2, 1) + matrices[:, None, :2, 2]
    if matrices[:, 2, :2].any():
        depth = corners @ matrices[:, 2, :2, None] + matrices[:, None, 2, 2:]
        moved = moved / np.maximum(depth, 1e-6)
    return np.concatenate([moved.min(1), moved.max(1)], axis=1)


def _area(boxes: Boxes) -> NDArray[np.float64]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _large(boxes: Boxes) -> NDArray[np.bool_]:
    """Which boxes exceed one pixel on both sides."""
    return np.asarray((boxes[:, 2] - boxes[:, 0] > 1.0) & (boxes[:, 3] - boxes[:, 1] > 1.0))


def _central(scene: Scene, owner: NDArray[np.int64], moved: Boxes) -> NDArray[np.bool_]:
    """Which objects have their centre in every window."""
    kept = np.ones(len(owner), np.bool_)
    centres = (moved[:, :2] + moved[:, 2:]) / 2
    for window in scene.canvas.windows:
        kept &= inside(centres, window)
    for number, layer in enumerate(scene.layers):
        for window in layer.view.windows:
            kept &= (owner != number) | inside(centres, window)
    return kept


def _turned(matrix: Matrix) -> bool:
    return bool(matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1])


def follow(boxes: Boxes, one: Filter, size: tuple[int, int]) -> Boxes:
    """The boxes ``[n, 4]`` that hold what a filter makes of the outlines of others."""
    steps = np.linspace(0, 1, 9)[:-1]
    zeros, ones = np.zeros_like(steps), np.ones_like(steps)
    x = np.concatenate([steps, ones, 1 - steps, zeros])
    y = np.concatenate([zeros, steps, ones, 1 - steps])
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    outline = low + np.stack([x, y], -1) * (high - low)  # [n, 32, 2]
    moved = one.points(outline.reshape(-1, 2), size).reshape(outline.shape)
    return clip(np.concatenate([moved.min(1), moved.max(1)], 1), size)

"""What a drawn scene shows: boxes, labels, and all that belongs to an object, on the canvas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torso.data.convex import inside
from torso.data.index import Index
from torso.data.scene import Layer, Scene, objects_of
from torso.data.views import Boxes, Filter, View, clip, move


@dataclass(frozen=True)
class Objects:
    """The n objects of a sample that still count."""

    rows: NDArray[np.int64]  # [n] of the index
    boxes: Boxes  # [n, 4] xyxy pixels of the canvas
    labels: NDArray[np.int64]  # [n]
    ignore: NDArray[np.bool_]  # [n]
    weights: NDArray[np.float64]  # [n] in 0..1


def shown(scene: Scene, index: Index) -> Objects:
    """The objects of all layers on the canvas.

    An object counts when more than ``min_visible`` of its area is left, both sides exceed one pixel and its centre
    lies in every window.
    """
    parts = [_of_layer(layer, scene.canvas, index) for layer in scene.layers]
    if len(parts) == 1:
        return parts[0]
    return Objects(*(np.concatenate(columns) for columns in zip(*map(_columns, parts), strict=True)))


def _columns(objects: Objects) -> tuple[NDArray[np.generic], ...]:
    return objects.rows, objects.boxes, objects.labels, objects.ignore, objects.weights


def _of_layer(layer: Layer, canvas: View, index: Index) -> Objects:
    rows = objects_of(layer, index)
    moved = move(index.boxes[rows], layer.view.matrix)
    x0, y0, x1, y1 = layer.frame
    boxes = np.clip(moved, (x0, y0, x0, y0), (x1, y1, x1, y1))
    sides = boxes[:, 2:] - boxes[:, :2]
    area = (moved[:, 2:] - moved[:, :2]).prod(1)
    kept = (sides > 1.0).all(1) & (sides.prod(1) > layer.view.min_visible * area)
    for window in (*layer.view.windows, *canvas.windows):
        kept &= inside((moved[:, :2] + moved[:, 2:]) / 2, window)
    for one in canvas.filters:
        if one.moves:
            boxes = follow(boxes, one, canvas.size)
            kept &= (boxes[:, 2:] - boxes[:, :2] > 1.0).all(1)
    rows = rows[kept]
    return Objects(
        rows=rows,
        boxes=boxes[kept],
        labels=index.labels[rows],
        ignore=index.crowd[rows] | index.difficult[rows],
        weights=np.full(len(rows), layer.weight),
    )


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

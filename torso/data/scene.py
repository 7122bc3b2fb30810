"""A scene: what will be drawn on one canvas. Mostly a single picture; with mosaic, mix-up or copy-paste several.

Each layer is a picture with its own view. Transforms that edit views know nothing of layers: they edit a view of the
canvas as it is so far, and what they did to it is then done to every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Generator
from typing_extensions import TypeIs

from torso.config import TorsoError
from torso.data.index import Index
from torso.data.views import Boxes, Matrix, Points, View, clip, inverse, move, move_points

Frame = tuple[float, float, float, float]
"""xyxy on a canvas."""


@dataclass(frozen=True)
class Layer:
    """One picture of a scene. Later layers lie above earlier ones."""

    row: int  # of the index
    view: View  # source -> canvas of the scene
    part: Points | None = None  # [k, 2] corners of a convex region in source pixels: nothing else shows
    stencil: NDArray[np.int64] | None = None  # only these of its objects show, cut out along their masks
    opacity: float = 1.0  # how much it covers of what lies below
    weight: float = 1.0  # how much its labels count

    @property
    def outline(self) -> Points:
        """The corners of what shows ``[k, 2]`` in source pixels."""
        if self.part is not None:
            return self.part
        width, height = self.view.source
        return np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])

    @property
    def frame(self) -> Boxes:
        """The part of the canvas it may cover, ``[1, 4]`` xyxy (the box around it where it is turned)."""
        moved = move_points(self.outline, self.view.matrix)
        return clip(np.concatenate([moved.min(0), moved.max(0)])[None], self.view.size)


@dataclass(frozen=True)
class Scene:
    """Layers from the lowest to the highest, and the canvas: a view whose matrices are identities."""

    layers: tuple[Layer, ...]
    canvas: View

    @classmethod
    def of(cls, row: int, source: tuple[int, int], target: tuple[int, int]) -> Scene:
        """One picture as it is in its file."""
        view = View.of(source, target)
        return cls((Layer(row, view),), view)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the canvas so far."""
        return self.canvas.size

    def edited(self, transform: Edit, generator: Generator, index: Index) -> Scene:
        """The scene after a transform that edits views."""
        start = self.canvas
        if getattr(transform, "sees_boxes", False):
            start = replace(start, boxes=self.boxes(index))
        delta = transform(start, generator)
        return self if delta is start else self.after(delta)

    def after(self, delta: View) -> Scene:
        """The scene with what was done to a view of its canvas done to every layer."""
        canvas = replace(delta, source=delta.size, matrix=_SAME, color=_PLAIN, boxes=None)
        layers = []
        for layer in self.layers:
            view = layer.view
            color = view.color
            if delta.color is not _PLAIN:
                color = delta.color @ np.vstack([color, _BOTTOM])
            view = replace(
                canvas,
                source=view.source,
                matrix=delta.matrix @ view.matrix,
                color=color,
                erased=(),
                filters=(),
                windows=(),
            )
            layers.append(replace(layer, view=view))
        return Scene(tuple(layers), canvas)

    def moved(self, matrix: Matrix, frame: Frame, size: tuple[int, int]) -> Scene:
        """The scene after an upright matrix on another canvas, where nothing of it shows outside of a frame.

        Raises:
            TorsoError: it has filters, which work on a whole canvas.
        """
        if self.canvas.filters:
            name = type(self.canvas.filters[0]).__name__
            raise TorsoError(f"{name} works on the drawn canvas: put it after the transform that mixes pictures")
        corners = move(np.array([[0.0, 0.0, *self.size]]), matrix)[0]
        window = np.concatenate([np.maximum(corners[:2], frame[:2]), np.minimum(corners[2:], frame[2:])])
        layers = []
        for layer in self.layers:
            view = replace(layer.view, matrix=matrix @ layer.view.matrix, size=size)
            layers.append(replace(layer, view=view, part=_cut(layer.outline, view.matrix, window)))
        erased = tuple(
            replace(each, polygons=np.clip(move_points(each.polygons, matrix), window[:2], window[2:]))
            for each in self.canvas.erased
        )
        return Scene(tuple(layers), replace(self.canvas, source=size, size=size, erased=erased))

    def boxes(self, index: Index) -> Boxes:
        """The boxes of all objects on the canvas ``[n, 4]`` xyxy, layer after layer, cut at their layer's frame."""
        found = [np.zeros((0, 4))]
        for layer in self.layers:
            boxes = index.boxes[objects_of(layer, index)]
            moved = move(boxes, layer.view.matrix)
            x0, y0, x1, y1 = layer.frame[0]
            found.append(np.clip(moved, (x0, y0, x0, y0), (x1, y1, x1, y1)))
        return np.concatenate(found)


def objects_of(layer: Layer, index: Index) -> NDArray[np.int64]:
    """The rows of the index's objects that a layer shows."""
    rows = index.objects(layer.row)
    every = np.arange(rows.start, rows.stop)
    return every if layer.stencil is None else every[layer.stencil]


def merged(scenes: Sequence[Scene], fill: int) -> Scene:
    """Scenes on canvases of one size drawn over each other, the first one lowest."""
    canvas = scenes[0].canvas
    erased = tuple(each for scene in scenes for each in scene.canvas.erased)
    layers = tuple(layer for scene in scenes for layer in scene.layers)
    return Scene(layers, replace(canvas, erased=erased, fill=fill))


def _cut(outline: Points, matrix: Matrix, window: NDArray[np.float64]) -> Points:
    """What of a convex outline of the source lies inside a window of the canvas, ``[k, 2]`` in source pixels."""
    polygon = move_points(outline, matrix)
    for axis in (0, 1):
        polygon = _half(polygon, axis, window[axis], 1)
        polygon = _half(polygon, axis, window[axis + 2], -1)
    return move_points(polygon, inverse(matrix))


def _half(polygon: Points, axis: int, at: float, side: int) -> Points:
    """The part of a convex polygon on one side of a line along an axis."""
    kept = []
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        from_a, from_b = side * (a[axis] - at), side * (b[axis] - at)
        if from_a >= 0:
            kept.append(a)
        if from_a * from_b < 0:
            kept.append(a + (b - a) * (from_a / (from_a - from_b)))
    return np.array(kept) if kept else np.tile(np.clip(polygon[:1], 0, 0), (4, 1))


_SAME = np.eye(3)
_PLAIN = np.eye(3, 4)
_BOTTOM = np.array([[0.0, 0.0, 0.0, 1.0]])


class Edit(Protocol):
    """A transform that edits views."""

    @property
    def fits(self) -> bool:
        """Whether it decides the canvas."""
        ...

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        ...


class Partners(Protocol):
    """Other pictures for a transform that mixes several, drawn from the sample's own generator."""

    index: Index

    def raw(self, generator: Generator) -> Scene:
        """Another picture as it is in its file."""
        ...

    def like(self, generator: Generator) -> Scene:
        """Another picture after the transforms that come before the one that asks."""
        ...


class Mix(Protocol):
    """A transform that mixes several pictures (``mixes = True``)."""

    @property
    def fits(self) -> bool:
        """Whether it decides the canvas."""
        ...

    def __call__(self, scene: Scene, partners: Partners, generator: Generator) -> Scene:
        """The scene with other pictures in it."""
        ...


def mixes(transform: Edit | Mix) -> TypeIs[Mix]:
    """Whether a transform wants a scene and partners instead of a view."""
    return bool(getattr(transform, "mixes", False))


def composed(
    transforms: Sequence[Edit | Mix], scene: Scene, partners: Sequence[Partners], generator: Generator, index: Index
) -> Scene:
    """The scene after all transforms; ``partners[i]`` serve transform ``i``."""
    for transform, others in zip(transforms, partners, strict=True):
        scene = transform(scene, others, generator) if mixes(transform) else scene.edited(transform, generator, index)
    return scene

"""A scene: what will be drawn on one canvas. Mostly a single picture; with mosaic, mix-up or copy-paste several.

Each layer is a picture with its own view. Transforms that edit views know nothing of layers: they edit a view of the
canvas as it is so far, and what they did to it is then done to every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Generator
from typing_extensions import TypeIs

from torso.config import TorsoError
from torso.data.convex import Frame, along, around, corners, cut, overlap, upright
from torso.data.index import Index
from torso.data.views import Boxes, Matrix, Points, View, changed, inverse, move, move_points, upright_lines


@dataclass(frozen=True)
class Layer:
    """One picture of a scene. Later layers lie above earlier ones."""

    row: int  # of the index
    view: View  # source -> canvas of the scene
    part: Points | None = None  # [k, 2] corners of a convex region in source pixels: nothing else shows
    stencil: NDArray[np.int64] | None = None  # only these of its objects show, cut out along their masks
    opacity: float = 1.0  # how much it covers of what lies below
    weight: float = 1.0  # how much its labels count
    over: bool = False  # whether it lies over earlier layers, and hides of them what it covers

    @property
    def outline(self) -> Points:
        """The corners of what shows ``[k, 2]`` in source pixels."""
        return corners((0.0, 0.0, *self.view.source)) if self.part is None else self.part

    @property
    def frame(self) -> Frame:
        """The part of the canvas it may cover (the rectangle around it where it is turned)."""
        width, height = self.view.size
        lines = upright_lines(self.view.matrix)
        shown = around(self.outline)
        moved = around(move_points(self.outline, self.view.matrix)) if lines is None else along(shown, *lines)
        return overlap(moved, (0.0, 0.0, width, height))


@dataclass(frozen=True)
class Scene:
    """Layers from the lowest to the highest, and the canvas: a view whose matrices are identities."""

    layers: tuple[Layer, ...]
    canvas: View

    @classmethod
    def of(cls, row: int, source: tuple[int, int], target: tuple[int, int]) -> Scene:
        """One picture as it is in its file."""
        view = View(source, target, source, _SAME, _PLAIN)
        return cls((Layer(row, view),), view)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the canvas so far."""
        return self.canvas.size

    def edited(self, transforms: Sequence[Edit], generator: Generator, index: Index) -> Scene:
        """The scene after transforms that edit views; what they did is done to the layers in one go."""
        scene, canvas, done = self, self.canvas, None
        for transform in transforms:
            if getattr(transform, "sees_boxes", False):
                scene, done = (scene if done is None else scene.after(done)), None
                canvas = changed(canvas, boxes=scene.boxes(index))
            delta = transform(canvas, generator)
            if delta is not canvas:
                done = delta if done is None else _both(done, delta)
            canvas = changed(delta, source=delta.size, matrix=_SAME, color=_PLAIN, boxes=None)
        return scene if done is None else scene.after(done)

    def after(self, delta: View) -> Scene:
        """The scene with what was done to a view of its canvas done to every layer."""
        canvas = changed(delta, source=delta.size, matrix=_SAME, color=_PLAIN, boxes=None)
        plain = changed(canvas, erased=(), filters=())
        layers = []
        for layer in self.layers:
            old = layer.view
            color = _tinted(old.color, delta.color)
            windows = tuple(move_points(window, delta.matrix) for window in old.windows)
            view = changed(plain, source=old.source, matrix=delta.matrix @ old.matrix, color=color, windows=windows)
            layers.append(changed(layer, view=view))
        return Scene(tuple(layers), canvas)

    def placed(self, matrix: Matrix, frame: Frame, size: tuple[int, int]) -> Scene:
        """The scene after an upright matrix, on another canvas, where nothing of it shows outside of a frame.

        Raises:
            TorsoError: it has filters, which work on a whole canvas.
        """
        if self.canvas.filters:
            name = type(self.canvas.filters[0]).__name__
            raise TorsoError(f"{name} works on the drawn canvas: put it after the transform that mixes pictures")
        (a, _, c), (_, e, f), _ = matrix.tolist()
        frame = overlap(frame, along((0.0, 0.0, *self.size), (a, c), (e, f)))
        low, high = frame[:2], frame[2:]
        erased = tuple(
            changed(each, polygons=np.clip(move_points(each.polygons, matrix), low, high))
            for each in self.canvas.erased
        )
        layers = []
        for layer in self.layers:
            windows = tuple(move_points(window, matrix) for window in (*layer.view.windows, *self.canvas.windows))
            old = layer.view.matrix
            view = changed(layer.view, matrix=matrix if old is _SAME else matrix @ old, size=size, windows=windows)
            layers.append(changed(layer, view=view, part=_shown(layer.outline, view.matrix, frame)))
        return Scene(tuple(layers), changed(self.canvas, source=size, size=size, erased=erased, windows=()))

    def alone(self) -> Scene:
        """The scene without what lies beside its canvas, ready to be mixed with others.

        Raises:
            TorsoError: it has filters.
        """
        return self.placed(_SAME, (0.0, 0.0, *self.size), self.size)

    def boxes(self, index: Index) -> Boxes:
        """The boxes of all objects on the canvas ``[n, 4]`` xyxy, layer after layer, cut at their layer's frame."""
        found = [np.zeros((0, 4))]
        for layer in self.layers:
            boxes = index.boxes[objects_of(layer, index)]
            moved = move(boxes, layer.view.matrix)
            x0, y0, x1, y1 = layer.frame
            found.append(np.clip(moved, (x0, y0, x0, y0), (x1, y1, x1, y1)))
        return np.concatenate(found)


def objects_of(layer: Layer, index: Index) -> NDArray[np.int64]:
    """The rows of the index's objects that a layer shows."""
    rows = index.objects(layer.row)
    every = np.arange(rows.start, rows.stop)
    return every if layer.stencil is None else every[layer.stencil]


def merged(scenes: Sequence[Scene], fill: int) -> Scene:
    """Scenes on canvases of one size drawn over each other, the first one lowest."""
    erased = tuple(each for scene in scenes for each in scene.canvas.erased)
    layers = tuple(layer for scene in scenes for layer in scene.layers)
    return Scene(layers, changed(scenes[0].canvas, erased=erased, fill=fill))


def restricted(layer: Layer, box: Boxes) -> Layer:
    """The layer of which only what lies in a box ``[4]`` of its source shows."""
    x0, y0, x1, y1 = box.tolist()
    outline = layer.outline
    if upright(outline):
        return changed(layer, part=corners(overlap(around(outline), (x0, y0, x1, y1))))
    return changed(layer, part=cut(outline, (x0, y0, x1, y1)))


def _both(one: View, two: View) -> View:
    """What two edits did to a canvas, as one."""
    matrix = two.matrix if one.matrix is _SAME else one.matrix if two.matrix is _SAME else two.matrix @ one.matrix
    return changed(two, source=one.source, matrix=matrix, color=_tinted(one.color, two.color))


def _tinted(one: Matrix, two: Matrix) -> Matrix:
    """Two colour matrices as one."""
    if two is _PLAIN or one is _PLAIN:
        return one if two is _PLAIN else two
    return np.asarray(two @ np.vstack([one, _BOTTOM]))


def _shown(outline: Points, matrix: Matrix, frame: Frame) -> Points:
    """What of an outline, in source pixels, falls into a frame of the canvas."""
    lines = upright_lines(matrix)
    if lines is None or not upright(outline):
        return move_points(cut(move_points(outline, matrix), frame), inverse(matrix))
    # Exactly upright it stays: such a part is drawn without a warp.
    (a, c), (e, f) = lines
    return corners(overlap(around(outline), along(frame, (1 / a, -c / a), (1 / e, -f / e))))


_SAME = np.eye(3)
_PLAIN = np.eye(3, 4)
_BOTTOM = np.array([[0.0, 0.0, 0.0, 1.0]])
for _constant in (_SAME, _PLAIN, _BOTTOM):
    _constant.setflags(write=False)


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
    transforms: Sequence[Edit | Mix],
    scene: Scene,
    partners: Callable[[int], Partners],
    generator: Generator,
    index: Index,
) -> Scene:
    """The scene after all transforms; ``partners(i)`` serve transform ``i``."""
    edits: list[Edit] = []
    for number, transform in enumerate(transforms):
        if mixes(transform):
            scene = transform(scene.edited(edits, generator, index), partners(number), generator)
            edits = []
        else:
            edits.append(transform)
    return scene.edited(edits, generator, index)

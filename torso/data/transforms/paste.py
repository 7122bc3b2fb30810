"""Objects cut out along their masks and pasted elsewhere."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from torso.data.convex import around
from torso.data.draws import uniform
from torso.data.index import Index
from torso.data.scene import Layer, Partners, Scene, objects_of, restricted
from torso.data.views import Boxes, Matrix, changed, move, scaling, shifting

_MARGIN = 1.0  # pixels of the source around a box, for masks that reach beyond it


class CopyPaste:
    """Pastes some objects of another picture over this one, cut out along their masks.

    What they hide of the objects below is lost: masks and boxes shrink to the rest, and objects of which less than
    ``min_visible`` is left are dropped. The other picture is fitted into the canvas, scaled, flipped and turned, and
    lies at random within the canvas (or the canvas within it). Objects without a mask are pasted by their boxes.

    Args:
        p: probability.
        share: probability of each object to be pasted; crowds never are.
        scale: range of the factor by which the other picture is scaled; (0.1, 2.0) is the paper's large-scale jitter.
        flip: probability of mirroring it.
        rotation: largest angle in degrees, either way.

    Source: Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation, 2020, arXiv:2012.07177
    """

    fits: ClassVar[bool] = False
    mixes: ClassVar[bool] = True

    def __init__(
        self,
        p: float = 1.0,
        share: float = 0.5,
        scale: tuple[float, float] = (1.0, 1.0),
        flip: float = 0.5,
        rotation: float = 0.0,
    ) -> None:
        self.p = p
        self.share = share
        self.scale = scale
        self.flip = flip
        self.rotation = rotation

    def __call__(self, scene: Scene, partners: Partners, generator: Generator) -> Scene:
        """The scene with objects of another picture in it."""
        if self.p < 1 and uniform(generator, 0, 1) >= self.p:
            return scene
        other, index = partners.like(generator).alone(), partners.index
        matrix = self._matrix(other.size, scene.size, generator)
        layers = []
        for layer in other.after(other.canvas.then(matrix, scene.size)).layers:
            rows = objects_of(layer, index)
            drawn = torch.rand(len(rows), generator=generator).numpy() < self.share
            chosen = rows[drawn & ~index.crowd[rows]]
            if len(chosen):
                stencil = chosen - index.offsets[layer.row]
                layers.append(restricted(changed(layer, stencil=stencil, over=True), _around(index.boxes[chosen])))
        return changed(scene, layers=(*scene.layers, *layers)) if layers else scene

    def _matrix(self, size: tuple[int, int], onto: tuple[int, int], generator: Generator) -> Matrix:
        """How a picture of one size falls onto a canvas of another."""
        factor = min(onto[0] / size[0], onto[1] / size[1]) * uniform(generator, *self.scale)
        matrix = _turned(uniform(generator, -self.rotation, self.rotation) if self.rotation else 0.0, factor)
        if uniform(generator, 0, 1) < self.flip:
            matrix = matrix @ scaling(-1, 1)
        x0, y0, x1, y1 = move(np.array([[0.0, 0.0, *size]]), matrix)[0].tolist()
        room = onto[0] - (x1 - x0), onto[1] - (y1 - y0)
        x, y = (uniform(generator, min(free, 0.0), max(free, 0.0)) for free in room)
        return shifting(x - x0, y - y0) @ matrix


class SmallObjectCopyPaste:
    """Pastes copies of the small objects of a picture at random places of the same picture, over no other object.

    Each copy is scaled and turned a little. A copy for which no free place is found in so many tries is left out.

    Args:
        p: probability.
        copies: of each small object.
        area: objects below this area in pixels of the canvas so far are small (32 x 32 in COCO).
        scale: range of the factor of a copy.
        rotation: largest angle of a copy in degrees, either way.
        margin: pixels that copies keep from the edges of the picture.
        tries: places that are tried for a copy.

    Source: Augmentation for small object detection, 2019, arXiv:1902.07296
    """

    fits: ClassVar[bool] = False
    mixes: ClassVar[bool] = True

    def __init__(
        self,
        p: float = 1.0,
        copies: int = 3,
        area: float = 1024.0,
        scale: tuple[float, float] = (0.8, 1.2),
        rotation: float = 15.0,
        margin: float = 5.0,
        tries: int = 20,
    ) -> None:
        self.p = p
        self.copies = copies
        self.area = area
        self.scale = scale
        self.rotation = rotation
        self.margin = margin
        self.tries = tries

    def __call__(self, scene: Scene, partners: Partners, generator: Generator) -> Scene:
        """The scene with copies of its small objects."""
        if self.p < 1 and uniform(generator, 0, 1) >= self.p:
            return scene
        index = partners.index
        taken = scene.boxes(index)
        copies: list[Layer] = []
        for layer in scene.layers:
            rows = objects_of(layer, index)
            own = move(index.boxes[rows], layer.view.matrix)
            small = (index.area[rows] * _enlarged(own, index.boxes[rows]) < self.area) & ~index.crowd[rows]
            for row, box in zip(rows[small], own[small], strict=True):
                for _ in range(self.copies):
                    copy = self._copy(layer, int(row), box, taken, index, generator)
                    if copy is not None:
                        copies.append(copy[0])
                        taken = np.concatenate([taken, copy[1]])
        return changed(scene, layers=(*scene.layers, *copies)) if copies else scene

    def _copy(
        self, layer: Layer, row: int, box: Boxes, taken: Boxes, index: Index, generator: Generator
    ) -> tuple[Layer, Boxes] | None:
        """A copy of an object where nothing else is, and its box ``[1, 4]``; or None where no place is found."""
        factor = uniform(generator, *self.scale)
        turn = _turned(uniform(generator, -self.rotation, self.rotation) if self.rotation else 0.0, factor)
        x0, y0, x1, y1 = move(box[None], turn)[0].tolist()
        left, top, right, bottom = layer.frame
        low = left + self.margin, top + self.margin
        high = right - self.margin - (x1 - x0), bottom - self.margin - (y1 - y0)
        if high[0] < low[0] or high[1] < low[1]:
            return None
        for _ in range(self.tries):
            x, y = uniform(generator, low[0], high[0]), uniform(generator, low[1], high[1])
            place = np.array([[x, y, x + x1 - x0, y + y1 - y0]])
            if not _meets(place, taken):
                matrix = shifting(x - x0, y - y0) @ turn @ layer.view.matrix
                number = np.array([row - index.offsets[layer.row]])
                copied = changed(layer, view=changed(layer.view, matrix=matrix), stencil=number, over=True)
                return restricted(copied, _around(index.boxes[[row]])), place
        return None


def _turned(degrees: float, factor: float) -> Matrix:
    """A turn and a scale about the corner (0, 0); without a turn exactly upright."""
    if not degrees:
        return scaling(factor, factor)
    cos, sin = math.cos(math.radians(degrees)) * factor, math.sin(math.radians(degrees)) * factor
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _around(boxes: Boxes) -> NDArray[np.float64]:
    """The box around boxes ``[k, 4]``, a pixel larger on all sides."""
    x0, y0, x1, y1 = around(boxes.reshape(-1, 2))
    return np.array([x0 - _MARGIN, y0 - _MARGIN, x1 + _MARGIN, y1 + _MARGIN])


def _enlarged(moved: Boxes, boxes: Boxes) -> NDArray[np.float64]:
    """How much larger boxes are on the canvas than in their file."""
    after, before = ((each[:, 2:] - each[:, :2]).prod(1) for each in (moved, boxes))
    return np.asarray(after / np.maximum(before, 1e-9))


def _meets(box: Boxes, others: Boxes) -> bool:
    """Whether a box ``[1, 4]`` comes nearer than a pixel to others ``[n, 4]``: drawing rounds to whole pixels."""
    shared = np.minimum(box[:, 2:], others[:, 2:]) - np.maximum(box[:, :2], others[:, :2])
    return bool((shared > -1).all(1).any())

"""Transforms that move the picture: where it falls onto the canvas."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from torch import Generator

from torso.data.draws import uniform
from torso.data.views import Matrix, View, scaling, shifting


class Letterbox:
    """Fits the whole picture into the canvas, keeps its aspect ratio, centres it and fills the rest with grey.

    Args:
        fill: grey of the border, 0..255.
        enlarge: also enlarge pictures smaller than the canvas.

    Source: own design (closed form); the grey 114 of YOLOv5, 2020.
    """

    fits: ClassVar[bool] = True

    def __init__(self, fill: int = 114, enlarge: bool = True) -> None:
        self.fill = fill
        self.enlarge = enlarge

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        (width, height), target = view.size, view.target
        scale = min(target[0] / width, target[1] / height)
        if not self.enlarge:
            scale = min(scale, 1.0)
        # Whole pixels, so that the drawing needs no further rounding.
        w, h = max(round(width * scale), 1), max(round(height * scale), 1)
        left, top = (target[0] - w) // 2, (target[1] - h) // 2
        edited = view.then(shifting(left, top) @ scaling(w / width, h / height), target)
        return replace(edited, fill=self.fill)


class Resize:
    """Resizes to the canvas ("stretch"), or so that the short side has a length and the aspect ratio stays ("short").

    Args:
        mode: "stretch" ignores the aspect ratio and fills the canvas; "short" is followed by a crop.
        size: length of the short side in pixels; None takes the canvas's short side.
        max_size: the long side of "short" becomes no longer than this.

    Source: torchvision v2.Resize.
    """

    fits: ClassVar[bool] = True

    def __init__(
        self, mode: Literal["stretch", "short"] = "stretch", size: int | None = None, max_size: int | None = None
    ) -> None:
        self.mode = mode
        self.size = size
        self.max_size = max_size

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        width, height = view.size
        target = view.target
        if self.mode == "short":
            # torchvision truncates.
            short = self.size or min(view.target)
            long = int(short * max(width, height) / min(width, height))
            if self.max_size is not None and long > self.max_size:
                short, long = max(int(self.max_size * short / long), 1), self.max_size
            target = (short, long) if width <= height else (long, short)
        return view.then(scaling(target[0] / width, target[1] / height), target)


class HorizontalFlip:
    """Mirrors left and right with probability ``p``.

    Source: torchvision v2.RandomHorizontalFlip.
    """

    fits: ClassVar[bool] = False

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        if uniform(generator, 0, 1) >= self.p:
            return view
        return view.then(shifting(view.size[0], 0) @ scaling(-1, 1))


class VerticalFlip:
    """Mirrors top and bottom with probability ``p``.

    Source: torchvision v2.RandomVerticalFlip.
    """

    fits: ClassVar[bool] = False

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        if uniform(generator, 0, 1) >= self.p:
            return view
        return view.then(shifting(0, view.size[1]) @ scaling(1, -1))


class Affine:
    """Scales, shifts, rotates and shears about the middle of the canvas, all in one matrix.

    Args:
        scale: range of the factor.
        shift: largest shift, as a fraction of the canvas's side.
        rotation: largest angle in degrees, either way.
        shear: largest shear angle in degrees, either way, along both axes.
        min_visible: objects of which no larger fraction of the area stays on the canvas are dropped.

    Source: own design; the ranges are those of YOLOv5, 2020.
    """

    fits: ClassVar[bool] = False

    def __init__(
        self,
        scale: tuple[float, float] = (0.5, 1.5),
        shift: float = 0.1,
        rotation: float = 0.0,
        shear: float = 0.0,
        min_visible: float = 0.1,
    ) -> None:
        self.scale = scale
        self.shift = shift
        self.rotation = rotation
        self.shear = shear
        self.min_visible = min_visible

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        width, height = view.size
        factor = uniform(generator, *self.scale)
        x = uniform(generator, -self.shift, self.shift) * width
        y = uniform(generator, -self.shift, self.shift) * height
        turned = np.eye(3)
        # Without rotation and shear the matrix stays exactly axis-aligned, which renders three times as fast.
        if self.rotation:
            turned = turning(uniform(generator, -self.rotation, self.rotation))
        if self.shear:
            kx = math.tan(math.radians(uniform(generator, -self.shear, self.shear)))
            ky = math.tan(math.radians(uniform(generator, -self.shear, self.shear)))
            turned = np.array([[1.0, kx, 0.0], [ky, 1.0, 0.0], [0.0, 0.0, 1.0]]) @ turned
        matrix = shifting(x, y) @ about((width / 2, height / 2), scaling(factor, factor) @ turned)
        return replace(view.then(matrix), min_visible=self.min_visible)


def turning(angle: float) -> Matrix:
    """A turn about the corner (0, 0) by an angle in degrees, clockwise as one sees it."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def about(centre: tuple[float, float], matrix: Matrix) -> Matrix:
    """A matrix with another fixed point than the corner (0, 0)."""
    return shifting(*centre) @ matrix @ shifting(-centre[0], -centre[1])

"""Transforms that move the picture: where it falls onto the canvas."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from torch import Generator

from torso.data.draws import uniform
from torso.data.views import View, scaling, shifting


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

    Source: torchvision v2.Resize.
    """

    fits: ClassVar[bool] = True

    def __init__(self, mode: Literal["stretch", "short"] = "stretch", size: int | None = None) -> None:
        self.mode = mode
        self.size = size

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        width, height = view.size
        target = view.target
        if self.mode == "short":
            # torchvision truncates the long side.
            short = self.size or min(view.target)
            long = int(short * max(width, height) / min(width, height))
            target = (short, long) if width <= height else (long, short)
        return view.then(scaling(target[0] / width, target[1] / height), target)


class CenterCrop:
    """Cuts the canvas out of the middle of a larger picture (fills where the picture is smaller).

    Source: torchvision v2.CenterCrop.
    """

    fits: ClassVar[bool] = True

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        left = round((view.size[0] - view.target[0]) / 2)
        top = round((view.size[1] - view.target[1]) / 2)
        return view.then(shifting(-left, -top), view.target)


class RandomResizedCrop:
    """Cuts a random part of random aspect ratio and stretches it over the canvas.

    Args:
        scale: range of the part's area, as a fraction of the picture's.
        ratio: range of width / height of the part; drawn evenly in its logarithm.

    Source: Going Deeper with Convolutions, 2014, arXiv:1409.4842 (drawn as in torchvision).
    """

    fits: ClassVar[bool] = True

    def __init__(self, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        self.scale = scale
        self.ratio = ratio

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        left, top, w, h = self._part(view.size, generator)
        return view.then(scaling(view.target[0] / w, view.target[1] / h) @ shifting(-left, -top), view.target)

    def _part(self, size: tuple[int, int], generator: Generator) -> tuple[float, float, float, float]:
        width, height = size
        for _ in range(10):
            area = width * height * uniform(generator, *self.scale)
            ratio = math.exp(uniform(generator, math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if w <= width and h <= height:
                return uniform(generator, 0, width - w), uniform(generator, 0, height - h), w, h
        # Ten misses: the largest centred part whose ratio is allowed.
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, height * ratio), min(height, width / ratio)
        return (width - w) / 2, (height - h) / 2, w, h


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
            angle = math.radians(uniform(generator, -self.rotation, self.rotation))
            cos, sin = math.cos(angle), math.sin(angle)
            turned = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        if self.shear:
            kx = math.tan(math.radians(uniform(generator, -self.shear, self.shear)))
            ky = math.tan(math.radians(uniform(generator, -self.shear, self.shear)))
            turned = np.array([[1.0, kx, 0.0], [ky, 1.0, 0.0], [0.0, 0.0, 1.0]]) @ turned
        centre = shifting(-width / 2, -height / 2)
        matrix = shifting(width / 2 + x, height / 2 + y) @ scaling(factor, factor) @ turned @ centre
        return replace(view.then(matrix), min_visible=self.min_visible)

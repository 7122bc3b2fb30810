"""Single motions of the picture: a turn, a shift, a shear, another size. Each is one matrix about the canvas's middle.

Angles are in degrees. All of them act on continuous coordinates (`torso.data.views`), which is what torchvision's
tensors do (``align_corners=False``): the middle of a canvas of 4 pixels is 2.0, on the edge between two pixels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Generator

from torso.data.draws import uniform
from torso.data.transforms.geometry import about, turning
from torso.data.views import Matrix, View, scaling, shifting


class Rotation:
    """Turns about the middle of the canvas.

    Args:
        degrees: range of the angle, counter-clockwise.
        fill: grey where the picture does not reach, 0..255; None leaves it.

    Source: torchvision v2.RandomRotation.
    """

    fits: ClassVar[bool] = False

    def __init__(self, degrees: tuple[float, float] = (-10.0, 10.0), fill: int | None = None) -> None:
        self.degrees = degrees
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        return filled(turned(view, uniform(generator, *self.degrees)), self.fill)


class Shift:
    """Shifts by whole pixels.

    Args:
        fraction: largest shift along x and along y, as fractions of the canvas's sides.
        fill: grey where the picture does not reach, 0..255; None leaves it.

    Source: torchvision v2.RandomAffine(translate=...).
    """

    fits: ClassVar[bool] = False

    def __init__(self, fraction: tuple[float, float] = (0.1, 0.1), fill: int | None = None) -> None:
        self.fraction = fraction
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        far = [part * side for part, side in zip(self.fraction, view.size, strict=True)]
        return filled(view.then(shifting(*(round(uniform(generator, -most, most)) for most in far))), self.fill)


class Shear:
    """Shears along x, then along y, about the middle of the canvas.

    Args:
        x: range of the angle along x.
        y: range of the angle along y.
        fill: grey where the picture does not reach, 0..255; None leaves it.

    Source: torchvision v2.RandomAffine(shear=...).
    """

    fits: ClassVar[bool] = False

    def __init__(
        self, x: tuple[float, float] = (-10.0, 10.0), y: tuple[float, float] = (0.0, 0.0), fill: int | None = None
    ) -> None:
        self.x = x
        self.y = y
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        return filled(sheared(view, uniform(generator, *self.x), uniform(generator, *self.y)), self.fill)


class RandomScale:
    """Scales the picture at random against the canvas and keeps its aspect ratio; a crop has to follow.

    Args:
        scale: range of the factor; at 1 the whole picture just fits into the canvas.

    Source: Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation, 2020, arXiv:2012.07177
    (torchvision v2.ScaleJitter).
    """

    fits: ClassVar[bool] = False

    def __init__(self, scale: tuple[float, float] = (0.1, 2.0)) -> None:
        self.scale = scale

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        whole = min(target / side for target, side in zip(view.target, view.size, strict=True))
        return scaled(view, whole * uniform(generator, *self.scale))


class RandomShortSide:
    """Scales the picture so that its short side has a length drawn from a list; a crop has to follow.

    Args:
        sizes: lengths of the short side in pixels.
        max_size: the long side becomes no longer than this; None allows any.

    Source: torchvision v2.RandomShortestSize; DETR, 2020, arXiv:2005.12872.
    """

    fits: ClassVar[bool] = False

    def __init__(
        self,
        sizes: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        max_size: int | None = 1333,
    ) -> None:
        self.sizes = sizes
        self.max_size = max_size

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        short = self.sizes[int(torch.randint(len(self.sizes), (), generator=generator))]
        return self.resized(view, short)

    def resized(self, view: View, short: int) -> View:
        """The view with a given length of the short side."""
        factor = short / min(view.size)
        if self.max_size is not None:
            factor = min(factor, self.max_size / max(view.size))
        return scaled(view, factor)


def turned(view: View, angle: float) -> View:
    """Turned counter-clockwise about the middle (v2.functional.rotate)."""
    return view.then(about(_middle(view), turning(-angle)))


def sheared(view: View, x: float, y: float) -> View:
    """Sheared about the middle (v2.functional.affine with ``shear=[x, y]``)."""
    return view.then(about(_middle(view), shearing(x, y)))


def shearing(x: float, y: float) -> Matrix:
    """A shear about the corner (0, 0), first along x, then along y."""
    kx, ky = math.tan(math.radians(x)), math.tan(math.radians(y))
    return np.array([[1.0, -kx, 0.0], [-ky, 1.0 + kx * ky, 0.0], [0.0, 0.0, 1.0]])


def scaled(view: View, factor: float) -> View:
    """At another size; sides are cut to whole pixels as torchvision does, so that x and y may differ by a hair."""
    size = (max(int(view.size[0] * factor), 1), max(int(view.size[1] * factor), 1))
    return view.then(scaling(size[0] / view.size[0], size[1] / view.size[1]), size)


def filled(view: View, fill: int | None) -> View:
    """With another grey where the canvas shows no picture; None leaves it."""
    return view if fill is None else replace(view, fill=fill)


def _middle(view: View) -> tuple[float, float]:
    return view.size[0] / 2, view.size[1] / 2

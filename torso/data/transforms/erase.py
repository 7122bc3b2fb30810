"""Transforms that paint over parts of the canvas. Objects keep their boxes, however much of them is hidden."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Generator

from torso.data.draws import uniform
from torso.data.transforms.elastic import seed_of
from torso.data.views import Boxes, Points, View

Fill = tuple[int, int, int] | Literal["noise"]


class RandomErasing:
    """Paints over a rectangle of random area and aspect ratio: anywhere, inside each object, or both.

    Args:
        p: probability, drawn for the picture and for each object.
        scale: range of the rectangle's area, as a fraction of the picture's (or the object's).
        ratio: range of height / width; drawn evenly in its logarithm.
        fill: red, green and blue in 0..255 (the mean of ImageNet is [124, 116, 104]), or "noise" for random pixels.
        where: "picture", "objects" (inside every object's box) or "both".

    Source: Random Erasing Data Augmentation, 2017, arXiv:1708.04896 (drawn as in torchvision).
    """

    fits: ClassVar[bool] = False
    sees_boxes: ClassVar[bool] = True

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        fill: Literal["noise"] | tuple[int, int, int] = "noise",
        where: Literal["picture", "objects", "both"] = "picture",
    ) -> None:
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self.fill: Fill = fill
        self.where = where

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        regions = [] if self.where == "objects" else [(0.0, 0.0, float(view.size[0]), float(view.size[1]))]
        if self.where != "picture" and view.boxes is not None:
            regions += [(x0, y0, x1, y1) for x0, y0, x1, y1 in view.boxes.tolist()]
        drawn = [self._drawn(region, generator) for region in regions if uniform(generator, 0, 1) < self.p]
        found = np.array([rectangle for rectangle in drawn if rectangle is not None])
        return erased(view, found, self.fill, generator) if len(found) else view

    def _drawn(
        self, region: tuple[float, float, float, float], generator: Generator
    ) -> tuple[float, float, float, float] | None:
        """A rectangle of whole pixels in a region; None after ten that do not fit."""
        left, top, right, bottom = (round(side) for side in region)
        width, height = right - left, bottom - top
        for _ in range(10):
            area = width * height * uniform(generator, *self.scale)
            ratio = math.exp(uniform(generator, math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h < height and 0 < w < width:
                x = left + int(torch.randint(width - w + 1, (), generator=generator))
                y = top + int(torch.randint(height - h + 1, (), generator=generator))
                return x, y, x + w, y + h
        return None


class Cutout:
    """Paints squares whose centres lie anywhere, so that they may reach out of the picture.

    Args:
        size: side of a square in pixels (the paper: 16 for CIFAR-10, 8 for CIFAR-100, pictures of 32).
        count: how many.
        fill: red, green and blue in 0..255.

    Source: Improved Regularization of Convolutional Neural Networks with Cutout, 2017, arXiv:1708.04552.
    """

    fits: ClassVar[bool] = False

    def __init__(self, size: int = 16, count: int = 1, fill: tuple[int, int, int] = (0, 0, 0)) -> None:
        self.size = size
        self.count = count
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        drawn = [[int(torch.randint(side, (), generator=generator)) for side in view.size] for _ in range(self.count)]
        low = np.array(drawn, np.float64).reshape(-1, 2) - self.size // 2
        return erased(view, np.concatenate([low, low + self.size], 1), self.fill, generator)


class HideAndSeek:
    """Divides the canvas into square patches and hides each with probability ``p``.

    Args:
        sizes: sides of a patch in pixels, one drawn for each picture; 0 hides nothing this time.
        p: probability of each patch.
        fill: red, green and blue in 0..255: the mean of the data, so that the hidden part tells nothing of its own.

    Source: Hide-and-Seek, 2017, arXiv:1704.04232 (the mixed sizes; pictures of 224 pixels).
    """

    fits: ClassVar[bool] = False

    def __init__(
        self,
        sizes: tuple[int, ...] = (0, 16, 32, 44, 56),
        p: float = 0.5,
        fill: tuple[int, int, int] = (124, 116, 104),
    ) -> None:
        self.sizes = sizes
        self.p = p
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        size = self.sizes[int(torch.randint(len(self.sizes), (), generator=generator))]
        if size == 0:
            return view
        columns, rows = (math.ceil(side / size) for side in view.size)
        hidden = (torch.rand((rows, columns), generator=generator) < self.p).numpy()
        low = np.argwhere(hidden)[:, ::-1] * float(size)
        high = np.minimum(low + size, view.size)
        return erased(view, np.concatenate([low, high], 1), self.fill, generator)


class GridMask:
    """Lays a grid of squares over the canvas, turned and shifted at random.

    A unit of the grid is ``d`` pixels wide; a square of ``d * (1 - ratio)`` in it is hidden, so that a share of
    ``2 ratio - ratio^2`` stays visible. The paper lets ``p`` grow over the epochs; here it is constant.

    Args:
        d: range of the unit's side in pixels (the paper: 96 to 224, pictures of 224).
        ratio: width of the visible bars, as a fraction of the unit.
        rotation: range of the angle in degrees.
        p: probability.
        fill: red, green and blue in 0..255.

    Source: GridMask Data Augmentation, 2020, arXiv:2001.04086.
    """

    fits: ClassVar[bool] = False

    def __init__(
        self,
        d: tuple[int, int] = (96, 224),
        ratio: float = 0.6,
        rotation: tuple[float, float] = (0.0, 360.0),
        p: float = 0.7,
        fill: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        self.d = d
        self.ratio = ratio
        self.rotation = rotation
        self.p = p
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        if uniform(generator, 0, 1) >= self.p:
            return view
        d = self.d[0] + int(torch.randint(self.d[1] - self.d[0] + 1, (), generator=generator))
        x, y = (int(torch.randint(max(d, 1), (), generator=generator)) for _ in range(2))
        squares = grid(view.size, d, self.ratio, (x, y), uniform(generator, *self.rotation))
        return view.erasing(squares, self.fill) if len(squares) else view


def grid(size: tuple[int, int], d: float, ratio: float, offset: tuple[float, float], angle: float) -> Points:
    """The hidden squares ``[k, 4, 2]`` that touch a canvas of (width, height), turned clockwise about its middle."""
    radius = math.hypot(*size) / 2
    count = math.ceil(radius / d) + 1
    lows = np.arange(-count, count) * d
    side = d * (1 - ratio)
    x, y = np.meshgrid(lows + offset[0], lows + offset[1])
    low = np.stack([x.ravel(), y.ravel()], -1)
    corners = _corners(np.concatenate([low, low + side], 1))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    corners = corners @ np.array([[cos, sin], [-sin, cos]]) + np.array(size) / 2
    touches = ((corners.max(1) > 0) & (corners.min(1) < size)).all(1)
    return np.asarray(corners[touches], np.float64)


def erased(view: View, rectangles: Boxes, fill: Fill, generator: Generator) -> View:
    """The view with xyxy rectangles ``[k, 4]`` painted over."""
    seed = seed_of(generator) if fill == "noise" else 0
    return view.erasing(_corners(rectangles.astype(np.float64)), fill, seed)


def _corners(rectangles: Boxes) -> Points:
    return np.stack([rectangles[:, [0, 2, 2, 0]], rectangles[:, [1, 1, 3, 3]]], -1)

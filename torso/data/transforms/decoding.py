"""How pictures are decoded, as a transform: a recipe says it where it says all else that is done to a picture."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from torch import Generator

from torso.data.views import View


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

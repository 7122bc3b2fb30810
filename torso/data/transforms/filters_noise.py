"""Noise on the drawn canvas, from a seed of the sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from torso.data.transforms.filters import Canvas, Still

Kind = Literal["gaussian", "salt_pepper", "poisson"]


@dataclass(frozen=True)
class Noise(Still):
    """Noise of one of three kinds; ``amount`` is explained where they are drawn (`pixelwise.Noise`)."""

    kind: Kind
    amount: float
    seed: int

    def pixels(self, canvas: Canvas) -> Canvas:
        """The canvas with noise, cut off at 0 and 255."""
        random = np.random.Generator(np.random.PCG64(self.seed))
        if self.kind == "gaussian":
            return added(canvas, random.standard_normal(canvas.shape, np.float32) * np.float32(255 * self.amount))
        if self.kind == "poisson":
            photons = 1 / self.amount
            counts = random.poisson(canvas * (photons / 255))
            return np.asarray(np.clip(counts * (255 / photons) + 0.5, 0, 255), np.uint8)
        drawn = random.random(canvas.shape[:2], np.float32)
        canvas[drawn < self.amount] = 255
        canvas[drawn < self.amount / 2] = 0
        return canvas


def added(canvas: Canvas, noise: NDArray[np.float32]) -> Canvas:
    """Grey levels added, rounded and cut off."""
    noise += canvas
    np.rint(noise, out=noise)
    return np.clip(noise, 0, 255, out=noise).astype(np.uint8)

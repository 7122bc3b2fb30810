"""Elastic distortion: every pixel moves its own way, neighbours nearly alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from torso.data.draws import uniform
from torso.data.transforms.filters import Canvas
from torso.data.views import Points, View

Field = NDArray[np.float32]  # [H, W, 2] pixels along x and y


@dataclass(frozen=True)
class Distort:
    """Reads each pixel from a place beside it; beyond the edge the outermost pixels are repeated.

    The field says where each pixel of the *result* comes from. A position of the picture goes the other way, which
    is found by iteration.
    """

    alpha: float
    sigma: float
    seed: int

    @property
    def moves(self) -> bool:
        """Whether positions change."""
        return True

    def field(self, size: tuple[int, int]) -> Field:
        """The way from each pixel of a canvas of (width, height) to where it is read, ``[H, W, 2]`` pixels."""
        return _field(size, self.alpha, self.sigma, self.seed)

    def pixels(self, canvas: Canvas) -> Canvas:
        """Bilinear."""
        import cv2

        return self._read(canvas, cv2.INTER_LINEAR)

    def plane(self, plane: Canvas) -> Canvas:
        """Nearest neighbour."""
        import cv2

        return self._read(plane, cv2.INTER_NEAREST)

    def points(self, points: Points, size: tuple[int, int]) -> Points:
        """The places whose pixels are read at these positions: the fixed point of ``q = p - field(q)``."""
        field = self.field(size)
        moved = points
        for _ in range(50):
            last, moved = moved, points - _at(field, moved)
            if not len(points) or np.abs(moved - last).max() < 1e-3:
                break
        return moved

    def _read(self, canvas: Canvas, method: int) -> Canvas:
        import cv2

        height, width = canvas.shape[:2]
        field = self.field((width, height))
        x = field[..., 0] + np.arange(width, dtype=np.float32)
        y = field[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        return np.asarray(cv2.remap(canvas, x, y, method, borderMode=cv2.BORDER_REPLICATE), np.uint8)


@lru_cache(maxsize=2)
def _field(size: tuple[int, int], alpha: float, sigma: float, seed: int) -> Field:
    """Noise in -1..1, smoothed and scaled; torchvision's alpha counts half pixels."""
    import cv2

    noise = np.random.Generator(np.random.PCG64(seed)).random((size[1], size[0], 2), np.float32) * 2 - 1
    side = int(8 * sigma + 1) // 2 * 2 + 1
    smooth = cv2.GaussianBlur(noise, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(smooth * (alpha / 2), np.float32).reshape(size[1], size[0], 2)


def _at(field: Field, points: Points) -> Points:
    """The field between pixel centres ``[n, 2]``, bilinear; outside as on the edge."""
    height, width = field.shape[:2]
    x, y = np.clip(points[:, 0] - 0.5, 0, width - 1), np.clip(points[:, 1] - 0.5, 0, height - 1)
    x0, y0 = x.astype(np.int64), y.astype(np.int64)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    right, below = (x - x0)[:, None], (y - y0)[:, None]
    upper = field[y0, x0] * (1 - right) + field[y0, x1] * right
    lower = field[y1, x0] * (1 - right) + field[y1, x1] * right
    return np.asarray(upper * (1 - below) + lower * below, np.float64)


class Elastic:
    """Distorts like handwriting: a smooth random field moves every pixel.

    Args:
        alpha: strength; with the default the ways have a standard deviation of about 0.8 pixels.
        sigma: pixels over which the field is smooth.
        p: probability.

    Raises:
        ValueError: a field so strong and so rough that it would fold the picture over itself.

    Source: Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis, 2003
    (torchvision v2.ElasticTransform).
    """

    fits: ClassVar[bool] = False

    def __init__(self, alpha: float = 50.0, sigma: float = 5.0, p: float = 1.0) -> None:
        if sigma <= 0 or abs(alpha) > 3 * sigma**2:
            raise ValueError(f"alpha up to 3 * sigma^2 = {3 * sigma**2:g} distorts, {alpha:g} would fold")
        self.alpha = alpha
        self.sigma = sigma
        self.p = p

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        if uniform(generator, 0, 1) >= self.p:
            return view
        return view.filtered(Distort(self.alpha, self.sigma, seed_of(generator)))


def seed_of(generator: Generator) -> int:
    """A seed for noise of numpy."""
    return int(torch.randint(2**62, (), generator=generator))

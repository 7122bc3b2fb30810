"""What is done to the pixels of a drawn canvas and can be neither a matrix nor a region: tables, blurs, noise.

Each filter is exactly one operation of torchvision v2's functionals (or of the paper named), with its parameters set;
what draws the parameters stands in ``pixelwise`` and ``photometric`` beside it. Canvases are ``[H, W, 3]``
uint8 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torso.data.views import Matrix, Points

Canvas = NDArray[np.uint8]
Table = NDArray[np.uint8]


class Still:
    """A filter that leaves everything in its place."""

    @property
    def moves(self) -> bool:
        """Whether positions change."""
        return False

    def points(self, points: Points, size: tuple[int, int]) -> Points:
        """Positions stay."""
        return points

    def plane(self, plane: Canvas) -> Canvas:
        """Masks stay."""
        return plane


@dataclass(frozen=True)
class Tint(Still):
    """A 3x4 colour matrix that has to come after other filters."""

    color: Matrix

    def pixels(self, canvas: Canvas) -> Canvas:
        """One colour product."""
        import cv2

        return np.asarray(cv2.transform(canvas, self.color, dst=canvas), np.uint8)


@dataclass(frozen=True)
class Brighten(Still):
    """``factor`` times the value (v2.functional.adjust_brightness)."""

    factor: float

    def pixels(self, canvas: Canvas) -> Canvas:
        """One table."""
        return _looked_up(canvas, _table(_LEVELS * self.factor))


@dataclass(frozen=True)
class Contrast(Still):
    """Away from, or towards, the canvas's mean grey (v2.functional.adjust_contrast)."""

    factor: float

    def pixels(self, canvas: Canvas) -> Canvas:
        """One table, about the mean of this canvas."""
        mean = float(_grey(canvas).mean())
        return _looked_up(canvas, _table(self.factor * _LEVELS + (1 - self.factor) * mean))


@dataclass(frozen=True)
class Saturate(Still):
    """Away from, or towards, each pixel's grey (v2.functional.adjust_saturation)."""

    factor: float

    def pixels(self, canvas: Canvas) -> Canvas:
        """A sum of the canvas and its grey."""
        import cv2

        grey = cv2.cvtColor(_grey(canvas), cv2.COLOR_GRAY2RGB)
        return np.asarray(cv2.addWeighted(canvas, self.factor, grey, 1 - self.factor, -_POINT, dst=canvas), np.uint8)


@dataclass(frozen=True)
class Hue(Still):
    """Turns the hue of HSV by a part of the circle, -0.5..0.5 (v2.functional.adjust_hue)."""

    turn: float

    def pixels(self, canvas: Canvas) -> Canvas:
        """There and back in floating point, ten times as fast as torchvision and equal to one grey level."""
        import cv2

        colors = np.asarray(cv2.cvtColor(canvas * np.float32(1 / 255), cv2.COLOR_RGB2HSV), np.float32)
        hue = colors[..., 0]
        hue += np.float32(360 * (self.turn % 1))
        np.subtract(hue, np.float32(360), out=hue, where=hue >= 360)
        return np.asarray(cv2.cvtColor(colors, cv2.COLOR_HSV2RGB) * np.float32(255.999), np.uint8)


@dataclass(frozen=True)
class Posterize(Still):
    """Keeps the highest ``bits`` of each value (v2.functional.posterize)."""

    bits: int

    def pixels(self, canvas: Canvas) -> Canvas:
        """One table."""
        return _looked_up(canvas, (_LEVELS.astype(np.int64) & ~(2 ** (8 - self.bits) - 1)).astype(np.uint8))


@dataclass(frozen=True)
class Solarize(Still):
    """Inverts values from ``threshold`` (0..255) on (v2.functional.solarize)."""

    threshold: float

    def pixels(self, canvas: Canvas) -> Canvas:
        """One table."""
        return _looked_up(
            canvas, np.where(np.float32(self.threshold) <= _LEVELS, 255 - _LEVELS, _LEVELS).astype(np.uint8)
        )


@dataclass(frozen=True)
class AutoContrast(Still):
    """Stretches each channel until it spans 0..255 (v2.functional.autocontrast)."""

    def pixels(self, canvas: Canvas) -> Canvas:
        """One table a channel."""
        rows = canvas.min(0), canvas.max(0)  # of all rows first: along memory
        low, high = rows[0].min(0).astype(np.float64), rows[1].max(0).astype(np.float64)
        flat = low == high
        low, scale = np.where(flat, 0.0, low), 255 / np.where(flat, 255.0, high - low)
        return _looked_up(canvas, _table((_LEVELS[:, None] - low) * scale))


@dataclass(frozen=True)
class Equalize(Still):
    """Makes the values of each channel evenly frequent, by Pillow's rule (v2.functional.equalize)."""

    def pixels(self, canvas: Canvas) -> Canvas:
        """One table a channel."""
        tables = np.empty((256, 3), np.uint8)
        for channel in range(3):
            counts = np.bincount(canvas[..., channel].ravel(), minlength=256)
            step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
            below = np.concatenate([[0], np.cumsum(counts)[:-1]])
            tables[:, channel] = np.clip((below + step // 2) // step, 0, 255) if step else _LEVELS
        return _looked_up(canvas, tables)


@dataclass(frozen=True)
class Sharpness(Still):
    """Away from (above 1) or towards (below 1) a 3x3 smoothed canvas (v2.functional.adjust_sharpness)."""

    factor: float

    def pixels(self, canvas: Canvas) -> Canvas:
        """The outermost pixels stay as they are."""
        import cv2

        if min(canvas.shape[:2]) <= 2:
            return canvas
        kernel = np.ones((3, 3)) / 13
        kernel[1, 1] = 5 / 13
        smooth = cv2.filter2D(canvas, -1, kernel)[1:-1, 1:-1]
        inner = canvas[1:-1, 1:-1]
        inner[:] = cv2.addWeighted(inner, self.factor, smooth, 1 - self.factor, 0)
        return canvas


@dataclass(frozen=True)
class Blur(Still):
    """Smooths with a Gaussian; the canvas is mirrored at its edges (v2.functional.gaussian_blur)."""

    size: int  # of the kernel, odd
    sigma: float  # pixels

    def pixels(self, canvas: Canvas) -> Canvas:
        """One separable convolution."""
        import cv2

        x = np.arange(self.size) - (self.size - 1) / 2
        kernel = np.exp(-0.5 * (x / self.sigma) ** 2)
        kernel /= kernel.sum()
        return np.asarray(cv2.sepFilter2D(canvas, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101), np.uint8)


@dataclass(frozen=True)
class MotionBlur(Still):
    """Smears along a line of ``size`` pixels at an angle in degrees."""

    size: int  # odd
    angle: float

    def pixels(self, canvas: Canvas) -> Canvas:
        """One convolution with a line."""
        import cv2

        half = (self.size - 1) / 2
        x, y = half * np.cos(np.radians(self.angle)), half * np.sin(np.radians(self.angle))
        kernel = np.zeros((self.size, self.size), np.uint8)
        ends = np.rint([[half - x, half - y], [half + x, half + y]]).astype(int)
        cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 1)
        weights = kernel / kernel.sum()
        return np.asarray(cv2.filter2D(canvas, -1, weights, borderType=cv2.BORDER_REFLECT_101), np.uint8)


@dataclass(frozen=True)
class Compress(Still):
    """Through JPEG and back, with libjpeg's usual halved colours (v2.functional.jpeg)."""

    quality: int  # 1..100

    def pixels(self, canvas: Canvas) -> Canvas:
        """One encode, one decode."""
        import cv2

        data = cv2.imencode(".jpg", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, self.quality])[
            1
        ]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)


_LEVELS = np.arange(256, dtype=np.float64)
_POINT = 0.4999  # OpenCV rounds; with this taken away it cuts off at the point, as torchvision does


def _grey(canvas: Canvas) -> Canvas:
    """The luma of each pixel ``[H, W]``, by torchvision's numbers."""
    import cv2

    return np.asarray(cv2.transform(canvas, np.array([[0.2989, 0.587, 0.114, -_POINT]])), np.uint8)


def _table(values: NDArray[np.float64]) -> Table:
    """Values cut off at 0 and 255 and, as torchvision does, at the point."""
    return np.clip(values + 1e-6, 0, 255).astype(np.uint8)


def _looked_up(canvas: Canvas, table: Table) -> Canvas:
    """Each value replaced by its entry in a table ``[256]`` for all channels or ``[256, 3]``."""
    import cv2

    table = table if table.ndim == 1 else table[:, None]
    return np.asarray(cv2.LUT(canvas, table, dst=canvas), np.uint8)

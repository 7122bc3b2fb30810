"""Resizing as an exact, readable reference: each way of resizing is a matrix an axis, ``out = rows @ x @ columns^T``.

Where libraries differ (``tests/unit/nn/test_resize.py`` shows each line), with ``s`` = size before / size after:

- The centre of output pixel ``i`` lies at ``(i + 0.5) s - 0.5``; with torch's ``align_corners=True`` it lies at
  ``i (before - 1) / (after - 1)``.
- Nearest: torch ``nearest`` and OpenCV ``INTER_NEAREST`` copy pixel ``floor(i s)``; torch ``nearest-exact``, Pillow and
  OpenCV ``INTER_NEAREST_EXACT`` copy ``floor((i + 0.5) s)``.
- Bicubic: ``a`` is -0.75 in torch and OpenCV, -0.5 in Pillow and in torch with ``antialias=True``.
- Made smaller: torch and OpenCV keep the kernel's size, which aliases; Pillow always, and torch with
  ``antialias=True``, widen it by ``s``.
- At the border: torch and OpenCV repeat the edge; Pillow, and torch with ``antialias=True``, leave out what is outside
  and scale the rest to sum 1.

Code that rounds ``i s`` with Python's ``round`` (half to even) is a fourth nearest neighbour: ``rule="round"``.
Models resize with ``torch.nn.functional.interpolate``; this file says what it computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Size = tuple[int, int]
"""Height and width in pixels."""


def nearest(x: Tensor, size: Size, rule: Literal["floor", "exact", "round"] = "floor") -> Tensor:
    """Each output pixel is a copy of one input pixel, ``[..., H, W] -> [..., *size]``.

    Args:
        x: maps or pictures.
        size: height and width to make.
        rule: ``floor``: pixel ``floor(i s)`` (torch ``nearest``), a shift to the top left; ``exact``: the pixel the
            centre falls into (torch ``nearest-exact``, Pillow); ``round``: ``round(i s)``, half to even.

    Source: torch.nn.functional.interpolate
    """
    rows, columns = (_nearest_index(n, m, rule) for n, m in zip(x.shape[-2:], size, strict=True))
    return x[..., rows, :][..., columns]


def bilinear(x: Tensor, size: Size, align_corners: bool = False, antialias: bool = False) -> Tensor:
    """Each output pixel is a mean of its two neighbours an axis, by distance, ``[..., H, W] -> [..., *size]``.

    Args:
        x: maps or pictures.
        size: height and width to make.
        align_corners: the centres of the corner pixels stay where they are (else the corners of the picture do).
        antialias: where the picture is made smaller, widen the kernel by as much, and leave out what lies outside.

    Raises:
        ValueError: `align_corners` together with `antialias`.

    Source: torch.nn.functional.interpolate
    """
    return _resized(x, size, tent, 1, align_corners, antialias)


def bicubic(
    x: Tensor, size: Size, align_corners: bool = False, antialias: bool = False, a: float | None = None
) -> Tensor:
    """Each output pixel is a weighted sum of its four neighbours an axis, ``[..., H, W] -> [..., *size]``.

    Values may overshoot those of the input.

    Args:
        x: maps or pictures.
        size: height and width to make.
        align_corners: the centres of the corner pixels stay where they are (else the corners of the picture do).
        antialias: where the picture is made smaller, widen the kernel by as much, and leave out what lies outside.
        a: slope of the kernel at distance 1; left out: -0.75, with antialias -0.5 (as torch does).

    Raises:
        ValueError: `align_corners` together with `antialias`.

    Source: Cubic convolution interpolation for digital image processing, 1981
    """
    slope = (-0.5 if antialias else -0.75) if a is None else a
    return _resized(x, size, lambda distance: cubic(distance, slope), 2, align_corners, antialias)


def to_input(x: Tensor, size: Size) -> Tensor:
    """Maps ``[B, C, h, w]`` brought to the size of the picture they are about: bilinear, half-pixel centres.

    Args:
        x: logits or features.
        size: height and width of the picture (``images.shape[-2:]``).

    Source: Fully Convolutional Networks for Semantic Segmentation, 2014, arXiv:1411.4038
        (torch.nn.functional.interpolate, ``align_corners=False``)
    """
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


def tent(distance: Tensor) -> Tensor:
    """The linear kernel: 1 at 0, 0 from distance 1 on."""
    return (1 - distance.abs()).clamp(min=0)


def cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic kernel: 1 at 0, 0 at 1, slope ``a`` there, 0 from distance 2 on."""
    d = distance.abs()
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = a * (((d - 5) * d + 8) * d - 4)
    return torch.where(d <= 1, inner, torch.where(d < 2, outer, torch.zeros_like(d)))


def places(count: int, made: int, align_corners: bool = False) -> Tensor:
    """Where in a row of ``count`` pixels the centres of ``made`` pixels lie (pixel centres are whole numbers)."""
    i = torch.arange(made, dtype=torch.float64)
    if align_corners:
        return i * ((count - 1) / (made - 1) if made > 1 else 0.0)
    return (i + 0.5) * (count / made) - 0.5


def _nearest_index(count: int, made: int, rule: str) -> Tensor:
    rules: dict[str, Callable[[int], int]] = {
        "floor": lambda i: i * count // made,
        "exact": lambda i: (2 * i + 1) * count // (2 * made),
        "round": lambda i: round(i * count / made),
    }
    return torch.tensor([min(rules[rule](i), count - 1) for i in range(made)])


def _resized(
    x: Tensor, size: Size, kernel: Callable[[Tensor], Tensor], reach: int, align_corners: bool, antialias: bool
) -> Tensor:
    if align_corners and antialias:
        raise ValueError("antialias is defined for half-pixel centres: leave align_corners out")
    rows, columns = (
        (_smooth(n, m, kernel, reach) if antialias else _sharp(n, m, kernel, reach, align_corners)).to(x)
        for n, m in zip(x.shape[-2:], size, strict=True)
    )
    return rows @ x @ columns.T


def _sharp(count: int, made: int, kernel: Callable[[Tensor], Tensor], reach: int, align_corners: bool) -> Tensor:
    """``[made, count]``: the ``2 * reach`` pixels around each place; those outside are the edge pixel again."""
    at = places(count, made, align_corners)
    weights = torch.zeros(made, count, dtype=torch.float64)
    for step in range(1 - reach, reach + 1):
        pixel = at.floor() + step
        weights.scatter_add_(1, pixel.clamp(0, count - 1).long()[:, None], kernel(at - pixel)[:, None])
    return weights


def _smooth(count: int, made: int, kernel: Callable[[Tensor], Tensor], reach: int) -> Tensor:
    """``[made, count]``: a kernel as wide as an output pixel, at least as an input pixel; rows sum to 1."""
    stretch = max(count / made, 1.0)
    at, pixels = places(count, made)[:, None], torch.arange(count, dtype=torch.float64)
    seen = (pixels >= (at - reach * stretch + 1).floor()) & (pixels < (at + reach * stretch + 1).floor())
    weights = kernel((pixels - at) / stretch) * seen
    return weights / weights.sum(1, keepdim=True)

"""A given affine warp: as an edit of a view, and as a function of a batch on any device.

The matrix acts on continuous coordinates, in which pixel ``i`` covers ``i..i + 1``. OpenCV's warpAffine counts from
the centres of pixels instead; its matrix for the same warp is ``shift(-0.5) @ matrix @ shift(0.5)``, and the two differ
by up to half a pixel wherever the scale is not 1.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from torso.data.transforms.motions import filled
from torso.data.views import View


class WarpAffine:
    """Warps every picture by one given matrix, for instance to undo how a camera is mounted.

    Args:
        matrix: six numbers a, b, c, d, e, f: x' = a x + b y + c and y' = d x + e y + f in pixels of the canvas,
            counted from the edge of the first pixel.
        fill: grey where the picture does not reach, 0..255; None leaves it.

    Source: OpenCV warpAffine (with another origin: see the module).
    """

    fits: ClassVar[bool] = False

    def __init__(
        self,
        matrix: tuple[float, float, float, float, float, float] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        fill: int | None = None,
    ) -> None:
        self.matrix = np.array([*matrix, 0.0, 0.0, 1.0]).reshape(3, 3)
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        return filled(view.then(self.matrix), self.fill)


def warp_affine(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int] | None = None,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    fill: float = 0.0,
) -> Tensor:
    """Warps a batch of pictures on the device it lives on, differentiably.

    Args:
        images: ``[B, C, H, W]`` floating point.
        matrix: ``[2, 3]`` or ``[B, 2, 3]``, continuous pixels of the pictures -> those of the result.
        size: width and height of the result; None is that of the pictures.
        mode: how positions between pixels are read.
        fill: value where the pictures do not reach.

    Returns:
        ``[B, C, height, width]``.
    """
    count, channels, height, width = images.shape
    out_width, out_height = size or (width, height)
    full = torch.eye(3, dtype=torch.float64, device=images.device).repeat(count, 1, 1)
    full[:, :2] = matrix.to(full)
    # grid_sample wants, for each pixel of the result, where it is read, both in -1..1 from edge to edge.
    read = (
        _unit(width, height).to(full) @ torch.linalg.inv(full) @ torch.linalg.inv(_unit(out_width, out_height)).to(full)
    )
    shape = [count, channels, out_height, out_width]
    grid = functional.affine_grid(read[:, :2].to(images.dtype), shape, align_corners=False)
    return functional.grid_sample(images - fill, grid, mode, align_corners=False) + fill


def _unit(width: int, height: int) -> Tensor:
    """Pixels from the edge -> -1..1."""
    return torch.tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]], dtype=torch.float64)

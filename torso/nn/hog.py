"""Histograms of oriented gradients: what a picture looks like before anything is learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Literal["l1", "l1_sqrt", "l2", "l2_hys"]
EPSILON = 1e-5


class HOG(nn.Module):
    """Gradients of each cell by their direction, and cells together normalised in overlapping blocks.

    The gradient of a pixel is the difference of its two neighbours, 0 at the border, of the channel where it is
    largest. Its magnitude counts for the one of ``orientations`` bins of 0..180 degrees it points into: hard bins, as
    in scikit-image; the paper shares it between neighbouring bins and cells. Which bin that is, signs of products
    decide, not an arc tangent, so that all runtimes agree on it.

    Args:
        orientations: bins.
        cell: side of a cell in pixels.
        block: side of a block in cells; blocks begin at every cell.
        norm: of a block: ``l1``, its root, ``l2``, or ``l2_hys``, cut at 0.2 and normalised once more.
        root: of the pixels first.

    Shape: ``[B, C, H, W]`` of any range to ``[B, block * block * orientations, H // cell - block + 1, W // cell - block
    + 1]``, the cells of a block row by row. What is left of a cell at the right and below is not looked at.

    Raises:
        ValueError: a number below 1, or no such norm.

    Source: Histograms of Oriented Gradients for Human Detection, 2005 (scikit-image's hog)
    """

    def __init__(self, orientations: int = 9, cell: int = 8, block: int = 2, norm: Norm = "l2_hys", root: bool = False):
        super().__init__()
        if min(orientations, cell, block) < 1:
            raise ValueError(f"orientations, cell and block are 1 or more, got {orientations}, {cell} and {block}")
        if norm not in get_args(Norm):
            raise ValueError(f"norm is one of {', '.join(get_args(Norm))}, got {norm}")
        self.orientations, self.cell, self.block, self.norm, self.root = orientations, cell, block, norm, root
        self.channels = block * block * orientations

    def forward(self, images: Tensor) -> Tensor:
        """The normalised blocks."""
        x, y = gradients(images.sqrt() if self.root else images)
        cells = self.cells(x, y)
        high, wide = (side - self.block + 1 for side in cells.shape[-2:])
        steps = range(self.block)
        blocks = torch.cat([cells[..., i : i + high, j : j + wide] for i in steps for j in steps], dim=1)
        return normalised(blocks, self.norm)

    def cells(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradients ``[B, H, W]`` along x and y to the histogram of each cell, ``[B, O, H // cell, W // cell]``."""
        high, wide = x.shape[-2] // self.cell, x.shape[-1] // self.cell
        x, y = (each[:, : high * self.cell, : wide * self.cell] for each in (x, y))
        row, column = (torch.arange(side * self.cell, device=x.device) // self.cell for side in (high, wide))
        place = self._bins(x, y) * (high * wide) + (row[:, None] * wide + column)  # [B, H, W]
        votes = x.new_zeros(x.shape[0], self.orientations * high * wide)
        votes = votes.scatter_add(1, place.flatten(1), squared(x, y).sqrt().flatten(1)) / self.cell**2
        return votes.view(-1, self.orientations, high, wide)

    def _bins(self, x: Tensor, y: Tensor) -> Tensor:
        """The bin ``[B, H, W]`` that each gradient points into, int64."""
        turned = (y < 0) | ((y == 0) & (x < 0))  # a direction and its opposite are one
        right, down = torch.where(turned, -x, x), y.abs()
        found = torch.zeros_like(turned, dtype=torch.uint8)
        for number in range(1, self.orientations):  # at or beyond the beginning of a bin
            found += right <= down / math.tan(math.pi * number / self.orientations)
        return found.long()

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"{self.orientations}, cell={self.cell}, block={self.block}, norm={self.norm}, root={self.root}"


def gradients(images: Tensor) -> tuple[Tensor, Tensor]:
    """Of ``[B, C, H, W]`` along x and y, each ``[B, H, W]``, of the channel where they are largest (the first)."""
    x = functional.pad(images[..., 2:] - images[..., :-2], (1, 1))
    y = functional.pad(images[..., 2:, :] - images[..., :-2, :], (0, 0, 1, 1))
    size = squared(x, y)
    best_x, best_y, best = x[:, 0], y[:, 0], size[:, 0]
    for channel in range(1, images.shape[1]):
        larger = size[:, channel] > best
        best_x, best_y = torch.where(larger, x[:, channel], best_x), torch.where(larger, y[:, channel], best_y)
        best = torch.maximum(best, size[:, channel])
    return best_x, best_y


def squared(x: Tensor, y: Tensor) -> Tensor:
    """Length of a gradient, squared."""
    return x * x + y * y


def normalised(blocks: Tensor, norm: Norm) -> Tensor:
    """Blocks ``[B, N, ...]`` over their N numbers, none of them negative."""

    def l1(x: Tensor) -> Tensor:
        return x / (x.sum(dim=1, keepdim=True) + EPSILON)

    def l2(x: Tensor) -> Tensor:
        return x / ((x * x).sum(dim=1, keepdim=True) + EPSILON**2).sqrt()

    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "l1": l1,
        "l1_sqrt": lambda x: l1(x).sqrt(),
        "l2": l2,
        "l2_hys": lambda x: l2(l2(x).clamp(max=0.2)),
    }
    return ways[norm](blocks)

"""The grid of a level: boxes around each of its cells. Priors are made of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torso.structures import Priors


def pair(stride: int | tuple[int, int]) -> tuple[int, int]:
    """A stride as (height, width)."""
    return (stride, stride) if isinstance(stride, int) else (stride[0], stride[1])


def around_cells(
    cells: Sequence[Tensor], strides: Sequence[tuple[int, int]], sizes: Sequence[tuple[int, int]], offset: float
) -> Priors:
    """Boxes around every cell.

    Args:
        cells: ``[A, 4]`` of each level, ``xyxy`` pixels relative to the cell's centre.
        strides: (height, width) of a cell in pixels.
        sizes: (height, width) of each level in cells.
        offset: where in a cell its centre is, in strides.
    """
    boxes, steps = [], []
    for cell, (down, right), (height, width) in zip(cells, strides, sizes, strict=True):
        y = (torch.arange(height, device=cell.device, dtype=cell.dtype) + offset) * down
        x = (torch.arange(width, device=cell.device, dtype=cell.dtype) + offset) * right
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centre = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1)  # [H, W, 4]
        boxes.append((centre[:, :, None] + cell).reshape(-1, 4))
        count = height * width * len(cell)
        # No tensor is made of the two numbers: a GPU would have to wait for it.
        steps.append(torch.stack([cell.new_full((count,), float(right)), cell.new_full((count,), float(down))], dim=1))
    return Priors(torch.cat(boxes), torch.cat(steps))

"""Priors: where a dense head looks. Anchors here; points and grids are other members of the role.

A prior generator has ``per_cell`` (priors a cell of the feature map) and is called with the sizes ``[(h, w), ...]`` of
the levels; it returns ``priors [P, 4]`` (``xyxy`` pixels), level after level, row-major, the priors of a cell together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Prior(Protocol):
    """The contract of this role."""

    per_cell: int

    def __call__(self, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """``priors [P, 4]`` of levels of these (height, width)."""
        ...


class Anchors(nn.Module):
    """Boxes of several sizes and shapes around every cell.

    The anchor of ratio ``r`` (height / width) and size ``s`` has sides ``s / sqrt(r)`` and ``s * sqrt(r)``; the sizes
    of a level are ``scale * stride * 2 ** (i / octaves)``. With ``rounded`` corners and ``offset`` 0 the anchors are
    those of Detectron and torchvision; with ``offset`` 0.5 they sit in the middle of their cell.

    Args:
        strides: pixels between cells, a level each (wired).
        scale: size of the smallest anchor of a level, in strides.
        octaves: anchor sizes an octave.
        ratios: heights divided by widths.
        offset: where in a cell the anchors are centred, in strides.
        rounded: round the corners of the anchors to whole pixels.
        sizes: the sizes in pixels of each level, instead of ``scale`` and ``octaves``: ``[[8, 10], [16, 20]]``.

    Source: Faster R-CNN, 2015, arXiv:1506.01497; octaves from RetinaNet, 2017, arXiv:1708.02002
    """

    def __init__(
        self,
        strides: Sequence[int],
        scale: float = 4.0,
        octaves: int = 3,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        offset: float = 0.0,
        rounded: bool = True,
        sizes: Sequence[Sequence[float]] | None = None,
    ):
        super().__init__()
        if sizes is None:
            sizes = [[scale * stride * 2 ** (i / octaves) for i in range(octaves)] for stride in strides]
        if len(sizes) != len(strides) or len({len(level) for level in sizes}) != 1:
            raise ValueError(f"anchors need as many sizes on each of the {len(strides)} levels, got sizes={sizes!r}")
        self.strides, self.offset = list(strides), offset
        self.per_cell = len(sizes[0]) * len(ratios)
        shapes = torch.tensor(list(ratios)).sqrt()  # [R]
        for level, level_sizes in enumerate(sizes):
            size = torch.tensor([float(s) for s in level_sizes])  # [S]
            width = (size[None] / shapes[:, None]).flatten()  # [R * S], sizes together within a ratio
            height = (size[None] * shapes[:, None]).flatten()
            cell = torch.stack([-width, -height, width, height], dim=1) / 2
            self.register_buffer(f"cell{level}", cell.round() if rounded else cell, persistent=False)

    def forward(self, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Anchors ``[P, 4]`` of levels of these (height, width)."""
        levels = []
        for level, (height, width) in enumerate(sizes):
            cell: Tensor = getattr(self, f"cell{level}")  # [A, 4]
            stride = self.strides[level]
            y = (torch.arange(height, device=cell.device, dtype=cell.dtype) + self.offset) * stride
            x = (torch.arange(width, device=cell.device, dtype=cell.dtype) + self.offset) * stride
            grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
            centre = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1)  # [H, W, 4]
            levels.append((centre[:, :, None] + cell).reshape(-1, 4))
        return torch.cat(levels)


PRIORS = {"anchors": Anchors}

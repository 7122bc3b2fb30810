"""Priors: where a dense head looks.

A prior generator is constructed with the ``strides`` of the levels, each a number of pixels or a pair (height, width),
and has ``per_cell``: how many priors a cell of each level has. Called with the sizes ``[(h, w), ...]`` of the levels it
returns `torso.structures.Priors`, level after level, row-major, the priors of a cell together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from torso.boxes.cells import around_cells, pair
from torso.boxes.clusters import Grid, KMeans
from torso.boxes.default_boxes import DefaultBoxes, HandPicked
from torso.boxes.points import Points
from torso.structures import Priors

__all__ = ["PRIORS", "Anchors", "Points", "Prior", "around_cells", "pair"]


class Prior(Protocol):
    """The contract of this role."""

    per_cell: list[int]

    def __call__(self, sizes: Sequence[tuple[int, int]]) -> Priors:
        """The priors of levels of these (height, width)."""
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
        strides: Sequence[int | tuple[int, int]],
        scale: float = 4.0,
        octaves: int = 3,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        offset: float = 0.0,
        rounded: bool = True,
        sizes: Sequence[Sequence[float]] | None = None,
    ):
        super().__init__()
        self.strides = [pair(stride) for stride in strides]
        if sizes is None:
            steps = [math.sqrt(height * width) for height, width in self.strides]
            sizes = [[scale * stride * 2 ** (i / octaves) for i in range(octaves)] for stride in steps]
        if len(sizes) != len(strides) or len({len(level) for level in sizes}) != 1:
            raise ValueError(f"anchors need as many sizes on each of the {len(strides)} levels, got sizes={sizes!r}")
        self.offset = offset
        self.per_cell = [len(sizes[0]) * len(ratios)] * len(strides)
        shapes = torch.tensor(list(ratios)).sqrt()  # [R]
        for level, level_sizes in enumerate(sizes):
            size = torch.tensor([float(s) for s in level_sizes])  # [S]
            width = (size[None] / shapes[:, None]).flatten()  # [R * S], sizes together within a ratio
            height = (size[None] * shapes[:, None]).flatten()
            cell = torch.stack([-width, -height, width, height], dim=1) / 2
            self.register_buffer(f"cell{level}", cell.round() if rounded else cell, persistent=False)

    def forward(self, sizes: Sequence[tuple[int, int]]) -> Priors:
        """Anchors of levels of these (height, width)."""
        cells: list[Tensor] = [getattr(self, f"cell{level}") for level in range(len(self.strides))]  # each [A, 4]
        return around_cells(cells, self.strides, sizes, self.offset)


PRIORS: dict[str, type[nn.Module]] = {
    "anchors": Anchors,
    "default_boxes": DefaultBoxes,
    "grid": Grid,
    "hand_picked": HandPicked,
    "kmeans": KMeans,
    "points": Points,
}

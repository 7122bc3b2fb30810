"""The levels that regions are cut out of: as the rows of one table, and which of them a box is looked at on.

All boxes of all levels are then one sum over rows of one table (an embedding bag), which on a CPU takes a fraction of
the time of a kernel that walks over channels, level by level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from torso.boxes.convert import area
from torso.structures import Features


class Grid(NamedTuple):
    """The map that each box is looked at on, each ``[B, R]``."""

    before: Tensor  # int32: cells in the table before its level
    picture: Tensor  # int32: cells before its picture on that level
    height: Tensor  # int32
    width: Tensor  # int32
    boxes: Tensor  # [B, R, 4] in cells of that level


class Levels:
    """What regions are looked at on.

    Args:
        strides: of all levels, the finest first.
        count: how many of them regions are cut out of, the finest first; all of them when None.
        canonical: side in pixels of a box that belongs on the level of ``canonical_stride``.
        canonical_stride: of that level, which need not exist.

    Raises:
        ValueError: cells that are no squares, or no such count.
    """

    def __init__(self, strides: Sequence[int], count: int | None, canonical: float, canonical_stride: int):
        if not all(isinstance(stride, int) for stride in strides):
            raise ValueError(f"regions are cut out of levels with square cells, got strides {list(strides)}")
        if count is not None and not 1 <= count <= len(strides):
            raise ValueError(f"regions are cut out of 1 to {len(strides)} levels, got levels={count}")
        if canonical <= 0 or canonical_stride < 1:
            raise ValueError(f"sizes are positive, got {canonical} on the level of stride {canonical_stride}")
        self.strides = list(strides)[:count]
        self.canonical, self.at = canonical, math.log2(canonical_stride / strides[0])

    def grid(self, features: Features, boxes: Tensor, border: int = 0) -> Grid:
        """Where ``boxes [B, R, 4]`` lie, in a table of maps that have so many rows and columns more."""
        level = level_of(boxes.detach(), len(self.strides), self.canonical, self.at)  # [B, R]
        first, columns = 0, []
        for x, size in zip(features, self.strides, strict=False):
            rows, row = x.shape[-2:]
            each = (rows + border) * (row + border)
            columns.append((first, each, rows, row, size))
            first += x.shape[0] * each  # len() would be a constant under torch.export
        found = [torch.full_like(level, number, dtype=torch.int32) for number in columns[0]]
        for number, column in enumerate(columns[1:], start=1):
            found = [torch.where(level == number, value, old) for value, old in zip(column, found, strict=True)]
        before, cells, height, width, stride = found
        picture = torch.arange(boxes.shape[0], device=boxes.device, dtype=torch.int32)[:, None] * cells
        return Grid(before, picture, height, width, boxes / stride[..., None].to(boxes.dtype))

    def maps(self, features: Features) -> list[Tensor]:
        """The levels that are looked at, channels last: ``[B, H, W, C]``."""
        return [x.permute(0, 2, 3, 1) for x in features[: len(self.strides)]]


def level_of(boxes: Tensor, levels: int, canonical: float = 224.0, at: float = 2) -> Tensor:
    """The level on which a box is looked at: a box of twice the side one level coarser.

    ``boxes [..., 4]`` in pixels to numbers of levels ``[...]``, int64; boxes without area belong on the finest.

    Args:
        boxes: ``xyxy`` pixels.
        levels: how many there are, >= 1, the finest first.
        canonical: side in pixels of a box that belongs on level ``at``, > 0.
        at: number of that level; 2 is stride 16 where the finest is stride 4.

    Source: Feature Pyramid Networks, 2016, arXiv:1612.03144, equation 1 (torchvision's LevelMapper)
    """
    side = area(boxes).sqrt() / canonical
    level = (at + side.clamp(min=torch.finfo(side.dtype).tiny).log2() + 1e-6).floor()
    # What is no number fails every comparison.
    return torch.where(level > 0, level.clamp(max=levels - 1), 0).long()


def weighted_rows(table: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Sums of rows: ``table [T, C]`` at ``rows [N, K]``, each times ``weight [N, K]``, to ``[N, C]``."""
    exact = precise(table)
    weight = weight.to(exact.dtype)
    if not torch.compiler.is_exporting():
        found = functional.embedding_bag(rows, exact, mode="sum", per_sample_weights=weight)
        return found.to(table.dtype)
    # Runtimes know no such sum: one row of each after the other, so that never K times the answer is in memory.
    rows = rows.long()  # nor 32 bits for places
    found = exact[rows[:, 0]] * weight[:, :1]
    for number in range(1, rows.shape[1]):
        found = found + exact[rows[:, number]] * weight[:, number : number + 1]
    return found.to(table.dtype)


def precise(table: Tensor) -> Tensor:
    """What many regions teach one cell is summed: in bfloat16 a 1 vanishes beside 256."""
    return table if table.dtype.itemsize >= 4 else table.float()

"""RoI Align: bilinear samples inside of each box, nothing rounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from torso.boxes.roi_levels import Grid, Levels, weighted_rows
from torso.structures import Features


class RoIAlign(nn.Module):
    """Bilinear samples on a regular grid inside of each box, ``ratio x ratio`` a bin; their mean, or their largest.

    ``features [B, C, H, W]`` of each level and ``boxes [B, R, 4]`` to ``[B, R, C, size, size]``. The number of samples
    is fixed: torchvision's choice by the size of a box (``sampling_ratio=0``) would be a loop that depends on data.

    Args:
        strides: of the levels (wired).
        size: bins along each side, >= 1.
        ratio: samples of a bin along each side, >= 1; torchvision's detectors take 2.
        aligned: subtract half a cell, so that nothing is shifted (Detectron2); without, a box lies half a cell too far
            right and down and is at least a cell large, as in Mask R-CNN's first code and torchvision's detectors.
        reduce: ``"mean"`` (Mask R-CNN's code, torchvision) or ``"max"`` of a bin's samples (as some describe it).
        levels: how many levels regions are cut out of, the finest first (Mask R-CNN: 4 of 5); all of them when None.
        canonical: side in pixels of a box that belongs on the level of ``canonical_stride``.
        canonical_stride: of that level.

    Raises:
        ValueError: no bins or samples, or levels that are not there.

    Source: Mask R-CNN, 2017, arXiv:1703.06870
    """

    def __init__(
        self,
        strides: Sequence[int],
        size: int = 7,
        ratio: int = 2,
        aligned: bool = False,
        reduce: Literal["mean", "max"] = "mean",
        levels: int | None = None,
        canonical: float = 224.0,
        canonical_stride: int = 16,
    ):
        super().__init__()
        if size < 1 or ratio < 1:
            raise ValueError(f"size and ratio are 1 or more, got size={size}, ratio={ratio}")
        self.size, self.ratio, self.aligned, self.reduce = size, ratio, aligned, reduce
        self.levels = Levels(strides, levels, canonical, canonical_stride)

    def forward(self, features: Features, boxes: Tensor) -> Tensor:
        """Features of ``boxes [B, R, 4]``: ``[B, R, C, size, size]``."""
        batch, count = boxes.shape[:2]
        rows, weight = samples(self.levels.grid(features, boxes), self.size, self.ratio, self.aligned)
        # A row a cell, level after level; free of a copy where one level is channels-last.
        maps = self.levels.maps(features)
        table = torch.cat([x.reshape(-1, x.shape[-1]) for x in maps])
        bins = batch * count * self.size**2
        if self.reduce == "mean":
            found = weighted_rows(table, rows.reshape(bins, -1), weight.reshape(bins, -1) / self.ratio**2)
        else:
            each = weighted_rows(table, rows.reshape(-1, 4), weight.reshape(-1, 4))
            found = each.view(bins, self.ratio**2, -1).amax(dim=1)
        return found.view(batch, count, self.size, self.size, -1).permute(0, 1, 4, 2, 3)


def samples(grid: Grid, size: int, ratio: int, aligned: bool) -> tuple[Tensor, Tensor]:
    """The four cells around each sample, as rows of the table, and their weights: ``[B, R, size, size, r * r * 4]``.

    They are sums and products of what lies along each side, so only two steps see all of them.
    """
    place = grid.boxes - (0.5 if aligned else 0.0)
    least = 0 if aligned else 1
    row, share_y = _along(place[..., 1], place[..., 3], grid.height, size, ratio, least)  # [B, R, size, r, 2]
    column, share_x = _along(place[..., 0], place[..., 2], grid.width, size, ratio, least)
    row = row * grid.width[..., None, None, None] + (grid.before + grid.picture)[..., None, None, None]
    tall, wide = (size, ratio, 1, 2, 1), (size, 1, ratio, 1, 2)
    every = (*row.shape[:3], ratio, ratio, 2, 2)  # repeated along the other side: long rows are added faster

    def along(x: Tensor, form: tuple[int, ...]) -> Tensor:
        return x.reshape(*x.shape[:2], *form).expand(every).flatten(3)

    rows = along(row, tall)[:, :, :, None] + along(column, wide)[:, :, None]
    weight = along(share_y, tall)[:, :, :, None] * along(share_x, wide)[:, :, None]
    return rows, weight


def _along(low: Tensor, high: Tensor, side: Tensor, size: int, ratio: int, least: int) -> tuple[Tensor, Tensor]:
    """The two cells beside each sample along one side, int32, and their shares: ``[B, R, size, ratio, 2]``."""
    length = (high - low).clamp(min=least) if least else high - low
    steps = (torch.arange(size * ratio, device=low.device, dtype=low.dtype) + 0.5) / (size * ratio)
    at = low[..., None] + steps * length[..., None]  # [B, R, size * ratio]
    last = side[..., None] - 1
    there = (at >= -1) & (at <= last + 1)  # farther outside there is nothing
    at = torch.minimum(torch.where(there, at, 0.0).clamp(min=0), last.to(at.dtype))
    cell = at.detach().floor()
    share = at - cell
    cell = cell.int()
    cells = torch.stack([cell, torch.minimum(cell + 1, last)], dim=-1)
    shares = torch.stack([1 - share, share], dim=-1) * there[..., None]
    form = (*low.shape, size, ratio, 2)
    return cells.view(form), shares.view(form)

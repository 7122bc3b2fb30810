"""Position-sensitive regions: every bin looks at maps of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.boxes.roi_align import samples
from torso.boxes.roi_levels import Grid, Levels, weighted_rows
from torso.boxes.roi_pool import bins
from torso.structures import Features


class PositionSensitive(nn.Module):
    """The mean of each bin, of maps that only this bin looks at: the first of a class knows top left corners of it.

    ``features [B, C * size * size, H, W]`` of each level, the maps of a channel together, row-major, and
    ``boxes [B, R, 4]`` to ``[B, R, C, size, size]``. The mean is that of the whole cells of a rounded bin (R-FCN), 0
    where it has none, or of bilinear samples (Light-Head R-CNN), taken where they are (``aligned`` of
    `torso.boxes.roi`). All cells of a map count; torchvision's ps_roi_pool leaves out its last row and column, but not
    in its gradient.

    Args:
        strides: of the levels (wired).
        size: bins along each side, >= 1.
        reduce: ``"pool"`` or ``"align"``.
        ratio: samples of a bin along each side where it is aligned, >= 1.
        levels: how many levels regions are cut out of, the finest first; all of them when None.
        canonical: side in pixels of a box that belongs on the level of ``canonical_stride``.
        canonical_stride: of that level.

    Raises:
        ValueError: no bins or samples, levels that are not there, or maps that cannot be divided among the bins.

    Source: R-FCN, 2016, arXiv:1605.06409 (torchvision's ps_roi_pool and ps_roi_align)
    """

    def __init__(
        self,
        strides: Sequence[int],
        size: int = 7,
        reduce: Literal["pool", "align"] = "pool",
        ratio: int = 2,
        levels: int | None = None,
        canonical: float = 224.0,
        canonical_stride: int = 16,
    ):
        super().__init__()
        if size < 1 or ratio < 1:
            raise ValueError(f"size and ratio are 1 or more, got size={size}, ratio={ratio}")
        self.size, self.reduce, self.ratio = size, reduce, ratio
        self.levels = Levels(strides, levels, canonical, canonical_stride)

    def forward(self, features: Features, boxes: Tensor) -> Tensor:
        """Features of ``boxes [B, R, 4]``: ``[B, R, C, size, size]``."""
        grid = self.levels.grid(features, boxes, border=int(self.reduce == "pool"))
        maps = [self._by_bin(x) for x in self.levels.maps(features)]  # [B, H, W, S * S, C]
        found = self._aligned(maps, grid) if self.reduce == "align" else self._pooled(maps, grid)
        found = found.view(*boxes.shape[:2], self.size, self.size, -1)
        return found.permute(0, 1, 4, 2, 3)

    def _by_bin(self, x: Tensor) -> Tensor:
        if x.shape[-1] % self.size**2:
            raise ValueError(
                f"{x.shape[-1]} maps cannot be divided among {self.size} x {self.size} bins: position-sensitive "
                "regions want a head that makes maps for them, such as rfcn"
            )
        return x.reshape(*x.shape[:3], -1, self.size**2).transpose(-1, -2)

    def _of_bin(self, rows: Tensor) -> Tensor:
        """Rows of cells ``[B, R, size, size, K]`` as rows of the maps of each bin: ``[B * R * size * size, K]``."""
        number = torch.arange(self.size**2, device=rows.device, dtype=rows.dtype)[:, None]
        return (rows.flatten(2, 3) * self.size**2 + number).flatten(0, 2)

    def _aligned(self, maps: list[Tensor], grid: Grid) -> Tensor:
        rows, weight = samples(grid, self.size, self.ratio, aligned=True)
        table = torch.cat([x.reshape(-1, x.shape[-1]) for x in maps])
        rows = self._of_bin(rows)
        return weighted_rows(table, rows, weight.reshape(rows.shape) / self.ratio**2)

    def _pooled(self, maps: list[Tensor], grid: Grid) -> Tensor:
        """By sums from the first cell on: that of any rectangle is a difference of four of them."""
        # Differences of large sums: in float64 they are as exact as the sum of a bin in float32.
        sums = [functional.pad(x.double().cumsum(1).cumsum(2), (0, 0, 0, 0, 1, 0, 1, 0)) for x in maps]
        table = torch.cat([x.reshape(-1, x.shape[-1]) for x in sums])
        y, x = bins(grid, self.size, last=0)
        start, width = grid.before + grid.picture, grid.width + 1
        row = torch.stack([y.low, y.high], dim=-1) * width[..., None, None] + start[..., None, None]  # [B, R, size, 2]
        column = torch.stack([x.low, x.high], dim=-1)
        rows = self._of_bin((row[:, :, :, None, :, None] + column[:, :, None, :, None, :]).flatten(4))
        count = (y.high - y.low)[..., :, None] * (x.high - x.low)[..., None, :]  # [B, R, size, size]
        there = y.there[..., :, None] & x.there[..., None, :]
        share = torch.where(there, 1.0 / count.double(), 0.0)
        sign = share.new_tensor([1.0, -1.0, -1.0, 1.0])
        found = weighted_rows(table, rows, (share[..., None] * sign).flatten(0, -2))
        return found.to(maps[0].dtype)

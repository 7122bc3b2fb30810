"""Regions of interest: features of any number of boxes at one size.

A part of this role is constructed with the ``strides`` of the levels (wired) and called with the features of all levels
and ``boxes [B, R, 4]`` (``xyxy`` pixels of the network's input; rows of padding are boxes without area); it returns
``[B, R, C, size, size]``. The number of boxes is fixed, so nothing depends on data but values.

Where a box lies on its map: ``aligned`` subtracts half a cell, so that the centre of the first cell, at 0.5, is the
number of the first row (Detectron2, `torchvision.ops.roi_align(aligned=True)`); without, a box is half a cell too far
right and down, as in Mask R-CNN's first code and torchvision's detectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.boxes.convert import area
from torso.structures import Features


class RoI(Protocol):
    """The contract of this role."""

    size: int

    def __call__(self, features: Features, boxes: Tensor) -> Tensor:
        """Features of ``boxes [B, R, 4]``: ``[B, R, C, size, size]``."""
        ...


def level_of(boxes: Tensor, levels: int, canonical: float = 224.0, at: int = 2) -> Tensor:
    """The level ``[...]`` on which a box ``[..., 4]`` is looked at: twice the side, one level coarser.

    Args:
        boxes: ``xyxy`` pixels.
        levels: how many there are, the finest first.
        canonical: side in pixels of a box that belongs on level ``at``.
        at: index of that level; 2 is stride 16 where the finest is stride 4.

    Source: Feature Pyramid Networks, 2016, arXiv:1612.03144, equation 1 (torchvision's LevelMapper)
    """
    side = area(boxes).clamp(min=0).sqrt()
    level = (at + (side / canonical).clamp(min=torch.finfo(side.dtype).tiny).log2() + 1e-6).floor()
    return level.clamp(0, levels - 1).long()


class RoIAlign(nn.Module):
    """Bilinear samples on a regular grid inside of each box, ``ratio x ratio`` a bin; their mean, or their largest.

    All boxes of all levels are one sum over rows of one table (an embedding bag), which on a CPU takes a fraction of
    the time of a kernel that walks over channels.

    Args:
        strides: of the levels (wired).
        size: bins along each side.
        ratio: samples of a bin along each side; torchvision's detectors take 2.
        aligned: subtract half a cell, see above.
        reduce: ``"mean"`` (Mask R-CNN's code, torchvision) or ``"max"`` of a bin's samples (as some describe it).
        canonical: side in pixels of a box that belongs on level ``canonical_level``.
        canonical_level: index of that level.

    Raises:
        ValueError: no bins or samples.

    Source: Mask R-CNN, 2017, arXiv:1703.06870
    """

    def __init__(
        self,
        strides: Sequence[int],
        size: int = 7,
        ratio: int = 2,
        aligned: bool = False,
        reduce: Literal["mean", "max"] = "mean",
        canonical: float = 224.0,
        canonical_level: int = 2,
    ):
        super().__init__()
        if size < 1 or ratio < 1:
            raise ValueError(f"size and ratio are 1 or more, got size={size}, ratio={ratio}")
        self.strides, self.size, self.ratio = list(strides), size, ratio
        self.aligned, self.reduce = aligned, reduce
        self.canonical, self.canonical_level = canonical, canonical_level

    def forward(self, features: Features, boxes: Tensor) -> Tensor:
        """Features of ``boxes [B, R, 4]``: ``[B, R, C, size, size]``."""
        batch, count = boxes.shape[:2]
        level = level_of(boxes, len(features), self.canonical, self.canonical_level)  # [B, R]
        # A row a cell, level after level, picture after picture; free of a copy where maps are channels-last.
        table = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) for x in features])
        start, height, width, stride = self._of_level(features, level)  # each [B, R]
        picture = torch.arange(batch, device=boxes.device)[:, None]
        first = start + picture * height * width
        place = boxes / stride[..., None].to(boxes.dtype) - (0.5 if self.aligned else 0.0)
        y = self._samples(place[..., 1], place[..., 3])  # [B, R, size * ratio]
        x = self._samples(place[..., 0], place[..., 2])
        rows, weight = _taps(x, y, first, height, width)  # [B, R, n, n, 4]
        # Samples of a bin together: [B, R, size, size, ratio * ratio * 4].
        rows, weight = self._by_bin(rows), self._by_bin(weight)
        bins = (batch * count * self.size**2, -1)
        if self.reduce == "mean":
            weight = weight.reshape(bins) / self.ratio**2
            found = functional.embedding_bag(
                rows.reshape(bins), table, mode="sum", per_sample_weights=weight.to(table.dtype)
            )
        else:
            each = table[rows.reshape(-1, 4)] * weight.reshape(-1, 4, 1).to(table.dtype)
            found = each.sum(dim=1).reshape(*bins, table.shape[1]).amax(dim=1)
        return found.view(batch, count, self.size, self.size, -1).permute(0, 1, 4, 2, 3)

    def _of_level(self, features: Features, level: Tensor) -> tuple[Tensor, ...]:
        """First row in the table, height, width and stride of each box's level."""
        start, columns = 0, []
        for x, stride in zip(features, self.strides, strict=True):
            batch, _, height, width = x.shape
            columns.append((start, height, width, stride))
            start += batch * height * width
        found = [torch.zeros_like(level) for _ in range(4)]
        for number, column in enumerate(columns):
            found = [torch.where(level == number, value, old) for value, old in zip(column, found, strict=True)]
        return tuple(found)

    def _samples(self, low: Tensor, high: Tensor) -> Tensor:
        """Where the samples lie along one side, ``[B, R, size * ratio]``."""
        length = high - low
        if not self.aligned:  # a box is at least a cell
            length = length.clamp(min=1)
        count = self.size * self.ratio
        steps = (torch.arange(count, device=low.device, dtype=low.dtype) + 0.5) / count
        return low[..., None] + steps * length[..., None]

    def _by_bin(self, taps: Tensor) -> Tensor:
        batch, count = taps.shape[:2]
        taps = taps.view(batch, count, self.size, self.ratio, self.size, self.ratio, 4)
        return taps.transpose(3, 4).reshape(batch, count, self.size, self.size, -1)


def _taps(x: Tensor, y: Tensor, first: Tensor, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """The four cells around each sample, as rows of the table, and their weights: each ``[B, R, n, n, 4]``."""
    rows, weights = [], []
    for at, side in ((y, height), (x, width)):
        limit = side[..., None]
        there = (at >= -1) & (at <= limit)  # farther outside there is nothing
        place = at.clamp(min=0)
        low = torch.minimum(place.floor().long(), limit - 1)
        high = torch.minimum(low + 1, limit - 1)
        share = torch.where(low >= limit - 1, 0.0, place - low).to(place.dtype)
        rows.append(torch.stack([low, high], dim=-1))  # [B, R, n, 2]
        weights.append(torch.stack([1 - share, share], dim=-1) * there[..., None])
    (row_y, row_x), (weight_y, weight_x) = rows, weights
    cell = row_y[:, :, :, None, :, None] * width[:, :, None, None, None, None] + row_x[:, :, None, :, None, :]
    weight = weight_y[:, :, :, None, :, None] * weight_x[:, :, None, :, None, :]
    cell = cell + first[:, :, None, None, None, None]
    return cell.flatten(-2), weight.flatten(-2)


ROIS: dict[str, type[nn.Module]] = {"align": RoIAlign}

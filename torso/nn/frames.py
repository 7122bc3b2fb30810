"""Where pictures lie on maps that are padded, so that places of a picture and places of a map can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Frames(NamedTuple):
    """The cells of all levels, level after level, row after row, and where each picture lies on each of them.

    Places of a picture are 0..1 of its own width and height, wherever it lies; places of a map 0..1 of the map. Cells
    are whole, so two levels may differ by part of a cell in where a picture ends, as in the paper's code.
    """

    sizes: list[tuple[int, int]]  # height, width of every level
    valid: Tensor  # [B, S] bool: cells that are no padding
    start: Tensor  # [B, L, 2]: x, y where the picture begins, 0..1 of the map
    share: Tensor  # [B, L, 2]: width, height it takes, 0..1 of the map

    @classmethod
    def of(cls, real: Sequence[Tensor], kind: torch.dtype) -> Frames:
        """Of masks ``[B, H_i, W_i]`` that are True where the picture is: a rectangle; all of it where none is.

        Args:
            real: of every level.
            kind: floating type of the places.
        """
        sizes = [(mask.shape[1], mask.shape[2]) for mask in real]
        starts, shares = [], []
        for mask in real:
            both = [_extent(mask.any(dim=axis), kind) for axis in (1, 2)]  # along x, along y
            starts.append(torch.stack([start for start, _ in both], dim=-1))
            shares.append(torch.stack([share for _, share in both], dim=-1))
        valid = torch.cat([mask.flatten(1) for mask in real], dim=1)
        return cls(sizes, valid, torch.stack(starts, dim=1), torch.stack(shares, dim=1))

    def cells(self) -> Tensor:
        """The centres of all cells as places of their picture, ``[B, S, 2]``; those of padding lie outside."""
        found = []
        for level, (height, width) in enumerate(self.sizes):
            y = (torch.arange(height, dtype=self.start.dtype, device=self.start.device) + 0.5) / height
            x = (torch.arange(width, dtype=self.start.dtype, device=self.start.device) + 0.5) / width
            centre = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).reshape(-1, 2)
            found.append((centre - self.start[:, level, None]) / self.share[:, level, None])
        return torch.cat(found, dim=1)

    def on_levels(self, places: Tensor) -> Tensor:
        """Points or boxes ``[B, Q, 2 or 4]`` of the pictures (centre, size) as places of each map, ``[B, Q, L, *]``."""
        start, share = self.start[:, None], self.share[:, None]  # [B, 1, L, 2]
        centre = start + places[:, :, None, :2] * share
        return centre if places.shape[-1] == 2 else torch.cat([centre, places[:, :, None, 2:] * share], dim=-1)


def _extent(real: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Where the True of a row ``[B, N]`` begin and how much of it they are, ``[B]`` in 0..1."""
    length = real.shape[1]
    count = real.sum(dim=1)
    before = (real.cumsum(dim=1) == 0).sum(dim=1)
    start = torch.where(count > 0, before, 0).to(kind) / length
    share = torch.where(count > 0, count, length).to(kind) / length
    return start, share

"""RoI Pooling: the largest number of each bin of whole cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.boxes.roi_levels import Grid, Levels, precise
from torso.structures import Features


class RoIPool(nn.Module):
    """The largest number of each bin, where box and bins are rounded to whole cells.

    ``features [B, C, H, W]`` of each level and ``boxes [B, R, 4]`` to ``[B, R, C, size, size]``; a bin without a cell
    is 0. A bin is four windows whose sides are powers of two, looked up among the largest numbers of all such windows,
    so its cost does not depend on the sizes of boxes; the windows take ``log2(cells)`` squared times the memory of the
    features.

    Args:
        strides: of the levels (wired).
        size: bins along each side, >= 1.
        cells: the longest bin, in cells along a side, a power of two: of a longer one the middle is not looked at. 16
            is enough for all boxes in pictures of 1680 px at stride 16 and size 7.
        levels: how many levels regions are cut out of, the finest first; all of them when None.
        canonical: side in pixels of a box that belongs on the level of ``canonical_stride``.
        canonical_stride: of that level.

    Raises:
        ValueError: no bins, a length that is no power of two, or levels that are not there.

    Source: Fast R-CNN, 2015, arXiv:1504.08083, section 2.1 (torchvision's roi_pool)
    """

    def __init__(
        self,
        strides: Sequence[int],
        size: int = 7,
        cells: int = 16,
        levels: int | None = None,
        canonical: float = 224.0,
        canonical_stride: int = 16,
    ):
        super().__init__()
        if size < 1 or cells < 2 or cells & (cells - 1):
            raise ValueError(f"size >= 1 and cells a power of two expected, got size={size}, cells={cells}")
        self.size, self.cells = size, cells
        self.windows = cells.bit_length() - 1  # sides 1, 2, ..., cells / 2: two of the longest are a bin
        self.levels = Levels(strides, levels, canonical, canonical_stride)

    def forward(self, features: Features, boxes: Tensor) -> Tensor:
        """Features of ``boxes [B, R, 4]``: ``[B, R, C, size, size]``."""
        grid, maps = self.levels.grid(features, boxes), self.levels.maps(features)
        y, x = bins(grid, self.size, last=1)
        places = self._places(grid, y, x)
        if torch.is_grad_enabled() and any(each.requires_grad for each in maps):
            # Where the largest lies is found first: then only that one is learned from, and nothing else is kept.
            cell = _largest([each.detach() for each in maps], self.windows, places, where=True)  # [N, C]
            rows = torch.cat([each.reshape(-1, each.shape[-1]) for each in maps])
            found = precise(rows).gather(0, cell.long()).to(rows.dtype)
        else:
            found = _largest(maps, self.windows, places, where=False)
        found = found.view(*boxes.shape[:2], self.size, self.size, -1)
        there = y.there[..., :, None] & x.there[..., None, :]
        return torch.where(there[..., None], found, 0.0).permute(0, 1, 4, 2, 3)

    def _places(self, grid: Grid, y: Bins, x: Bins) -> list[Tensor]:
        """The rows of the four windows of each bin, each ``[B * R * size * size]`` int64.

        Rows are those of windows, of pictures, of cells; a level has as many for each cell as there are windows.
        """
        (tall, high), (wide, broad) = self._window(y), self._window(x)  # each [B, R, size]
        before = grid.before * self.windows**2 + grid.picture
        window = (tall[..., :, None] * self.windows + wide[..., None, :]) * y.low.shape[0]  # [B, R, size, size]
        start = before[..., None, None] + window * (grid.height * grid.width)[..., None, None]
        found = []
        for row in (y.low, y.high - high):
            for column in (x.low, x.high - broad):
                at = start + (row * grid.width[..., None])[..., :, None] + column[..., None, :]
                found.append(at.flatten().long())
        return found

    def _window(self, along: Bins) -> tuple[Tensor, Tensor]:
        """The window that is at most as long as a bin, and at least half as long: its number, and its side."""
        length = along.high - along.low
        number, side = torch.zeros_like(length), torch.ones_like(length)
        for k in range(1, self.windows):
            longer = (length >= 2**k).int()
            number, side = number + longer, side + longer * 2 ** (k - 1)
        return number, side


class Bins(NamedTuple):
    """Whole cells along one side, each ``[B, R, size]`` int32; one cell where a bin holds none."""

    low: Tensor
    high: Tensor  # the first cell behind
    there: Tensor  # bool: it holds any


def bins(grid: Grid, size: int, last: int) -> tuple[Bins, Bins]:
    """The cells of each bin along y and x: a rounded box in equal parts, which overlap where it cannot be divided.

    Args:
        grid: the boxes.
        size: bins along each side.
        last: 1 where the cell that the far side of a box was rounded to is inside, 0 where it is outside.
    """
    place = rounded(grid.boxes).clamp(-(2.0**24), 2.0**24)  # whole numbers are exact so far
    place = torch.where(place.isfinite(), place, 0.0)
    y = _cut(place[..., 1], (place[..., 3] - place[..., 1] + last).clamp(min=1), grid.height, size)
    x = _cut(place[..., 0], (place[..., 2] - place[..., 0] + last).clamp(min=1), grid.width, size)
    return y, x


def _cut(start: Tensor, length: Tensor, side: Tensor, size: int) -> Bins:
    number = torch.arange(size, device=start.device, dtype=start.dtype)
    step = (length / size)[..., None]
    low = start[..., None] + (number * step).floor()
    high = start[..., None] + ((number + 1) * step).ceil()
    end = side[..., None].to(low.dtype)
    low, high = (torch.minimum(each.clamp(min=0), end).int() for each in (low, high))
    there = high > low
    low = torch.where(there, low, 0)
    return Bins(low, torch.where(there, high, 1), there)


def rounded(x: Tensor) -> Tensor:
    """To whole numbers, halves away from 0 as C's ``round`` (torch's goes to the even one)."""
    whole = x.trunc()
    return whole + torch.where((x - whole).abs() >= 0.5, x.sign(), 0.0)


def _largest(maps: list[Tensor], windows: int, places: list[Tensor], where: bool) -> Tensor:
    """The largest numbers at four windows, or the cells where they lie: ``[N, C]``.

    Args:
        maps: of the levels, ``[B, H, W, C]``.
        windows: how many lengths there are.
        places: rows of windows of all levels, each ``[N]``.
        where: the cells, int32, counted through all maps.
    """
    of_windows, first = [], 0
    for x in maps:
        cell = None
        if where:
            count = x.shape[0] * x.shape[1] * x.shape[2]
            cell = torch.arange(count, dtype=torch.int32, device=x.device) + first
            cell, first = cell.view(*x.shape[:3], 1).expand_as(x), first + count
        of_windows += _of_windows(x, cell, windows)
    table = torch.cat([value.reshape(-1, value.shape[-1]) for value, _ in of_windows])
    found = table[places[0]]
    if not where:
        for place in places[1:]:
            found = torch.maximum(found, table[place])
        return found
    lie = torch.cat([at.reshape(-1, at.shape[-1]) for _, at in of_windows if at is not None])
    cell = lie[places[0]]
    for place in places[1:]:
        other = table[place]
        larger = other > found
        found, cell = torch.where(larger, other, found), torch.where(larger, lie[place], cell)
    return cell


Window = tuple[Tensor, Tensor | None]
"""The largest numbers of windows that begin at each cell, and the cells where they lie, ``[B, H, W, C]``."""


def _of_windows(x: Tensor, cell: Tensor | None, windows: int) -> list[Window]:
    """All of them, those of one height together."""

    def longer(now: Window, step: int, dim: int) -> Window:
        value, at = now
        further = _shifted(value, step, dim)
        if at is None:
            return torch.maximum(value, further), None
        nearer = value >= further
        return torch.where(nearer, value, further), torch.where(nearer, at, _shifted(at, step, dim))

    now: Window = (x, cell)
    found = []
    for tall in range(windows):
        now = longer(now, 2 ** (tall - 1), 1) if tall else now
        each = now
        for wide in range(windows):
            each = longer(each, 2 ** (wide - 1), 2) if wide else each
            found.append(each)
    return found


def _shifted(x: Tensor, step: int, dim: int) -> Tensor:
    """``[B, H, W, C]`` with each cell's number that of one so many steps below or right of it."""
    padding = (0, 0, 0, 0, 0, step) if dim == 1 else (0, 0, 0, step)
    return functional.pad(x, padding).narrow(dim, step, x.shape[dim])

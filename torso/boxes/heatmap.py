"""Heatmaps of keypoints: what they should say, where they peak, and the grids they lie on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from torso.boxes.cells import pair

# Objects drawn at a time: however crowded a picture is, at most 4 tables of B x CHUNK x H x W numbers live at once.
CHUNK = 16


def gaussian_radius(sides: Tensor, overlap: float) -> Tensor:
    """How far the corners of a box may move so that it still overlaps itself by ``overlap``, ``[..., 2]`` to ``[...]``.

    Of a box w x h that is moved by r along both axes, the smallest of three radii: one corner goes in and one out,
    ``(w - r)(h - r) / (2 w h - (w - r)(h - r))``; both go in, ``(w - 2 r)(h - 2 r) / (w h)``; both go out,
    ``w h / ((w + 2 r)(h + 2 r))``; each is solved for an IoU of ``overlap``. Sources disagree: the code of CornerNet
    and of CenterNet (points) divides by 2 where the equation wants 2 a (a is 1, 4 and 4 * overlap), and takes the
    larger root of the first, so that its radii are others; these are the roots of the equations, as in its authors'
    later CornerNet-Lite.

    Args:
        sides: widths and heights, in cells.
        overlap: the IoU, above 0, at most 1.

    Source: CornerNet, 2018, arXiv:1808.01244, section 3.2; CornerNet-Lite, 2019, arXiv:1904.08900
    """
    sides = sides.clamp(min=0)
    total, size = sides.sum(dim=-1), sides.prod(dim=-1)

    def root(square: Tensor) -> Tensor:
        return square.clamp(min=0).sqrt()

    across = (total - root(total**2 - 4 * size * (1 - overlap) / (1 + overlap))) / 2
    inwards = (total - root(total**2 - 4 * size * (1 - overlap))) / 4
    outwards = (root((overlap * total) ** 2 + 4 * overlap * (1 - overlap) * size) - overlap * total) / (4 * overlap)
    return torch.minimum(torch.minimum(across, inwards), outwards)


def cells_of(points: Tensor, stride: float | Tensor, grid: tuple[int, int]) -> Tensor:
    """The cells (x, y) ``[..., 2]`` int64 that hold ``points [..., 2]`` in pixels, or are the nearest to them.

    Args:
        points: (x, y).
        stride: pixels between cells, one number or ``[2]``.
        grid: height, width in cells.
    """
    x, y = (points / stride).floor().long().unbind(dim=-1)
    return torch.stack([x.clamp(min=0, max=grid[1] - 1), y.clamp(min=0, max=grid[0] - 1)], dim=-1)


def splat(cells: Tensor, radius: Tensor, labels: Tensor, there: Tensor, classes: int, grid: tuple[int, int]) -> Tensor:
    """A Gaussian around the cell of every object, the largest value where they meet: ``[B, C, H, W]`` in 0..1.

    Its deviation is (2 r + 1) / 6, and it is cut off beyond r cells along either axis, as in the authors' code; the
    paper says r / 3, which is 0 for small objects. The cell itself is exactly 1.

    Args:
        cells: (x, y), ``[B, M, 2]`` int64.
        radius: whole numbers of cells, ``[B, M]``.
        labels: ``[B, M]`` int64.
        there: ``[B, M]`` bool; others draw nothing.
        classes: C.
        grid: height H, width W in cells.

    Source: CornerNet, 2018, arXiv:1808.01244, section 3.2
    """
    heat = radius.new_zeros(cells.shape[0], classes, *grid)
    for start in range(0, cells.shape[1], CHUNK):
        rows = slice(start, start + CHUNK)
        reach = radius[:, rows, None]  # [B, m, 1]
        high, wide = (_bell(side, cells[:, rows, axis, None], reach) for side, axis in zip(grid, (1, 0), strict=True))
        high = high * there[:, rows, None]
        drawn = high.unsqueeze(-1) * wide.unsqueeze(-2)  # [B, m, H, W]
        heat = heat.scatter_reduce(1, labels[:, rows, None, None].expand_as(drawn), drawn, "amax")
    return heat


def _bell(side: int, centre: Tensor, radius: Tensor) -> Tensor:
    """The Gaussian along one axis, ``[B, m, side]``."""
    away = (torch.arange(side, device=centre.device) - centre).to(radius.dtype)
    deviation = (2 * radius + 1) / 6
    bell = (-(away**2) / (2 * deviation**2)).exp()
    return torch.where(away.abs() <= radius, bell, 0.0)


def covered(boxes: Tensor, there: Tensor, stride: float | Tensor, grid: tuple[int, int]) -> Tensor:
    """Which cells touch any of the ``boxes [B, M, 4]`` (pixels) that are ``there [B, M]``: ``[B, H, W]`` bool.

    The cells that hold its corners do, for these are where the corners of an object of that size would be.
    """
    low, high = (boxes[..., :2] / stride).floor(), (boxes[..., 2:] / stride).floor()
    rows, columns = (
        ((at >= low[..., axis, None]) & (at <= high[..., axis, None])).to(boxes.dtype)
        for axis, at in (
            (1, torch.arange(grid[0], device=boxes.device)),
            (0, torch.arange(grid[1], device=boxes.device)),
        )
    )  # [B, M, H], [B, M, W]
    return ((rows * there.unsqueeze(-1)).transpose(1, 2) @ columns) > 0


def grid_of(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width in cells of a map of ``count`` square cells over a picture of ``size`` (height, width).

    Both fall as cells grow, so that there is no other answer.

    Raises:
        ValueError: there is none.
    """
    height, width = size
    for stride in range(1, max(size) + 1):
        grid = (-(-height // stride), -(-width // stride))
        if grid[0] * grid[1] <= count:
            break
    if grid[0] * grid[1] != count:
        raise ValueError(f"no square cells cover {height}x{width} pixels with {count}")
    return grid


def peaks(scores: Tensor, window: int) -> Tensor:
    """``scores [..., H, W]`` where none within a ``window`` of cells around is higher, 0 elsewhere; equals all stay.

    Args:
        scores: at least 0.
        window: side in cells, odd.
    """
    flat = scores.flatten(0, -3) if scores.ndim > 3 else scores
    highest = functional.max_pool2d(flat, window, 1, window // 2)
    return torch.where(flat == highest, flat, 0.0).reshape(scores.shape)


def peaks_of_levels(
    scores: Tensor, counts: Sequence[int], strides: Sequence[int | tuple[int, int]], size: tuple[int, int], window: int
) -> Tensor:
    """`peaks` of every class in every level: ``[B, P, C]`` to the same.

    Args:
        scores: of all priors, level after level, row-major, the priors of a cell together.
        counts: priors of each level.
        strides: of the levels; pairs are (height, width).
        size: height, width of the network's input in pixels (which may be symbols of ``torch.export``).
        window: side in cells, odd.
    """
    found = []
    for level, (down, right) in zip(torch.split(scores, list(counts), 1), map(pair, strides), strict=True):
        batch, count, classes = level.shape
        height, width = -(-size[0] // down), -(-size[1] // right)
        # [B, H*W*A, C] -> [B, A*C, H, W] and back
        maps = level.reshape(batch, height, width, count // (height * width) * classes).permute(0, 3, 1, 2)
        found.append(peaks(maps, window).permute(0, 2, 3, 1).reshape(batch, count, classes))
    return torch.cat(found, dim=1)

"""Priors whose shapes are written down: hand-picked ones, and SSD's default boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torso.boxes.cells import around_cells, pair
from torso.structures import Priors

Shapes = Sequence[tuple[float, float]]


class HandPicked(nn.Module):
    """Boxes of given widths and heights around every cell, on each level its own.

    Args:
        strides: pixels between cells, a level each (wired).
        shapes: (width, height) in pixels of the boxes of each level, ``[[[10, 13], [16, 30]], [[62, 45]]]``; one
            square of four strides on each level when None.
        offset: where in a cell the boxes are centred, in strides.

    Raises:
        ValueError: not a list of shapes a level, or a side that is not above 0.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325; Faster R-CNN, 2015, arXiv:1506.01497
    """

    def __init__(
        self,
        strides: Sequence[int | tuple[int, int]],
        shapes: Sequence[Sequence[tuple[float, float]]] | None = None,
        offset: float = 0.5,
    ):
        super().__init__()
        self.strides = [pair(stride) for stride in strides]
        if shapes is None:
            shapes = [[(4.0 * side, 4.0 * side)] for side in _sides(self.strides)]
        if len(shapes) != len(self.strides) or not all(shapes):
            raise ValueError(
                f"hand_picked needs shapes for each of the {len(self.strides)} levels of strides {list(strides)}, got "
                f"{len(shapes)} lists of {[len(level) for level in shapes]} shapes"
            )
        self.offset = offset
        self.per_cell = [len(level) for level in shapes]
        for level, sides in enumerate(shapes):
            if any(side <= 0 for shape in sides for side in shape):
                raise ValueError(f"the sides of boxes are above 0, got {list(sides)} on level {level}")
            half = torch.tensor([[float(width), float(height)] for width, height in sides]) / 2
            self.register_buffer(f"cell{level}", torch.cat([-half, half], dim=1), persistent=False)

    def forward(self, sizes: Sequence[tuple[int, int]]) -> Priors:
        """Boxes of levels of these (height, width)."""
        cells: list[Tensor] = [getattr(self, f"cell{level}") for level in range(len(self.strides))]  # each [A, 4]
        return around_cells(cells, self.strides, sizes, self.offset)


class DefaultBoxes(HandPicked):
    """SSD's default boxes: two squares and two boxes for each ratio on every level.

    The squares of level k have sides ``sizes[k]`` and ``sqrt(sizes[k] * sizes[k + 1])``; a ratio r makes boxes of
    ``sizes[k]`` times sqrt(r) and 1 / sqrt(r), lying and standing.

    Args:
        strides: pixels between cells, a level each (wired).
        sizes: in pixels, one more than levels (SSD300: 21, 45, 99, 153, 207, 261, 315, which are 7, 15, 33, ... per
            cent of the picture); ``scale`` strides, and twice the last at the end, when None.
        ratios: of the longer to the shorter side, of each level, or one list for all; 2 on the first level and the two
            last, 2 and 3 on those between, when None.
        scale: size of the boxes in strides, where no sizes are given.
        offset: where in a cell the boxes are centred, in strides.
        longest: no side is longer (torchvision: that of the picture, 300); no limit when None, as in the paper's code.

    Raises:
        ValueError: sizes or ratios that do not fit the levels.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325 (torchvision's DefaultBoxGenerator)
    """

    def __init__(
        self,
        strides: Sequence[int | tuple[int, int]],
        sizes: Sequence[float] | None = None,
        ratios: Sequence[Sequence[float]] | None = None,
        scale: float = 4.0,
        offset: float = 0.5,
        longest: float | None = None,
    ):
        levels = len(strides)
        if sizes is None:
            sides = [scale * side for side in _sides([pair(stride) for stride in strides])]
            sizes = [*sides, 2 * sides[-1]]
        if ratios is None:
            ratios = [[2.0, 3.0] if 0 < level < levels - 2 else [2.0] for level in range(levels)]
        if len(ratios) == 1:
            ratios = [ratios[0]] * levels
        if len(sizes) != levels + 1 or len(ratios) != levels:
            raise ValueError(
                f"default_boxes needs one size more than the {levels} levels and ratios of each, got {len(sizes)} "
                f"sizes and {len(ratios)} lists of ratios"
            )
        limit = math.inf if longest is None else longest
        shapes = [_shapes(sizes[level], sizes[level + 1], ratios[level], limit) for level in range(levels)]
        super().__init__(strides, shapes, offset)


def _shapes(size: float, following: float, ratios: Sequence[float], limit: float) -> Shapes:
    middle = math.sqrt(size * following)
    shapes = [(size, size), (middle, middle)]
    for ratio in ratios:
        long, short = size * math.sqrt(ratio), size / math.sqrt(ratio)
        shapes += [(long, short), (short, long)]
    return [(min(width, limit), min(height, limit)) for width, height in shapes]


def _sides(strides: Sequence[tuple[int, int]]) -> list[float]:
    return [math.sqrt(height * width) for height, width in strides]

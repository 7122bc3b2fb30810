"""Points: priors of detectors without anchors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torso.boxes.cells import around_cells, pair
from torso.structures import Priors


class Points(nn.Module):
    """One box around the point that each cell stands for; its size only serves what asks for one (ATSS, `max_iou`).

    Args:
        strides: pixels between cells, a level each (wired).
        scale: sides of the boxes, in strides (ATSS: 8).
        offset: where in a cell its point is, in strides: 0.5, the centre, in the paper; 0 in torchvision.

    Raises:
        ValueError: a scale that is not above 0.

    Source: FCOS: Fully Convolutional One-Stage Object Detection, 2019, arXiv:1904.01355
    """

    def __init__(self, strides: Sequence[int | tuple[int, int]], scale: float = 1.0, offset: float = 0.5):
        super().__init__()
        if scale <= 0:
            raise ValueError(f"points have boxes of a scale above 0, got {scale}")
        self.strides = [pair(stride) for stride in strides]
        self.offset = offset
        self.per_cell = [1] * len(self.strides)
        for level, (height, width) in enumerate(self.strides):
            cell = torch.tensor([[-width, -height, width, height]]) * (scale / 2)
            self.register_buffer(f"cell{level}", cell, persistent=False)

    def forward(self, sizes: Sequence[tuple[int, int]]) -> Priors:
        """Boxes around the points of levels of these (height, width)."""
        cells: list[Tensor] = [getattr(self, f"cell{level}") for level in range(len(self.strides))]  # each [1, 4]
        return around_cells(cells, self.strides, sizes, self.offset)

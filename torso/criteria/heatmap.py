"""What a heatmap of keypoints should say, and what it costs: shared by the criteria of detectors of keypoints."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torso.boxes.heatmap import cells_of, covered, gaussian_radius, splat
from torso.structures import Targets


class Drawn:
    """The heatmap that objects of one kind of point make on one grid, and the cells of these points.

    Args:
        points: (x, y) in pixels, ``[B, M, 2]``.
        targets: the objects, with at least one row.
        classes: C.
        stride: pixels between cells, one number or ``[2]``.
        grid: height H, width W in cells.
        overlap: see `torso.boxes.heatmap.gaussian_radius`.
    """

    def __init__(
        self,
        points: Tensor,
        targets: Targets,
        classes: int,
        stride: float | Tensor,
        grid: tuple[int, int],
        overlap: float,
    ):
        boxes = targets.boxes.to(points.dtype)
        cells = cells_of(points, stride, grid)
        radius = gaussian_radius((boxes[..., 2:] - boxes[..., :2]) / stride, overlap).floor()
        self.targets, self.cells = targets, cells
        self.heat = splat(cells, radius, targets.labels, targets.valid, classes, grid)  # [B, C, H, W]
        self.place = cells[..., 1] * grid[1] + cells[..., 0]  # [B, M]: of a cell, row by row
        self.ignored = covered(boxes, targets.ignore, stride, grid).unsqueeze(1)  # [B, 1, H, W]

    def cost(self, class_loss: Any, logits: Tensor) -> Tensor:
        """The class loss of ``logits [B, C, H, W]`` in a batch, divided by the number of peaks.

        What lies in an ignored region teaches nothing, but where an object has its peak.
        """
        peak = self.heat == 1
        learned = (peak | ~self.ignored).to(logits.dtype)
        if self.targets.weights is not None:  # objects of mixed pictures
            learned = torch.where(peak, self._weights(logits.dtype), learned)
        cost: Tensor = class_loss(logits, self.heat.to(logits.dtype), weight=learned, reduction="sum")
        return cost / peak.sum().clamp(min=1)

    def _weights(self, dtype: torch.dtype) -> Tensor:
        """The weight of the object at each peak, the highest of equals, ``[B, C, H, W]``."""
        assert self.targets.weights is not None
        weight = torch.where(self.targets.valid, self.targets.weights.to(dtype), 0.0)
        cells = self.heat.shape[-2] * self.heat.shape[-1]
        nothing = torch.zeros_like(self.heat, dtype=dtype).flatten(1)
        index = self.targets.labels * cells + self.place
        return nothing.scatter_reduce(1, index, weight, "amax").view_as(self.heat)


def share_of_objects(targets: Targets, dtype: torch.dtype) -> Tensor:
    """What an object counts in a mean over those of a batch, ``[B, M]``: its weight by their number; 0 for padding."""
    counted = targets.valid.to(dtype)
    if targets.weights is not None:
        counted = counted * targets.weights.to(dtype)
    return counted / targets.valid.sum().clamp(min=1)

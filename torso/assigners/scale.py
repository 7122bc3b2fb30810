"""Assignment by scale and centre: one level an object, and there one cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from torso.assigners.chunks import Claims, centres, ignored_priors, slices
from torso.structures import Assignment, DenseOutput, Targets


class Scale(nn.Module):
    """An object belongs to one level by the root of its area, and there to the cell that holds its centre.

    The level of stride s takes roots from ``scale * s`` up to twice that; the finest also all smaller, the coarsest all
    larger ones. Of objects in one cell the one with its centre nearest to the cell's is learned, of equals the first.

    Args:
        scale: the smallest root of a level, in strides; above 0.

    Raises:
        ValueError: a scale that is not above 0.

    Source: RepPoints: Point Set Representation for Object Detection, 2019, arXiv:1904.11490, section 4.2 (scale 4)
    """

    def __init__(self, scale: float = 4.0):
        super().__init__()
        if scale <= 0:
            raise ValueError(f"scale is above 0 strides, got {scale}")
        self.scale = scale

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        points, steps = centres(output.priors), output.strides.to(output.priors.dtype)
        stride = steps.prod(dim=1).sqrt()  # [P]
        low = torch.where(stride == stride.amin(), 0.0, stride * self.scale)
        high = torch.where(stride == stride.amax(), math.inf, stride * (2 * self.scale))
        claims = Claims(output, targets)
        for rows in slices(targets.boxes, output.priors):
            boxes = targets.boxes[:, rows].to(points.dtype)
            sides: Tensor = boxes[..., 2:] - boxes[..., :2]
            root = sides.clamp(min=0).prod(dim=-1, keepdim=True).sqrt()  # [B, m, 1]
            x, y = (centres(boxes)[:, :, None] - points).unbind(dim=-1)  # each [B, m, P]
            half_x, half_y = steps[:, 0] / 2, steps[:, 1] / 2
            mine = (x >= -half_x) & (x < half_x) & (y >= -half_y) & (y < half_y)
            mine &= (root > 0) & (root >= low) & (root < high) & targets.valid[:, rows, None]
            far = x.square() + y.square()
            claims.add(torch.where(mine, -far, -math.inf), rows.start)
        return claims.assignment(ignored_priors(output, targets, share=None))

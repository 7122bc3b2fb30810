"""Assignment by scale: levels share out the objects by how far the sides of a box are from a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from torso.assigners.chunks import Claims, centres, ignored_priors, near, sides, slices
from torso.boxes.convert import area
from torso.structures import Assignment, DenseOutput, Targets

Bounds = tuple[Tensor, Tensor, Tensor, Tensor]


class FCOS(nn.Module):
    """A prior learns the smallest object around its centre, if its level is there for objects of that scale.

    Scale is the largest of the four distances from the prior's centre to the sides of the object, and lies strictly
    within the range of a level. The smallest stride of all has no lower end, the largest no upper one, so that no
    object is too small or too large. Of objects of equal area the first is learned. That is torchvision's matching
    but for its arithmetic in float32: to it two objects are equal whose areas differ by less than 8 px.

    With ``by="sides"`` width and height have a range each, ends included, from the stride along x and along y:
    MatrixNet's layers, where the ends are open for the smallest and largest stride along each axis.

    Args:
        radius: centres of priors lie within so many strides of the object's centre, along x and y; anywhere inside
            the object when None (the paper's first version).
        reach: the range of a level, in strides.
        ranges: the ranges in pixels instead, ``[low, high]`` a level, finest first; ``[low, high, low, high]`` of
            width and height where these have ranges each. ``.inf`` leaves an end open.
        by: the ``"max"`` of the distances, or both ``"sides"`` of the object.
        relax: factors of the lower and the upper ends; (0.8, 1.3) in MatrixNet, so that an object near an end
            belongs to both levels.

    Raises:
        ValueError: a range that ends before it begins, a radius that is not above 0.

    Source: FCOS, 2019, arXiv:1904.01355 (torchvision's choices); MatrixNets, 2020, arXiv:2001.03194
    """

    def __init__(
        self,
        radius: float | None = 1.5,
        reach: tuple[float, float] = (4.0, 8.0),
        ranges: Sequence[Sequence[float]] | None = None,
        by: Literal["max", "sides"] = "max",
        relax: tuple[float, float] = (1.0, 1.0),
    ):
        super().__init__()
        if radius is not None and radius <= 0:
            raise ValueError(f"radius is above 0 strides, or None, got {radius}")
        for each in (reach, *(ranges or ())):
            if len(each) not in ((2, 4) if by == "sides" else (2,)) or any(
                low >= high for low, high in zip(each[::2], each[1::2], strict=True)
            ):
                raise ValueError(f"a range is [low, high] with low < high, got {list(each)}")
        self.radius, self.reach, self.ranges, self.by, self.relax = radius, reach, ranges, by, relax

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        points = centres(output.priors)
        bounds = self._bounds(output)
        claims = Claims(output, targets)
        for rows in slices(targets.boxes, output.priors):
            boxes = targets.boxes[:, rows].to(points.dtype)
            left, top, right, bottom = sides(points, boxes)
            inside = torch.minimum(torch.minimum(left, top), torch.minimum(right, bottom)) > 0
            if self.by == "max":
                far = torch.maximum(torch.maximum(left, top), torch.maximum(right, bottom))
                mine = inside & (far > bounds[0]) & (far < bounds[1])
            else:
                mine = inside & _sides_within(boxes, bounds)
            if self.radius is not None:
                mine &= near(points, boxes, output.strides * self.radius)
            mine &= targets.valid[:, rows, None]
            claims.add(torch.where(mine, -area(boxes)[..., None], -math.inf), rows.start)
        return claims.assignment(ignored_priors(output, targets, share=None))

    def _bounds(self, output: DenseOutput) -> Bounds:
        """The ends of each prior's range of widths, and of heights, each ``[P]``."""
        below, above = self.relax
        if self.ranges is not None:
            if len(self.ranges) != len(output.counts):
                raise ValueError(f"{len(self.ranges)} ranges for {len(output.counts)} levels: give one a level")
            # Level by level, without a tensor made of the numbers: a GPU would have to wait for it.
            ends = []
            for i, factor in enumerate((below, above, below, above)):
                levels = zip(self.ranges, output.counts, strict=True)
                ends.append(torch.cat([output.priors.new_full((n,), one[i % len(one)] * factor) for one, n in levels]))
            return ends[0], ends[1], ends[2], ends[3]
        steps = output.strides if self.by == "sides" else output.strides.amax(dim=1, keepdim=True).expand(-1, 2)
        low = torch.where(steps == steps.amin(dim=0), 0.0, steps * self.reach[0] * below)
        high = torch.where(steps == steps.amax(dim=0), math.inf, steps * self.reach[1] * above)
        return low[:, 0], high[:, 0], low[:, 1], high[:, 1]


def _sides_within(boxes: Tensor, bounds: Bounds) -> Tensor:
    """Whether width and height of ``boxes [B, m, 4]`` lie within the ranges of the priors: ``[B, m, P]``."""
    width, height = (boxes[..., None, 2:] - boxes[..., None, :2]).unbind(dim=-1)  # each [B, m, 1]
    return (width >= bounds[0]) & (width <= bounds[1]) & (height >= bounds[2]) & (height <= bounds[3])

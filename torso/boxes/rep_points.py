"""The coder of RepPoints: a box is a set of points, and what the set spans."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

MAX_LOG = math.log(62.5)  # of a factor: a wild number must not overflow `exp`


class RepPoints:
    """``side * side`` points around the prior's centre, in strides, as x and y in turn: ``[..., 2 * side * side]``.

    A box of them is their smallest hull (``"minmax"``), that of the four corners of the set
    (``"partial_minmax"``; the paper leaves open which part), or their mean with as many standard deviations to either
    side as two more numbers say, the logarithms of the factors for x and y (``"moment"``, then ``size`` is two more).
    The paper learns these two for the whole network: the head `torso.heads.RepPoints` keeps them and says the same
    at every prior, for a coder has no parameters; any other head says its own at each.

    ``encode`` lays the points on a regular grid over the box (its code for a moment begins with factors of 1), so that
    ``decode`` gives the box back. The standard deviation is that of a sample (divided by n - 1).

    Args:
        side: points along a side of that grid, and taps along a side of the deformable convolution; at least 2.
        transform: how points become a box.

    Raises:
        ValueError: ``side`` below 2, an unknown ``transform``, or a call without ``strides``.

    Source: RepPoints: Point Set Representation for Object Detection, 2019, arXiv:1904.11490, section 3.2
    """

    def __init__(self, side: int = 3, transform: Literal["moment", "minmax", "partial_minmax"] = "moment"):
        if side < 2:
            raise ValueError(f"rep_points: a box needs at least 2 points along a side, got side={side}")
        if transform not in ("moment", "minmax", "partial_minmax"):
            raise ValueError(f"rep_points: transform is moment, minmax or partial_minmax, got {transform!r}")
        self.side, self.points, self.transform = side, side * side, transform
        self.size = 2 * self.points + (2 if transform == "moment" else 0)
        # The sample deviation of the grid's coordinates, in halves of the box.
        spread = side * sum((2 * i / (side - 1) - 1) ** 2 for i in range(side))
        self.deviation = math.sqrt(spread / (self.points - 1))

    def encode(self, boxes: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """``xyxy`` boxes ``[..., 4]`` as points on a grid, row by row: ``[..., size]``."""
        steps = _needed(strides)
        centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
        centre, half = (centre - (priors[..., :2] + priors[..., 2:]) / 2) / steps, half / steps
        if self.transform == "moment":
            half = half / self.deviation
        along = torch.linspace(-1, 1, self.side, dtype=boxes.dtype, device=boxes.device)
        y, x = torch.meshgrid(along, along, indexing="ij")
        grid = torch.stack([x.flatten(), y.flatten()], dim=-1)  # [n, 2]
        code = (centre.unsqueeze(-2) + half.unsqueeze(-2) * grid).flatten(-2)
        return torch.cat([code, torch.zeros_like(centre)], dim=-1) if self.transform == "moment" else code

    def decode(self, deltas: Tensor, priors: Tensor, strides: Tensor | None = None) -> Tensor:
        """Points ``[..., size]`` to the ``xyxy`` boxes they span."""
        steps = _needed(strides)
        points = deltas[..., : 2 * self.points].reshape(*deltas.shape[:-1], self.points, 2)
        if self.transform == "moment":
            middle = points.mean(dim=-2)
            # Not std(): its gradient is not finite where all points are one, as they are before training.
            variance = (points - middle.unsqueeze(-2)).square().sum(dim=-2) / (self.points - 1)
            half = (variance + torch.finfo(deltas.dtype).eps).sqrt() * deltas[..., -2:].clamp(max=MAX_LOG).exp()
            low, high = middle - half, middle + half
        else:
            if self.transform == "partial_minmax":
                corners = (0, self.side - 1, self.points - self.side, self.points - 1)
                points = torch.stack([points[..., i, :] for i in corners], dim=-2)
            low, high = points.amin(dim=-2), points.amax(dim=-2)
        centre = (priors[..., :2] + priors[..., 2:]) / 2
        return torch.cat([centre + low * steps, centre + high * steps], dim=-1)


def _needed(strides: Tensor | None) -> Tensor:
    if strides is None:
        raise ValueError("rep_points: points are counted in cells, so the strides [..., 2] of the priors are needed")
    return strides

"""Assignment by the centre: priors near the middle of an object learn it, whatever their scale."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from torso.assigners.chunks import Claims, centres, ignored_priors, inside, slices
from torso.boxes.convert import area
from torso.structures import Assignment, DenseOutput, Targets


class Center(nn.Module):
    """A prior whose centre lies in the middle of an object learns it; of several objects the smallest, then the first.

    How large the middle is says ``radius``, in strides, as in FCOS, or ``share``, of the sides of the box, as in
    DenseBox. Around it there can be a grey ring of priors that are not learned from. DenseBox's middle is a circle of
    0.3 of a face's height in radius: ``share=0.6, shape="ellipse", ring=2``; its ring is around positive pixels, the
    one here around the middle itself. CenterNet's is the one cell of the centre: ``radius=0.5, nearest=True``.

    Args:
        radius: half the sides of the middle, in strides; cut to the object.
        share: sides of the middle as a share of those of the object, above 0, at most 1, instead of ``radius``.
        shape: the middle is a ``"box"``, or the ``"ellipse"`` in it.
        ring: width of the grey ring, in strides, 0 or more.
        outer: the ring also reaches to this share of the sides of the object (FSAF and guided anchoring: 0.5).
        nearest: an object also takes the priors nearest to its centre, if that lies in their cell: without it, small
            objects may be left out.

    Raises:
        ValueError: radius or share out of range, a negative ring.

    Source: FCOS, 2019, arXiv:1904.01355; DenseBox, 2015, arXiv:1509.04874; Objects as Points, 2019, arXiv:1904.07850
    """

    def __init__(
        self,
        radius: float = 1.5,
        share: float | None = None,
        shape: Literal["box", "ellipse"] = "box",
        ring: float = 0.0,
        outer: float | None = None,
        nearest: bool = False,
    ):
        super().__init__()
        if radius <= 0 or ring < 0:
            raise ValueError(f"radius is above 0 and ring not below, got radius={radius}, ring={ring}")
        for name, value in (("share", share), ("outer", outer)):
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} is above 0 and at most 1, got {value}")
        self.radius, self.share, self.shape, self.nearest = radius, share, shape, nearest
        self.ring, self.outer = ring, outer

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        points, steps = centres(output.priors), output.strides.to(output.priors.dtype)
        claims = Claims(output, targets)
        grey = ignored_priors(output, targets, share=None)
        for rows in slices(targets.boxes, output.priors):
            boxes = targets.boxes[:, rows].to(points.dtype)
            size = boxes[..., None, 2:] - boxes[..., None, :2]  # [B, m, 1, 2]
            there = targets.valid[:, rows, None] & (size > 0).all(dim=-1)  # [B, m, 1]
            x, y = (points - centres(boxes)[:, :, None]).abs_().unbind(dim=-1)  # [B, m, P]
            half = steps * self.radius if self.share is None else size * (self.share / 2)
            mine = self._within(x, y, half) & inside(points, boxes)
            if self.nearest:
                distance = x.square() + y.square()
                closest = distance == distance.amin(dim=-1, keepdim=True)
                mine |= closest & (x <= steps[:, 0] / 2) & (y <= steps[:, 1] / 2)
            claims.add(torch.where(mine & there, -area(boxes)[..., None], -math.inf), rows.start)
            if self.ring:
                grey |= (self._within(x, y, half + steps * self.ring) & there).any(dim=1)
            if self.outer is not None:
                grey |= (self._within(x, y, size * (self.outer / 2)) & there).any(dim=1)
        return claims.assignment(grey)

    def _within(self, x: Tensor, y: Tensor, half: Tensor) -> Tensor:
        """Whether distances ``[B, m, P]`` along x and y lie in the box, or the ellipse, of these half sides."""
        width, height = half.unbind(dim=-1)
        if self.shape == "box":
            return (x < width) & (y < height)
        return (x / width).square() + (y / height).square() < 1

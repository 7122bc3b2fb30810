"""Adaptive assignment: the overlaps of an object's nearest priors say how much overlap it takes."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from torso.assigners.chunks import Claims, centres, ignored_priors, inside, lowest, overlaps, slices
from torso.structures import Assignment, DenseOutput, Targets


class ATSS(nn.Module):
    """Of the priors nearest to an object on every level, those with an IoU above their mean plus deviation learn it.

    Candidates are the ``topk`` priors of each level whose centres are nearest to that of the object, of equally near
    ones the first; all of a level that has fewer. Positive are the candidates that overlap the object by at least
    the mean and standard deviation (of a sample: divided by n - 1, as in the authors' code) of all its candidates
    and whose centre lies inside the object. A prior that several objects take learns the one it overlaps most.

    Args:
        topk: candidates a level, 1 or more.
        ignore_overlap: a prior with at least this share of its area in an ignored region is not negative, 0..1.

    Raises:
        ValueError: ``topk`` below 1.

    Source: Bridging the Gap Between Anchor-based and Anchor-free Detection, 2019, arXiv:1912.02424
    """

    of_regions: ClassVar[bool] = True

    def __init__(self, topk: int = 9, ignore_overlap: float = 0.5):
        super().__init__()
        if topk < 1:
            raise ValueError(f"topk is 1 or more, got {topk}")
        self.topk, self.ignore_overlap = topk, ignore_overlap

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        points = centres(output.priors)
        claims = Claims(output, targets)
        for rows in slices(targets.boxes, output.priors):
            boxes = targets.boxes[:, rows].to(points.dtype)
            overlap = overlaps(boxes, output.priors)  # [B, m, P]
            candidate = nearest(points, boxes, output.counts, self.topk)
            enough = overlap >= _threshold(overlap, candidate)
            mine = candidate & enough & inside(points, boxes) & targets.valid[:, rows, None]
            claims.add(overlap.masked_fill_(~mine, -math.inf), rows.start)
        return claims.assignment(ignored_priors(output, targets, self.ignore_overlap))


def nearest(points: Tensor, boxes: Tensor, counts: tuple[int, ...], k: int) -> Tensor:
    """Marks the ``k`` of points, ``[P, 2]`` or ``[B, P, 2]``, of each level nearest to the middles of boxes."""
    middle = centres(boxes)[:, :, None]
    x, y = points.unsqueeze(-3).unbind(dim=-1)
    distance = (x - middle[..., 0]).square_() + (y - middle[..., 1]).square_()  # [B, m, P]
    return torch.cat([lowest(level, k) for level in torch.split(distance, list(counts), dim=-1)], dim=-1)


def _threshold(overlap: Tensor, candidate: Tensor) -> Tensor:
    """Mean plus deviation of the candidates' overlaps, ``[B, m, 1]``, less what sums are rounded by.

    Without that, candidates that all overlap an object equally could all fall below their own mean.
    """
    count = candidate.sum(dim=-1, keepdim=True)
    mean = overlap.mul(candidate).sum(dim=-1, keepdim=True) / count
    spread = (overlap - mean).square_().mul_(candidate).sum(dim=-1, keepdim=True)
    deviation = (spread / (count - 1).clamp(min=1)).sqrt_()
    return (mean + deviation) * (1 - 64 * torch.finfo(overlap.dtype).eps)

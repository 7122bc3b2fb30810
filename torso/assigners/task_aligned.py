"""Task-aligned assignment: an object takes the priors that say both its class and its box well."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from torso.assigners.candidates import claimed, learnable, of_labels, owned, power, scores, topk
from torso.assigners.chunks import centres, ignored_priors, inside, overlaps, slices
from torso.structures import Assignment, DenseOutput, Targets


class TaskAligned(nn.Module):
    """An object takes the ``topk`` priors in its box that are best by ``score^alpha * IoU^beta`` of their predictions.

    Ranked are the priors whose centre lies inside of the box (TOOD's code ranks all and then drops those outside, and
    may leave an object without any). A prior taken twice learns the object that its predicted box overlaps most. The
    quality is the alignment, scaled so that the greatest of an object is the greatest IoU of its priors: TOOD's class
    target. Objects without area are not learned. Tables take ``B x CHUNK x P`` numbers.

    Args:
        topk: priors of an object at most, from 1 on.
        alpha: power of the class score, 0 or more.
        beta: power of the IoU, 0 or more.
        ignore_overlap: a prior with at least this share of its area in an ignored region is not negative, 0..1.

    Source: TOOD: Task-aligned One-stage Object Detection, 2021, arXiv:2108.07755
    """

    of_regions: ClassVar[bool] = True

    def __init__(self, topk: int = 13, alpha: float = 1.0, beta: float = 6.0, ignore_overlap: float = 0.5):
        super().__init__()
        if topk < 1 or alpha < 0 or beta < 0:
            raise ValueError(f"topk >= 1, alpha >= 0, beta >= 0 expected, got topk={topk}, alpha={alpha}, beta={beta}")
        self.topk, self.alpha, self.beta = topk, alpha, beta
        self.ignore_overlap = ignore_overlap

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        targets = targets.with_a_row()
        boxes, real = targets.boxes.to(output.boxes.dtype), learnable(targets)
        # Classes before priors in memory: an object needs those of one class.
        score = power(scores(output), self.alpha).transpose(1, 2).contiguous().transpose(1, 2)
        points = centres(output.priors)
        aligned, overlapping, places = [], [], []  # each [B, m, topk]
        for rows in slices(boxes, output.priors):
            overlap = overlaps(boxes[:, rows], output.boxes).clamp(max=1)  # [B, m, P]
            alignment = of_labels(score, targets.labels[:, rows]) * power(overlap, self.beta)
            candidate = inside(points, boxes[:, rows]) & real[:, rows, None]
            value, place = topk(alignment.masked_fill(~candidate, -math.inf), self.topk)
            aligned.append(value)
            overlapping.append(overlap.gather(2, place))
            places.append(place)
        alignment, overlap, place = torch.cat(aligned, 1), torch.cat(overlapping, 1), torch.cat(places, 1)
        claim = overlap.masked_fill(alignment == -math.inf, -math.inf)
        matched, highest = claimed(place, claim, points.shape[-2])
        positive = highest > -math.inf
        kept = owned(place, matched, positive) & (claim > -math.inf)
        quality = torch.zeros_like(highest).scatter_reduce(
            1, place.flatten(1), _normalised(alignment, overlap, kept).flatten(1), "amax"
        )
        neither = ignored_priors(output, targets, self.ignore_overlap)
        return Assignment(matched, positive, ~positive & ~neither, quality)


def _normalised(alignment: Tensor, overlap: Tensor, kept: Tensor) -> Tensor:
    """The alignment of each object's kept priors, its greatest becoming their greatest IoU; 0 of the others."""
    alignment, overlap = alignment.where(kept, 0), overlap.where(kept, 0)
    greatest = alignment.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(alignment.dtype).tiny)
    return alignment / greatest * overlap.amax(dim=-1, keepdim=True)

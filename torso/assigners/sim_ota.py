"""SimOTA: as many priors for an object as its predictions are good, the cheapest ones."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from torso.assigners.candidates import learnable, of_labels, offsets, scores, topk
from torso.assigners.chunks import Claims, centres, ignored_priors, inside, overlaps, slices
from torso.structures import Assignment, DenseOutput, Targets

FAR = 1e5  # added to the cost of a prior that is not in the middle of the object: above any cost of class and box


class SimOTA(nn.Module):
    """An object takes the k priors that cost it least, k being the sum of the IoUs of its ``topk`` best predictions.

    Candidates are the priors whose centre lies in a box, or near the centre of one, of any object. One costs an object
    the cross entropy of its class scores, and ``-ln`` of the IoU of the predicted box with the object; and far more
    where it lies outside of this object's box or centre region. A prior taken twice learns the object that it costs
    least, among all of its picture, as in YOLOX's code. No quality is given: YOLOX's class target is the ``"iou"`` of
    the criterion. Objects without area are not learned. Tables take ``B x CHUNK x P`` numbers.

    Args:
        radius: half the side of the centre region, in strides of the prior, above 0.
        topk: predictions that say how many priors an object takes, from 1 on; it takes no more than these.
        box_weight: what ``-ln`` of the IoU counts beside the cross entropy, 0 or more.
        ignore_overlap: a prior with at least this share of its area in an ignored region is not negative, 0..1.

    Source: YOLOX: Exceeding YOLO Series in 2021, 2021, arXiv:2107.08430
    """

    of_regions: ClassVar[bool] = True

    def __init__(self, radius: float = 2.5, topk: int = 10, box_weight: float = 3.0, ignore_overlap: float = 0.5):
        super().__init__()
        if radius <= 0 or topk < 1:
            raise ValueError(f"radius > 0 and topk >= 1 expected, got radius={radius}, topk={topk}")
        self.radius, self.topk, self.box_weight = radius, topk, box_weight
        self.ignore_overlap = ignore_overlap

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        targets = targets.with_a_row()
        boxes, real = targets.boxes.to(output.boxes.dtype), learnable(targets)
        base, of_class = class_costs(scores(output))
        candidate = self._candidates(output, boxes, real)  # [B, P]
        claims, taken = Claims(output, targets), torch.zeros_like(candidate, dtype=torch.int64)
        once = torch.zeros_like(taken)
        rank = torch.arange(self.topk, device=boxes.device)
        for rows in slices(boxes, output.priors):
            _, middle = self._regions(output, boxes[:, rows])
            overlap = overlaps(boxes[:, rows], output.boxes)  # [B, m, P]
            cost = base[:, None] + of_labels(of_class, targets.labels[:, rows])
            cost = cost - self.box_weight * overlap.clamp(min=1e-8).log() + FAR * (~middle).to(cost.dtype)
            cost = cost.masked_fill(~(candidate[:, None] & real[:, rows, None]), math.inf)
            claims.add(-cost, rows.start)
            good = topk(overlap.masked_fill(~candidate[:, None], 0), self.topk)[0].clamp(min=0)
            count = good.sum(dim=-1, keepdim=True).floor().clamp(min=1)
            value, place = topk(-cost, self.topk)
            chosen = (rank < count) & (value > -math.inf)  # [B, m, topk]
            taken.scatter_add_(1, place.flatten(1), chosen.flatten(1).long())
            row = torch.arange(place.shape[1], device=place.device)[:, None] + rows.start
            once.scatter_reduce_(1, place.flatten(1), torch.where(chosen, row, 0).flatten(1), "amax")
        matched = torch.where(taken > 1, claims.index, once)
        neither = ignored_priors(output, targets, self.ignore_overlap)
        return Assignment(matched, taken > 0, (taken == 0) & ~neither)

    def _candidates(self, output: DenseOutput, boxes: Tensor, real: Tensor) -> Tensor:
        """Priors in the box or the centre region of any object, ``[B, P]``."""
        found = torch.zeros(output.logits.shape[:2], dtype=torch.bool, device=boxes.device)
        for rows in slices(boxes, output.priors):
            either, _ = self._regions(output, boxes[:, rows])
            found |= (either & real[:, rows, None]).any(dim=1)
        return found

    def _regions(self, output: DenseOutput, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Whether a prior's centre lies in the box or the centre region, and in both, each ``[B, m, P]``."""
        points = centres(output.priors)
        within = inside(points, boxes)
        far_x, far_y = offsets(points, boxes)
        reach_x, reach_y = (self.radius * output.strides).unbind(dim=-1)
        near = (far_x.abs() < reach_x) & (far_y.abs() < reach_y)
        return within | near, within & near


def class_costs(score: Tensor) -> tuple[Tensor, Tensor]:
    """The cross entropy of the roots of ``score [B, P, C]`` with one class, in two summands.

    Returns:
        That of a prior that should say no class, ``[B, P]``, and how much it differs where it should say one,
        ``[B, P, C]``: so no table of objects, priors and classes is needed.
    """
    root = score.sqrt()
    yes, no = root.log().clamp(min=-100), (1 - root).log().clamp(min=-100)  # as torch's binary cross entropy
    return -no.sum(dim=-1), no - yes

"""Assignment by the overlap of priors and objects."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from torso.assigners.chunks import intersection, slices
from torso.assigners.own import owners
from torso.boxes.candidates import rows
from torso.boxes.convert import area
from torso.boxes.overlap import iou
from torso.structures import Assignment, DenseOutput, Targets


class MaxIoU(nn.Module):
    """A prior learns the object it overlaps most from an IoU of ``positive`` on, and "nothing" below ``negative``.

    Args:
        positive: IoU from which a prior is positive, 0..1.
        negative: IoU below which a prior is negative; between the two it is not learned from.
        low_quality: every object also gets the priors that overlap it most, however little (but more than nothing),
            so that no object is left out. Such a prior learns the object that *it* overlaps most, as in torchvision.
        own: each object instead gets the one prior that overlaps it most (the first of equals), and that prior learns
            this object, also where it overlaps another more; of two objects the last one wins (SSD).
        ignore_overlap: a prior with at least this share of its area in an ignored region is not negative.

    Source: Faster R-CNN, 2015, arXiv:1506.01497; thresholds of RetinaNet, 2017, arXiv:1708.02002
        (torchvision's Matcher)
    """

    by_priors: ClassVar[bool] = True  # it needs nothing that a head says
    of_regions: ClassVar[bool] = True

    def __init__(
        self,
        positive: float = 0.5,
        negative: float = 0.4,
        low_quality: bool = True,
        ignore_overlap: float = 0.5,
        own: bool = False,
    ):
        super().__init__()
        if not 0 <= negative <= positive <= 1:
            raise ValueError(f"0 <= negative <= positive <= 1 expected, got negative={negative}, positive={positive}")
        self.positive, self.negative = positive, negative
        self.low_quality, self.ignore_overlap, self.own = low_quality, ignore_overlap, own

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors, those of all pictures or each picture's own ``[B, P, 4]``, to M padded objects."""
        priors, boxes = output.priors, targets.boxes.to(output.priors.dtype)
        if not boxes.shape[1]:
            nothing = torch.zeros(len(boxes), priors.shape[-2], dtype=torch.bool, device=priors.device)
            return Assignment(nothing.long(), nothing, ~nothing)
        eager = priors.is_cpu and not torch.compiler.is_compiling()
        index, forced, covered, nearest = (_object_by_object if eager else _chunk_by_chunk)(priors, boxes, targets)
        # The walk compares shared / (sum of areas), which rises with IoU; the thresholds mean IoU itself.
        there = targets.valid.any(dim=1, keepdim=True)
        overlap = iou(rows(boxes, index), priors).masked_fill(~there, -1)  # [B, P]
        ignored = (covered >= self.ignore_overlap * area(priors)) & (covered > 0)
        positive = overlap >= self.positive
        if self.own:
            owner = owners(nearest, priors.shape[-2])  # [B, P]
            index, positive = torch.where(owner >= 0, owner, index), positive | (owner >= 0)
        elif self.low_quality:
            positive = positive | forced
        negative = (overlap < self.negative) & ~positive & ~ignored
        return Assignment(torch.where(positive, index, 0), positive, negative)


def _chunk_by_chunk(priors: Tensor, boxes: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Chunks of objects against all priors: few, large steps, for a GPU or a compiler, which makes one pass of each.

    Returns:
        ``index [B, P]``, the object each prior overlaps most (the first valid one of equals); ``forced [B, P]``, priors
        that no other overlaps an object more than; ``covered [B, P]``, the most of it that an ignored region covers;
        ``nearest [B, M]``, the prior that overlaps each object most (the first of equals), -1 where none does.
    """
    index, best, covered = _nothing(priors, targets)
    forced = torch.zeros_like(index, dtype=torch.bool)
    there, prior_area = _areas(boxes, targets), area(priors).unsqueeze(-2)
    nearest = []
    for part in slices(boxes, priors):
        shared = intersection(boxes[:, part], priors)  # [B, m, P]
        ratio = shared / (there[:, part, None] + prior_area)
        value, place = ratio.max(dim=1)
        index = torch.where(value > best, place + part.start, index)
        best = torch.maximum(best, value)
        top, prior = ratio.max(dim=2, keepdim=True)
        nearest.append(torch.where(top > 0, prior, -1).squeeze(2))
        forced = forced | ((ratio == top) & (top > 0)).any(dim=1)
        covered = torch.maximum(covered, (shared * targets.ignore[:, part, None]).amax(dim=1))
    return index, forced, covered, torch.cat(nearest, dim=1)


def _object_by_object(priors: Tensor, boxes: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same, one object of each picture at a time: on a CPU a row of priors stays in the cache.

    There a comparison takes several times as long as a sum, and a maximum with its place many times as long as one
    without. So conditions are numbers here, and what they decide is blended: ``relu(r - best)`` has the sign 1 where
    ``r`` is the new best, and 0 elsewhere.
    """
    index, best, covered = _nothing(priors, targets)
    place, missed = index.to(best.dtype), torch.full_like(best, -1.0)
    there, prior_area = _areas(boxes, targets), area(priors)
    ignore = targets.ignore.to(best.dtype)
    left, top, right, bottom = (x.contiguous() for x in priors.unbind(dim=-1))
    numbers = torch.arange(boxes.shape[1], dtype=best.dtype)
    shared, height, other = (torch.empty_like(best) for _ in range(3))
    nearest = []
    for i, box in enumerate(boxes.transpose(0, 1).unsqueeze(-1).unbind(dim=0)):  # [B, 4, 1]
        torch.minimum(right, box[:, 2], out=shared).sub_(torch.maximum(left, box[:, 0], out=other)).relu_()
        torch.minimum(bottom, box[:, 3], out=height).sub_(torch.maximum(top, box[:, 1], out=other))
        shared.mul_(height)  # below 0 where they are apart, which counts as nothing
        ratio = torch.div(shared, torch.add(prior_area, there[:, i, None], out=other), out=other)
        peak, prior = ratio.max(dim=1, keepdim=True)
        nearest.append(torch.where(peak > 0, prior, -1))
        peak = torch.where(peak > 0, peak, 2)  # an object that overlaps nothing forces nothing
        torch.lerp(place, numbers[i], torch.sub(ratio, best, out=height).relu_().sign_(), out=place)
        torch.maximum(best, ratio, out=best)
        torch.maximum(missed, torch.sub(ratio, peak, out=height), out=missed)  # 0 where a prior is an object's best
        torch.maximum(covered, shared.mul_(ignore[:, i, None]), out=covered)
    return place.long(), missed == 0, covered, torch.cat(nearest, dim=1)


def _nothing(priors: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """What is known before any object was looked at: index, best overlap and covered part, each ``[B, P]``."""
    first = targets.valid.int().argmax(dim=1, keepdim=True)
    zero = priors.new_zeros(len(first), priors.shape[-2])
    return first.expand_as(zero), zero, zero.clone()


def _areas(boxes: Tensor, targets: Targets) -> Tensor:
    """Areas ``[B, M]``, never 0; infinite where there is no object, which so overlaps nothing."""
    sizes = area(boxes).clamp(min=torch.finfo(boxes.dtype).tiny)
    return sizes.masked_fill(~targets.valid, torch.inf)

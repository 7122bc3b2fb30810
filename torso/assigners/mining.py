"""Samplers that choose: at random, or what costs most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from torso.assigners.sampled import Sampled, highest
from torso.structures import Assignment, DenseOutput, Targets


class Random(nn.Module):
    """So many priors a picture, drawn at random, at most a share of them positive; negatives fill the rest.

    The draw takes the numbers of torch's global generator.

    Args:
        count: priors of a picture that learn, >= 1; fewer where fewer were assigned.
        positive: the largest share of positives among ``count``, 0..1.

    Raises:
        ValueError: no such count or share.

    Source: Faster R-CNN, 2015, arXiv:1506.01497 (256 and a half for its RPN)
    """

    by_priors: ClassVar[bool] = True  # it needs no cost

    def __init__(self, count: int = 256, positive: float = 0.5):
        super().__init__()
        _check(count, positive)
        self.count, self.positive = count, positive

    @torch.no_grad()
    def forward(
        self, assigned: Assignment, class_cost: Tensor, box_cost: Tensor, output: DenseOutput, targets: Targets
    ) -> Sampled:
        """The priors drawn."""
        keys = torch.rand(assigned.positive.shape, device=assigned.positive.device)
        return _filled(keys, assigned, self.count, self.positive)


class HardNegative(nn.Module):
    """All positives, and of each picture the negatives whose class loss is highest, ``ratio`` times as many.

    Args:
        ratio: negatives for one positive, > 0.
        least: negatives a picture gives at least, also without an object; none in the paper.

    Raises:
        ValueError: no such ratio or number.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325, section 2.2 (torchvision's SSD)
    """

    def __init__(self, ratio: float = 3.0, least: int = 0):
        super().__init__()
        if ratio <= 0 or least < 0:
            raise ValueError(f"ratio > 0 and least >= 0 expected, got ratio={ratio}, least={least}")
        self.ratio, self.least = ratio, least

    @torch.no_grad()
    def forward(
        self, assigned: Assignment, class_cost: Tensor, box_cost: Tensor, output: DenseOutput, targets: Targets
    ) -> Sampled:
        """The positives and the hardest negatives."""
        number = (assigned.positive.sum(dim=1, keepdim=True) * self.ratio).floor().clamp(min=self.least)
        return Sampled(assigned.positive, highest(class_cost, assigned.negative, number))


class OHEM(nn.Module):
    """The priors of each picture that cost most, be they positive or negative.

    A prior costs its class loss and, where it is positive, ``box_weight`` times its box loss. The paper drops priors
    that overlap a harder one first, which regions need and the priors of a grid do not: that is left to the proposals.

    Args:
        count: priors of a picture that learn, >= 1; fewer where fewer were assigned.
        positive: the largest share of positives among ``count``, 0..1, as in mmdetection; by cost alone when None, as
            in the paper.
        box_weight: factor of the box loss in the ranking, >= 0.

    Raises:
        ValueError: no such count or share.

    Source: Training Region-based Object Detectors with Online Hard Example Mining, 2016, arXiv:1604.03540
    """

    def __init__(self, count: int = 256, positive: float | None = None, box_weight: float = 1.0):
        super().__init__()
        _check(count, positive)
        self.count, self.positive, self.box_weight = count, positive, box_weight

    @torch.no_grad()
    def forward(
        self, assigned: Assignment, class_cost: Tensor, box_cost: Tensor, output: DenseOutput, targets: Targets
    ) -> Sampled:
        """The hardest priors."""
        cost = class_cost + self.box_weight * torch.where(assigned.positive, box_cost, 0)
        if self.positive is not None:
            return _filled(cost, assigned, self.count, self.positive)
        taken = highest(cost, assigned.positive | assigned.negative, self.count, self.count)
        return Sampled(assigned.positive & taken, assigned.negative & taken)


class SOHEM(nn.Module):
    """OHEM within strata: the hardest of each kind of loss, so that one kind does not crowd the other out.

    A stratum is a range of the ratio of class loss to box loss (a negative has no box loss: it is in the last). Each
    gives its hardest priors, as many as its share of ``count``, rounded down; what remains, because of rounding or
    because a stratum holds fewer, goes to the hardest of all that are left. The paper leaves open how shares follow
    the course of training: without ``shares`` a stratum's is that of the loss it holds in its picture now.

    Args:
        count: priors of a picture that learn, >= 1; fewer where fewer were assigned.
        bounds: rising ratios of class loss to box loss between the strata, one fewer than strata.
        shares: of ``count``, a number a stratum, of which the sum is at most 1.
        box_weight: factor of the box loss in ratio and ranking, >= 0.

    Raises:
        ValueError: bounds that do not rise, or shares that do not fit them.

    Source: S-OHEM: Stratified Online Hard Example Mining for Object Detection, 2017, arXiv:1705.02233
    """

    def __init__(
        self,
        count: int = 256,
        bounds: Sequence[float] = (0.5, 1.0, 2.0),
        shares: Sequence[float] | None = None,
        box_weight: float = 1.0,
    ):
        super().__init__()
        _check(count)
        if list(bounds) != sorted(set(bounds)):
            raise ValueError(f"bounds rise from stratum to stratum, got {list(bounds)}")
        if shares is not None and (len(shares) != len(bounds) + 1 or min(shares) < 0 or sum(shares) > 1 + 1e-9):
            raise ValueError(f"{len(bounds) + 1} shares >= 0 with a sum of at most 1 expected, got {list(shares)}")
        self.count, self.bounds, self.box_weight = count, tuple(bounds), box_weight
        self.shares = None if shares is None else tuple(shares)

    @torch.no_grad()
    def forward(
        self, assigned: Assignment, class_cost: Tensor, box_cost: Tensor, output: DenseOutput, targets: Targets
    ) -> Sampled:
        """The hardest priors of every stratum."""
        of_box = self.box_weight * torch.where(assigned.positive, box_cost, 0)
        cost, allowed = class_cost + of_box, assigned.positive | assigned.negative
        # By products, not by a ratio: the box loss may be 0.
        stratum = sum((class_cost >= bound * of_box).long() for bound in self.bounds) + torch.zeros_like(allowed).long()
        total = torch.where(allowed, cost, 0).sum(dim=1, keepdim=True)
        taken = torch.zeros_like(allowed)
        for which in range(len(self.bounds) + 1):
            inside = allowed & (stratum == which)
            if self.shares is None:
                held = torch.where(inside, cost, 0).sum(dim=1, keepdim=True)
                quota: Tensor | int = (self.count * held / total.clamp(min=torch.finfo(cost.dtype).tiny)).floor()
            else:
                quota = int(self.count * self.shares[which] + 1e-9)
            taken = taken | highest(cost, inside, quota, self.count)
        left = self.count - taken.sum(dim=1, keepdim=True)
        taken = taken | highest(cost, allowed & ~taken, left, self.count)
        return Sampled(assigned.positive & taken, assigned.negative & taken)


def _filled(keys: Tensor, assigned: Assignment, count: int, share: float) -> Sampled:
    """Positives by their keys up to a share of ``count``, then negatives up to ``count``."""
    most = int(count * share)
    positive = highest(keys, assigned.positive, most, most)
    negative = highest(keys, assigned.negative, count - positive.sum(dim=1, keepdim=True), count)
    return Sampled(positive, negative)


def _check(count: int, share: float | None = None) -> None:
    if count < 1:
        raise ValueError(f"at least one prior learns, got count={count}")
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"a share in 0..1 expected, got positive={share}")

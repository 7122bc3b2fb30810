"""PAA: an object's candidates fall into good and bad ones, by a mixture of two Gaussians of what they cost."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from torso.assigners.candidates import learnable, scores
from torso.assigners.chunks import ignored_priors
from torso.assigners.max_iou import MaxIoU
from torso.assigners.mixture import fit
from torso.boxes.overlap import iou
from torso.structures import Assignment, DenseOutput, Targets


class PAA(nn.Module):
    """An object learns from the candidates that a mixture of two Gaussians calls good.

    A prior is a candidate of the object it overlaps most, from an IoU of ``positive`` on (or as the best of an object).
    It costs ``-ln(class score * IoU^power)`` of what the network predicts there; each object keeps its ``topk``
    cheapest of a level. Two Gaussians are fitted to their costs, begun at the least and the greatest. Positive are the
    candidates of the cheaper one that cost no more than the most likely among them: scheme (c) of figure 3, that of the
    authors' code (the paper's text can be read as (b)). A candidate alone is positive. The score is the paper's, of the
    class probability: the code takes a focal and a GIoU loss instead. Memory: ``B x CHUNK x P`` and
    ``B x M x topk x levels`` numbers.

    Args:
        positive: IoU of prior and object from which a prior is a candidate, 0..1.
        topk: candidates of an object on a level, from 1 on.
        power: of the IoU in the score, 0 or more.
        steps: of expectation maximisation.
        ignore_overlap: a prior with at least this share of its area in an ignored region is not negative, 0..1.

    Source: Probabilistic Anchor Assignment with IoU Prediction for Object Detection, 2020, arXiv:2007.08103
    """

    def __init__(
        self, positive: float = 0.1, topk: int = 9, power: float = 1.0, steps: int = 20, ignore_overlap: float = 0.5
    ):
        super().__init__()
        if topk < 1 or steps < 1 or power < 0:
            raise ValueError(f"topk >= 1, steps >= 1, power >= 0 expected, got topk={topk}, steps={steps}, {power=}")
        self.nearest = MaxIoU(positive, positive, low_quality=True)
        self.topk, self.power, self.steps, self.ignore_overlap = topk, power, steps, ignore_overlap

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        targets = targets.with_a_row()
        nearest: Assignment = self.nearest(output, targets)
        matched, candidate = nearest.matched, nearest.positive & learnable(targets).gather(1, nearest.matched)
        cost = self._cost(output, targets, matched)  # [B, P]
        objects, levels = targets.boxes.shape[1], len(output.counts)
        level = torch.cat([matched.new_full((count,), i) for i, count in enumerate(output.counts)])
        group = torch.where(candidate, matched * levels + level, objects * levels)
        rank = ranks(group, cost)
        slots = objects * levels * self.topk
        slot = torch.where(candidate & (rank < self.topk), group * self.topk + rank, slots)  # the last takes the others
        costs = cost.new_zeros(len(cost), slots + 1).scatter(1, slot, cost)[:, :-1].reshape(len(cost), objects, -1)
        real = candidate.new_zeros(len(cost), slots + 1)
        real = real.scatter(1, slot, True)[:, :-1].reshape(len(cost), objects, -1)  # [B, M, topk * levels]
        good = nn.functional.pad(separate(costs, real, self.steps).flatten(1), (0, 1))
        positive = good.gather(1, slot)
        neither = ignored_priors(output, targets, self.ignore_overlap)
        return Assignment(matched.where(positive, 0), positive, ~positive & ~neither)

    def _cost(self, output: DenseOutput, targets: Targets, matched: Tensor) -> Tensor:
        """What each prior costs the object it is matched with, ``[B, P]``."""
        labels = targets.labels.gather(1, matched)
        score = scores(output).gather(2, labels[..., None]).squeeze(-1)
        boxes = targets.boxes.to(output.boxes.dtype).gather(1, matched[..., None].expand(-1, -1, 4))
        return -score.clamp(min=1e-8).log() - self.power * iou(output.boxes, boxes).clamp(min=1e-8).log()


def ranks(group: Tensor, cost: Tensor) -> Tensor:
    """The place of each prior by cost among those of its group, from 0; of equals the first: ``[B, P]`` each.

    Sorting takes memory by the priors, however many groups there are.
    """
    order = cost.argsort(dim=1, stable=True)
    groups, regroup = group.gather(1, order).sort(dim=1, stable=True)
    order = order.gather(1, regroup)
    place = torch.arange(group.shape[1], device=group.device).expand_as(group)
    starts = torch.ones_like(groups, dtype=torch.bool)
    starts[:, 1:] = groups[:, 1:] != groups[:, :-1]
    begin = torch.where(starts, place, 0).cummax(dim=1).values
    return torch.zeros_like(group).scatter(1, order, place - begin)


def separate(cost: Tensor, real: Tensor, steps: int) -> Tensor:
    """Which candidates of each set are good, ``[..., N]``, by a mixture of two Gaussians.

    Args:
        cost: ``[..., N]``.
        real: which of them there are, ``[..., N]``.
        steps: of the fit.
    """
    least = cost.masked_fill(~real, math.inf).amin(dim=-1, keepdim=True)
    most = cost.masked_fill(~real, -math.inf).amax(dim=-1, keepdim=True)
    there = real.any(dim=-1, keepdim=True)
    means = torch.cat([least, most], dim=-1).where(there, 0).unsqueeze(-1)  # [..., 2, 1]
    points = cost.where(real, 0).unsqueeze(-1)
    parts = fit(points, real.to(cost.dtype), means, steps).log_parts(points)  # [..., N, 2]
    cheap = real & (parts[..., 0] >= parts[..., 1])
    likely = parts.logsumexp(dim=-1).masked_fill(~cheap, -math.inf).argmax(dim=-1, keepdim=True)
    return cheap & (cost <= cost.gather(-1, likely))

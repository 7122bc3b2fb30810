"""IQDet: where in its box an object is predicted well is a distribution of its own, and samples are taken by it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from torso.assigners.candidates import claimed, learnable, owned, topk
from torso.assigners.chunks import centres, ignored_priors, inside, overlaps, slices
from torso.assigners.mixture import fit
from torso.structures import Assignment, DenseOutput, Targets

# Where the four components begin, in half sides of the box from its middle.
BEGIN = ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5))


class IQDet(nn.Module):
    """Each object has a distribution of quality over its box, a mixture of Gaussians, and learns where it is dense.

    As in the paper: a quality distribution an instance, a mixture model in the plane that smooths the noise of single
    predictions, and samples taken by it, more of them the better the predictions are. Otherwise than in the paper: the
    mixture is not the answer of an encoder of the object's features, which is learned from the IoU of the predictions,
    but is fitted to that IoU itself, at the ``topk`` best predictions from inside of the box, by expectation
    maximisation; and samples are not drawn and interpolated between cells. A draw would take a prior with the
    probability ``density / greatest density * greatest IoU``: as many as draws come to on average, and at least one,
    are taken, the most probable ones. Their quality is ``density / greatest density``, so that the best of each object
    counts 1. A prior taken twice learns the object that would draw it more probably. Objects without area are not
    learned. Memory: ``B x CHUNK x P`` and ``B x M x topk x 4`` numbers.

    Args:
        topk: predictions an object's mixture is fitted to, and priors it takes at most, from 1 on.
        steps: of expectation maximisation.
        spread: the least deviation of a component, in half sides of the box, above 0.
        ignore_overlap: a prior with at least this share of its area in an ignored region is not negative, 0..1.

    Source: IQDet: Instance-wise Quality Distribution Sampling for Object Detection, 2021, arXiv:2104.06936
    """

    def __init__(self, topk: int = 32, steps: int = 10, spread: float = 0.2, ignore_overlap: float = 0.5):
        super().__init__()
        if topk < 1 or steps < 1 or spread <= 0:
            raise ValueError(f"topk, steps >= 1 and spread > 0 expected, got topk={topk}, steps={steps}, {spread=}")
        self.topk, self.steps, self.spread, self.ignore_overlap = topk, steps, spread, ignore_overlap

    @torch.no_grad()
    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        targets = targets.with_a_row()
        overlap, prior, real = self._candidates(output, targets)  # [B, M, topk]
        share = self._density(output, targets, overlap, prior, real)
        probability = share * overlap.amax(dim=-1, keepdim=True)
        count = probability.sum(dim=-1, keepdim=True).round().clamp(min=1)
        order = share.masked_fill(~real, -1).argsort(dim=-1, descending=True, stable=True)
        rank = torch.zeros_like(order).scatter(2, order, torch.arange(self.topk, device=order.device).expand_as(order))
        claim = probability.masked_fill(~real | (rank >= count), -math.inf)
        matched, highest = claimed(prior, claim, len(output.priors))
        positive = highest > -math.inf
        won = owned(prior, matched, positive) & (claim > -math.inf)
        quality = torch.zeros_like(highest).scatter_reduce(1, prior.flatten(1), share.where(won, 0).flatten(1), "amax")
        neither = ignored_priors(output, targets, self.ignore_overlap)
        return Assignment(matched, positive, ~positive & ~neither, quality)

    def _candidates(self, output: DenseOutput, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        """The best predictions from inside of each object, ``[B, M, topk]``: IoU, prior, and which there are."""
        boxes, real, points = targets.boxes.to(output.boxes.dtype), learnable(targets), centres(output.priors)
        values, places = [], []
        for rows in slices(boxes, output.priors):
            overlap = overlaps(boxes[:, rows], output.boxes).clamp(max=1)  # [B, m, P]
            candidate = inside(points, boxes[:, rows]) & real[:, rows, None]
            value, place = topk(overlap.masked_fill(~candidate, -math.inf), self.topk)
            values.append(value)
            places.append(place)
        overlap, prior = torch.cat(values, dim=1), torch.cat(places, dim=1)
        real = overlap > -math.inf
        return overlap.where(real, 0), prior, real

    def _density(self, output: DenseOutput, targets: Targets, overlap: Tensor, prior: Tensor, real: Tensor) -> Tensor:
        """The mixture at each candidate, as a share of its greatest value at one: ``[B, M, topk]``."""
        boxes = targets.boxes.to(output.boxes.dtype).unsqueeze(2)  # [B, M, 1, 4]
        half = (boxes[..., 2:] - boxes[..., :2]) / 2
        points = (centres(output.priors)[prior] - centres(boxes)) / half.where(half > 0, 1)  # in -1..1
        points = points.where(real.unsqueeze(-1), 0)
        # No tensor is made of the numbers: a GPU would have to wait for it.
        means = torch.stack([torch.stack([points.new_full((), x), points.new_full((), y)]) for x, y in BEGIN])
        means = means.expand(*prior.shape[:2], -1, -1)
        log = fit(points, overlap, means, self.steps, self.spread**2).log_parts(points).logsumexp(dim=-1)
        log = log.masked_fill(~real, -math.inf)
        greatest = log.amax(dim=-1, keepdim=True)
        return (log - greatest.where(real.any(dim=-1, keepdim=True), 0)).exp()

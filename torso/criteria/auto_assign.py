"""AutoAssign: where in its box an object is learned is itself learned."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from torso.assigners.chunks import centres, ignored_priors, inside, overlaps, slices
from torso.boxes.coders import Coder
from torso.criteria.likelihood import absence, box_costs, check_box_loss, class_logits, log_mean, summed
from torso.structures import DenseOutput, Losses, Targets

# What keeps a share from being 0 / 0, as in the authors' code.
LITTLE = 1e-12
# A deviation of the centre prior, squared, is at least this.
NARROW = 1e-4


class Looked(NamedTuple):
    """Where objects are learned, and how much each location learns "nothing"."""

    places: Tensor  # [B, M, K] int64: the locations of an object that may learn it
    there: Tensor  # [B, M, K] bool: which of them do
    nothing: Tensor  # [B, P, C] in 0..1: the negative weight
    total: Tensor  # []: the centre prior of all locations of all objects


class AutoAssign(nn.Module):
    """Every location in an object's box learns it, and learns "nothing" of its class, each by a weight.

    ``{"positive": ..., "negative": ..., "center": ...}``. A location finds an object with the likelihood P = class
    score * objectness * exp(-box_weight * box loss), where the objectness, a branch of the head, learns from nothing
    else. Its positive weight is its share of ``exp(confidence * P) * centre prior``; the prior is a Gaussian around a
    point of the box that each class learns (``mean``, ``deviation``, in strides). Its negative weight falls from 1 to 0
    with the IoU of its box, as ``1 / (1 - IoU)`` rises from its lowest to its highest value in the object's box. The
    loss of the centre, objects divided by the sum of their priors, keeps the deviations from vanishing; the paper's
    code has it, the paper does not.

    A location is the centre of a prior. Of objects of one class in one place the one it finds best says the negative
    weight. In an ignored region no location learns "nothing" (where it learns an object it goes on to). What an object
    costs is multiplied by its weight (``Targets.weights``); the number of objects stays what it is.

    Args:
        box_loss: a loss that takes ``"deltas"`` or ``"boxes"`` (wired).
        coder: writes the targets of a loss on deltas (wired).
        num_classes: classes C (wired).
        topk: of the locations in a box those of the highest centre prior learn it, >= 1; the others have a prior of
            nearly 0. Memory of what learns is B x M x topk.
        confidence: 1 / tau: how strongly sure locations are preferred, >= 0.
        gamma: how strongly locations that say "nothing" already are turned down, >= 0.
        box_weight: factor of the box loss in a likelihood, > 0.
        positive_weight: factor of the loss of objects.
        negative_weight: factor of the loss of "nothing".
        center_weight: factor of the loss of the centre.

    Raises:
        ValueError: another box loss.

    Source: AutoAssign: Differentiable Label Assignment for Dense Object Detection, 2020, arXiv:2007.03496
    """

    background = False

    def __init__(
        self,
        box_loss: nn.Module,
        coder: Coder,
        num_classes: int,
        *,
        topk: int = 512,
        confidence: float = 3.0,
        gamma: float = 2.0,
        box_weight: float = 5.0,
        positive_weight: float = 0.25,
        negative_weight: float = 0.75,
        center_weight: float = 0.75,
    ):
        super().__init__()
        check_box_loss(box_loss, "auto_assign")
        self.box_loss, self.coder = box_loss, coder
        self.topk, self.confidence, self.gamma, self.box_weight = topk, confidence, gamma, box_weight
        self.positive_weight, self.negative_weight = positive_weight, negative_weight
        self.center_weight = center_weight
        self.branches = ["objectness"]
        self.mean = nn.Parameter(torch.zeros(num_classes, 2))  # x, y from the middle of the box, in strides
        self.deviation = nn.Parameter(torch.ones(num_classes, 2))

    def forward(self, output: DenseOutput, targets: Targets) -> Losses:
        """All objects of all pictures at once; a batch without objects has only the loss of "nothing"."""
        targets = targets.with_a_row()
        looked = self._look(output, targets)
        places, there = looked.places, looked.there
        objectness = logsigmoid(output.extra["objectness"])  # [B, P]

        known = logsigmoid(class_logits(output, targets, places))
        known = known + objectness.gather(1, places.flatten(1)).view_as(places)  # [B, M, K]
        likelihood = known - self.box_weight * box_costs(self.box_loss, self.coder, output, targets, places)
        points, strides = centres(output.priors)[places], output.strides[places]  # [B, M, K, 2]
        prior = self._log_prior(points, strides, targets, slice(None))  # [B, M, K]
        found = log_mean(self.confidence * likelihood.exp() + prior, likelihood, there)  # [B, M]
        positive = summed(-found, targets, there) / targets.valid.sum().clamp(min=1)

        learned = ~ignored_priors(output, targets, None)[..., None]  # [B, P, 1]
        something = logsigmoid(output.logits) + objectness[..., None] + looked.nothing.log()  # [B, P, C]
        negative = (absence(something, self.gamma) * learned).sum() / looked.total.clamp(min=1)

        held = torch.where(there, prior.exp(), 0).sum(dim=(1, 2))  # [B]
        center = torch.where(held > 0, targets.valid.sum(dim=1) / torch.where(held > 0, held, 1), 0).mean()
        return {
            "positive": self.positive_weight * positive,
            "negative": self.negative_weight * negative,
            "center": self.center_weight * center,
        }

    def reset_classes(self, num_classes: int) -> None:
        """The centre priors of other classes begin anew."""
        self.mean = nn.Parameter(self.mean.new_zeros(num_classes, 2))
        self.deviation = nn.Parameter(self.deviation.new_ones(num_classes, 2))

    def _log_prior(self, points: Tensor, strides: Tensor, targets: Targets, rows: slice) -> Tensor:
        """The logarithm of the centre prior of ``points`` with ``strides``, both ``[..., K, 2]``: ``[B, m, K]``."""
        labels = targets.labels[:, rows]
        mean, spread = (x.to(points.dtype)[labels][:, :, None] for x in (self.mean, self.deviation))  # [B, m, 1, 2]
        middle = centres(targets.boxes[:, rows].to(points.dtype))[:, :, None]
        distance = (points - middle) / strides - mean
        return -(distance.square() / (2 * spread.square().clamp(min=NARROW))).sum(dim=-1)

    @torch.no_grad()
    def _look(self, output: DenseOutput, targets: Targets) -> Looked:
        """Objects in chunks: beside the answer memory is B x CHUNK x P."""
        batch, count, classes = output.logits.shape
        points = centres(output.priors)
        nothing = output.logits.new_ones(batch, classes, count)
        total = output.logits.new_zeros(())
        places, there = [], []
        for rows in slices(targets.boxes, output.priors):
            boxes = targets.boxes[:, rows].to(output.priors.dtype)
            within = inside(points, boxes) & targets.valid[:, rows, None]  # [B, m, P]
            prior = self._log_prior(points, output.strides, targets, rows)
            total = total + torch.where(within, prior.exp(), 0).sum()
            place = prior.masked_fill(~within, -torch.inf).topk(min(self.topk, count), dim=-1).indices
            places.append(place)
            there.append(within.gather(2, place))
            weight = torch.where(within, 1 - _share(overlaps(boxes, output.boxes), within), 1)
            label = targets.labels[:, rows, None].expand(weight.shape)
            nothing = nothing.scatter_reduce(1, label, weight.to(nothing.dtype), "amin")
        return Looked(torch.cat(places, dim=1), torch.cat(there, dim=1), nothing.transpose(1, 2), total)


def _share(overlap: Tensor, within: Tensor) -> Tensor:
    """``1 / (1 - overlap)`` between its lowest (0) and highest (1) value in each box: ``[B, m, P]``."""
    value = 1 / (1 - overlap).clamp(min=LITTLE)
    low = value.masked_fill(~within, torch.inf).amin(dim=-1, keepdim=True)
    high = value.masked_fill(~within, 0).amax(dim=-1, keepdim=True)
    return (value - low + LITTLE) / (high - low + LITTLE)

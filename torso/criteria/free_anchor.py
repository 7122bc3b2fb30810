"""FreeAnchor: anchors and objects match by maximum likelihood."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from torso.assigners.chunks import ignored_priors, overlaps, slices
from torso.boxes.coders import Coder
from torso.criteria.likelihood import absence, box_costs, check_box_loss, class_logits, log_mean, log_of_sure, summed
from torso.structures import DenseOutput, Losses, Targets


class FreeAnchor(nn.Module):
    """Every object has a bag of priors, of which at least one should find it: ``{"positive": ..., "negative": ...}``.

    The bag of an object are the ``topk`` priors that overlap it most (and at all). A prior finds its object with the
    likelihood ``score of its class * exp(-box_weight * box loss)``; a bag does with the mean-max of these, their mean
    weighted by ``1 / (1 - likelihood)``: the mean while all are poor, the best one later. A prior with a box that
    overlaps an object by IoU u says "nothing" of its class as far as u is below ``overlap``: it is excused by
    ``(u - overlap) / (u of the object's best box - overlap)`` in 0..1.

    Scores are sigmoids. Priors in an ignored region need not say "nothing". What the bag of an object costs is
    multiplied by its weight (``Targets.weights``); the number of objects, by which is divided, stays what it is.

    Args:
        box_loss: a loss that takes ``"deltas"`` or ``"boxes"`` (wired).
        coder: writes the targets of a loss on deltas (wired).
        topk: priors of a bag, >= 1; memory of what learns is B x M x topk.
        overlap: IoU from which a box may be excused, 0..1.
        alpha: weight of the bags in 0..1 (1 - alpha for "nothing").
        gamma: how strongly priors that say "nothing" already are turned down, >= 0.
        box_weight: factor of the box loss in a likelihood, > 0.

    Raises:
        ValueError: another box loss.

    Source: FreeAnchor: Learning to Match Anchors for Visual Object Detection, 2019, arXiv:1909.02466
    """

    background = False

    def __init__(
        self,
        box_loss: nn.Module,
        coder: Coder,
        *,
        topk: int = 50,
        overlap: float = 0.6,
        alpha: float = 0.5,
        gamma: float = 2.0,
        box_weight: float = 0.75,
    ):
        super().__init__()
        check_box_loss(box_loss, "free_anchor")
        self.box_loss, self.coder = box_loss, coder
        self.topk, self.overlap, self.alpha, self.gamma = topk, overlap, alpha, gamma
        self.box_weight = box_weight
        self.branches: list[str] = []

    def forward(self, output: DenseOutput, targets: Targets) -> Losses:
        """All bags of all pictures at once; a batch without objects has only the loss of "nothing"."""
        targets = targets.with_a_row()
        places, there, excused = self._bags(output, targets)
        count = targets.valid.sum().clamp(min=1)

        scores = logsigmoid(class_logits(output, targets, places))
        likelihood = scores - self.box_weight * box_costs(self.box_loss, self.coder, output, targets, places)
        bag = log_mean(log_of_sure(likelihood), likelihood, there)  # [B, M]
        positive = summed(-bag, targets, there) / count

        learned = ~ignored_priors(output, targets)[..., None]  # [B, P, 1]
        something = logsigmoid(output.logits) + torch.log1p(-excused)  # [B, P, C]
        negative = (absence(something, self.gamma) * learned).sum() / (count * self.topk)
        return {"positive": self.alpha * positive, "negative": (1 - self.alpha) * negative}

    @torch.no_grad()
    def _bags(self, output: DenseOutput, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        """Priors of each object's bag ``[B, M, K]``, which of them are real, and how far each is excused ``[B, P, C]``.

        Objects in chunks: beside the answer memory is B x CHUNK x P.
        """
        batch, count, classes = output.logits.shape
        excused = output.logits.new_zeros(batch, classes, count)
        places, there = [], []
        for rows in slices(targets.boxes, output.priors):
            boxes, valid = targets.boxes[:, rows].to(output.priors.dtype), targets.valid[:, rows, None]
            shared, place = overlaps(boxes, output.priors).topk(min(self.topk, count), dim=-1)
            places.append(place)
            there.append((shared > 0) & valid)
            over = (overlaps(boxes, output.boxes) - self.overlap).clamp(min=0).masked_fill(~valid, 0)  # [B, m, P]
            share = over / over.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(over.dtype).tiny)
            label = targets.labels[:, rows, None].expand(share.shape)
            excused = excused.scatter_reduce(1, label, share.to(excused.dtype), "amax")
        return torch.cat(places, dim=1), torch.cat(there, dim=1), excused.transpose(1, 2)

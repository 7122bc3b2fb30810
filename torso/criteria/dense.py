"""The objective of dense detectors: assign, then classify every prior and regress the positive ones."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from torso.boxes.coders import Coder
from torso.structures import Assignment, DenseOutput, Losses, Targets


class DenseCriterion(nn.Module):
    """Assigner and two losses: ``{"class": ..., "box": ...}``, each divided by the number of positive priors.

    What a positive prior costs is multiplied by the weight of its object (``Targets.weights``); the number of priors
    by which is divided stays what it is.

    Args:
        assigner: says which prior learns which object.
        class_loss: a loss that takes ``"scores"``; sees every prior that is positive or negative.
        box_loss: a loss that takes ``"deltas"`` or ``"boxes"``; sees positive priors.
        coder: writes the targets of a loss on deltas.
        class_weight: factor of the class loss.
        box_weight: factor of the box loss.
        average: count positives over the ``"batch"`` (Detectron2, mmdetection) or divide each ``"image"`` by its own
            count and take the mean over images (torchvision). The paper does not say which.

    Source: Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002
    """

    def __init__(
        self,
        assigner: nn.Module,
        class_loss: nn.Module,
        box_loss: nn.Module,
        coder: Coder,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        average: Literal["batch", "image"] = "batch",
    ):
        super().__init__()
        if getattr(class_loss, "takes", None) != "scores":
            raise ValueError(f"a dense detector needs a class loss of scores such as focal, got {class_loss}")
        if getattr(box_loss, "takes", None) not in ("deltas", "boxes"):
            raise ValueError(f"a dense detector needs a box loss of deltas or boxes such as l1 or giou, got {box_loss}")
        self.assigner, self.class_loss, self.box_loss, self.coder = assigner, class_loss, box_loss, coder
        self.class_weight, self.box_weight, self.average = class_weight, box_weight, average

    def forward(self, output: DenseOutput, targets: Targets) -> Losses:
        """All priors of all pictures at once; a batch without objects has a finite class loss and a box loss of 0."""
        targets = with_a_row(targets)
        assigned: Assignment = self.assigner(output, targets)
        share = self._share(assigned.positive, output.logits.dtype)  # [B, 1]

        wanted = class_targets(assigned, targets, output.logits)  # [B, P, C]
        learned = (assigned.positive | assigned.negative).to(share.dtype) * share  # [B, P]
        regressed = assigned.positive.to(share.dtype) * share  # [B, P]
        if targets.weights is not None:  # objects of mixed pictures
            weight = targets.weights.to(share.dtype).gather(1, assigned.matched)
            learned = torch.where(assigned.positive, learned * weight, learned)
            regressed = regressed * weight
        class_loss = self.class_loss(output.logits, wanted, weight=learned[..., None], reduction="sum")

        boxes = gather(targets.boxes.to(output.boxes.dtype), assigned.matched)  # [B, P, 4]
        # Priors that learn no box get themselves as target: finite values that the weight 0 removes.
        boxes = torch.where(assigned.positive[..., None], boxes, output.priors)
        if self.box_loss.takes == "deltas":
            guess, target = output.deltas, self.coder.encode(boxes, output.priors)
        else:
            guess, target = output.boxes, boxes
        box_loss = self.box_loss(guess, target, weight=regressed, reduction="sum")
        return {"class": self.class_weight * class_loss, "box": self.box_weight * box_loss}

    def _share(self, positive: Tensor, dtype: torch.dtype) -> Tensor:
        """What one prior of each picture counts, ``[B, 1]``."""
        count = positive.sum(dim=1, keepdim=True, dtype=dtype)  # [B, 1]
        if self.average == "batch":
            return 1 / count.sum().clamp(min=1).expand_as(count)
        return 1 / (count.clamp(min=1) * len(count))


def with_a_row(targets: Targets) -> Targets:
    """The same targets with at least one (padding) row, so that gathering needs no special case."""
    if targets.boxes.shape[1]:
        return targets
    batch = len(targets.boxes)
    return Targets(
        boxes=targets.boxes.new_zeros(batch, 1, 4),
        labels=targets.labels.new_zeros(batch, 1),
        valid=targets.valid.new_zeros(batch, 1),
        ignore=targets.ignore.new_zeros(batch, 1),
    )


def gather(rows: Tensor, index: Tensor) -> Tensor:
    """``rows [B, M, K]`` at ``index [B, P]``: ``[B, P, K]``."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


def class_targets(assigned: Assignment, targets: Targets, logits: Tensor) -> Tensor:
    """Targets ``[B, P, C]``: 1 (or the assignment's quality) at the class of the object a positive prior learns."""
    score = assigned.positive.to(logits.dtype)  # [B, P]
    if assigned.quality is not None:
        score = score * assigned.quality.to(logits.dtype)
    labels = targets.labels.gather(1, assigned.matched)  # [B, P]
    return torch.zeros_like(logits).scatter_(2, labels[..., None], score[..., None])

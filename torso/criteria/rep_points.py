"""The objective of RepPoints: two sets of points, each with an assignment of its own."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from torso.assigners.scale import Scale
from torso.boxes.coders import Coder
from torso.boxes.rep_points import RepPoints as RepPointsCoder
from torso.config import Role
from torso.criteria.targets import box_targets, score_targets
from torso.structures import Assignment, DenseOutput, Losses, Targets


class RepPoints(nn.Module):
    """First points learn the objects of one assigner, classes and second points those of another.

    To the second assigner the boxes of the first points are the priors. ``{"class", "first", "box"}``: each loss is
    divided by the positives of its own assignment. A box loss of ``"deltas"`` compares the corners in units of
    ``scale`` strides, as the authors do; one of ``"boxes"`` compares boxes.

    Args:
        assigner: of classes and second points; ``max_iou`` in the paper, 0.5 and 0.4.
        class_loss: a loss that takes ``"scores"`` or ``"classes"``.
        box_loss: a loss that takes ``"deltas"`` or ``"boxes"``, of both sets.
        coder: makes a box of points: ``rep_points``.
        class_weight: factor of the class loss.
        box_weight: factor of the loss of the second points.
        first: assigner of the first points; `torso.assigners.Scale` when None.
        first_weight: factor of their loss.
        scale: unit of the corners, in strides.

    Raises:
        ValueError: another coder, a loss that takes something else.

    Source: RepPoints: Point Set Representation for Object Detection, 2019, arXiv:1904.11490, section 4.2
    """

    def __init__(
        self,
        assigner: nn.Module,
        class_loss: nn.Module,
        box_loss: nn.Module,
        coder: Coder,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        *,
        first: Annotated[nn.Module | None, Role("assigner")] = None,
        first_weight: float = 0.5,
        scale: float = 4.0,
    ):
        super().__init__()
        if not isinstance(coder, RepPointsCoder):
            raise ValueError(f"the criterion rep_points needs the coder rep_points, got {type(coder).__name__}")
        if getattr(class_loss, "takes", None) not in ("scores", "classes"):
            raise ValueError(f"a dense detector needs a class loss of scores such as focal, got {class_loss}")
        if getattr(box_loss, "takes", None) not in ("deltas", "boxes"):
            raise ValueError(f"rep_points needs a box loss of deltas or boxes such as smooth_l1, got {box_loss}")
        self.assigner, self.class_loss, self.box_loss, self.coder = assigner, class_loss, box_loss, coder
        self.first = Scale() if first is None else first
        self.class_weight, self.first_weight, self.box_weight, self.scale = (
            class_weight,
            first_weight,
            box_weight,
            scale,
        )
        self.background: bool = class_loss.takes == "classes"
        """Scores are a softmax, and the head says one class more than there are: the background, the last."""
        self.branches = ["points"]
        """What the head has to say beside classes and boxes."""

    def forward(self, output: DenseOutput, targets: Targets) -> Losses:
        """All priors of all pictures at once."""
        targets = targets.with_a_row()
        guess = self.coder.decode(output.extra["points"], output.priors, output.strides)  # [B, P, 4]
        first: Assignment = self.first(output, targets)
        assigned: Assignment = self.assigner(output._replace(priors=guess.detach()), targets)
        return {
            "class": self.class_weight * self._class(output, assigned, targets),
            "first": self.first_weight * self._box(guess, output, first, targets),
            "box": self.box_weight * self._box(output.boxes, output, assigned, targets),
        }

    def _class(self, output: DenseOutput, assigned: Assignment, targets: Targets) -> Tensor:
        labels = targets.labels.gather(1, assigned.matched)  # [B, P]
        weight = (assigned.positive | assigned.negative).to(output.logits.dtype)
        weight = torch.where(assigned.positive, _counted(assigned, targets, weight.dtype), weight)
        weight = weight / _positives(assigned, weight.dtype)
        if self.background:
            wanted = torch.where(assigned.positive, labels, output.logits.shape[-1] - 1)
            cost: Tensor = self.class_loss(output.logits.transpose(1, 2), wanted, weight, "sum")
        else:
            wanted = score_targets(assigned.positive, labels, assigned.quality, output.logits)
            cost = self.class_loss(output.logits, wanted, weight=weight[..., None], reduction="sum")
        return cost

    def _box(self, guess: Tensor, output: DenseOutput, assigned: Assignment, targets: Targets) -> Tensor:
        boxes = box_targets(assigned, targets, output.priors)
        if self.box_loss.takes == "deltas":
            unit = self.scale * torch.cat([output.strides, output.strides], dim=-1)
            guess, boxes = guess / unit, boxes / unit
        weight = _counted(assigned, targets, guess.dtype) / _positives(assigned, guess.dtype)
        cost: Tensor = self.box_loss(guess, boxes, weight=weight, reduction="sum")
        return cost


def _counted(assigned: Assignment, targets: Targets, dtype: torch.dtype) -> Tensor:
    """What each positive prior counts, ``[B, P]``: the weight of its object."""
    positive = assigned.positive.to(dtype)
    return positive if targets.weights is None else positive * targets.weights.to(dtype).gather(1, assigned.matched)


def _positives(assigned: Assignment, dtype: torch.dtype) -> Tensor:
    return assigned.positive.sum(dtype=dtype).clamp(min=1)

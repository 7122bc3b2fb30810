"""The objective of sets: every object is found by one query, and all other queries say that they found nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from torso.boxes.shares import shares
from torso.config import Role
from torso.criteria.targets import box_targets, check_ignored, real, score_targets
from torso.losses.overlap import GIoU
from torso.structures import Assignment, DenseOutput, Losses, QueryOutput, Targets


class QueryCriterion(nn.Module):
    """Assigner and losses for every layer of a decoder: ``class``, ``box`` and ``overlap`` of the last one.

    Those of the layers before are ``layer1_class`` and so on, those of what the encoder proposes ``proposal_class``
    and so on; there all objects are of class 0. Boxes are compared as centre, width and height in 0..1 of the picture;
    their losses are divided by the number of objects of the batch. A loss of ``"scores"`` is, too; one of ``"classes"``
    by the sum of the weights of the queries (torch's weighted mean).

    Args:
        assigner: says which query learns which object.
        class_loss: a loss that takes ``"scores"`` (one against the rest) or ``"classes"`` (softmax with a background).
        box_loss: a loss that takes ``"deltas"`` (centre, width and height) or ``"boxes"`` (pixels).
        overlap_loss: a loss that takes ``"boxes"``, for the overlap; GIoU when None.
        class_weight: factor of the class loss.
        box_weight: factor of the box loss.
        overlap_weight: factor of the overlap's loss.
        nothing_weight: what a query without an object counts in a loss of ``"classes"``, 0..1.
        auxiliary: layers before the last learn, too.

    Source: End-to-End Object Detection with Transformers, 2020, arXiv:2005.12872; Deformable DETR, 2020,
        arXiv:2010.04159
    """

    of_queries: ClassVar[bool] = True
    branches: ClassVar[list[str]] = []

    def __init__(
        self,
        assigner: nn.Module,
        class_loss: nn.Module,
        box_loss: nn.Module,
        *,
        overlap_loss: Annotated[nn.Module | None, Role("loss")] = None,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        overlap_weight: float = 2.0,
        nothing_weight: float = 0.1,
        auxiliary: bool = True,
    ):
        super().__init__()
        if getattr(class_loss, "takes", None) not in ("scores", "classes"):
            raise ValueError(f"queries need a class loss of scores or classes such as focal, got {class_loss}")
        if getattr(box_loss, "takes", None) not in ("deltas", "boxes"):
            raise ValueError(f"queries need a box loss of deltas or boxes such as l1 or giou, got {box_loss}")
        overlap_loss = GIoU() if overlap_loss is None else overlap_loss
        if getattr(overlap_loss, "takes", None) != "boxes":
            raise ValueError(f"the overlap needs a loss of boxes such as giou, got {overlap_loss}")
        self.assigner, self.class_loss, self.box_loss = assigner, cast("Any", class_loss), cast("Any", box_loss)
        self.overlap_loss = overlap_loss
        self.class_weight, self.box_weight, self.overlap_weight = class_weight, box_weight, overlap_weight
        self.nothing_weight, self.auxiliary = nothing_weight, auxiliary
        self.background: bool = self.class_loss.takes == "classes"
        """Scores are a softmax, and the head says one class more than there are: the background, the last."""

    def forward(self, output: QueryOutput, targets: Targets) -> Losses:
        """All queries of all layers and pictures at once; a batch without objects has finite losses."""
        targets = targets.with_a_row()
        if not self.auxiliary:
            output = output._replace(logits=output.logits[-1:], boxes=output.boxes[-1:])
        layers = output.logits.shape[0]
        cases = [(output.layers(), _repeated(targets, layers))]
        if output.proposed is not None:
            cases.append((output.proposed, replace(targets, labels=torch.zeros_like(targets.labels))))
        count = targets.valid.sum().clamp(min=1)
        assigned = self._assigned(cases)
        found = self._losses(*cases[0], assigned[0], count, layers)
        losses = {name: x[-1] for name, x in found.items()}
        for layer in range(layers - 1):
            losses |= {f"layer{layer + 1}_{name}": x[layer] for name, x in found.items()}
        if output.proposed is not None:
            found = self._losses(*cases[1], assigned[1], count, 1)
            losses |= {f"proposal_{name}": x[0] for name, x in found.items()}
        return losses

    def _assigned(self, cases: list[tuple[DenseOutput, Targets]]) -> list[Assignment]:
        together = getattr(self.assigner, "together", None)  # one transfer for all of them
        found = together(cases) if together is not None else [self.assigner(*case) for case in cases]
        return [real(assigned, output.valid) for assigned, (output, _) in zip(found, cases, strict=True)]

    def _losses(
        self, output: DenseOutput, targets: Targets, assigned: Assignment, count: Tensor, layers: int
    ) -> dict[str, Tensor]:
        """The losses of each layer, ``[L]``, of priors ``[L * B, Q]``."""
        positive = assigned.positive.to(output.boxes.dtype)
        if targets.weights is not None:  # objects of mixed pictures
            positive = positive * targets.weights.to(positive.dtype).gather(1, assigned.matched)
        boxes = box_targets(assigned, targets, output.priors)  # [L * B, Q, 4]
        if self.box_loss.takes == "deltas":
            box = self.box_loss(output.deltas, shares(boxes, output))
        else:
            box = self.box_loss(output.boxes, boxes)
        overlap = self.overlap_loss(output.boxes, boxes)
        return {
            "class": self.class_weight * self._class_loss(output, targets, assigned, positive, count, layers),
            "box": self.box_weight * _each(box * positive, layers) / count,
            "overlap": self.overlap_weight * _each(overlap * positive, layers) / count,
        }

    def _class_loss(
        self,
        output: DenseOutput,
        targets: Targets,
        assigned: Assignment,
        positive: Tensor,
        count: Tensor,
        layers: int,
    ) -> Tensor:
        labels = targets.labels.gather(1, assigned.matched)
        if not self.background:
            weight = positive + assigned.negative.to(positive.dtype)
            wanted = score_targets(assigned.positive, labels, assigned.quality, output.logits)
            return _each(self.class_loss(output.logits, wanted, weight=weight.unsqueeze(-1)), layers) / count
        check_ignored(self.class_loss, output.logits.shape[-1])
        weight = positive + self.nothing_weight * assigned.negative.to(positive.dtype)
        wanted = torch.where(assigned.positive, labels, output.logits.shape[-1] - 1)
        # A query a row: the classes of one lie together in memory.
        cost = self.class_loss(output.logits.flatten(0, 1), wanted.flatten()).view_as(weight)
        total = _each(weight, layers)
        return _each(cost * weight, layers) / torch.where(total > 0, total, 1)


def _each(cost: Tensor, layers: int) -> Tensor:
    """The sums of each layer: ``[L * B, ...] -> [L]``."""
    return cost.reshape(layers, -1).sum(dim=1)


def _repeated(targets: Targets, times: int) -> Targets:
    """The targets of several layers, one after the other."""
    weights = None if targets.weights is None else targets.weights.repeat(times, 1)
    return Targets(
        targets.boxes.repeat(times, 1, 1),
        targets.labels.repeat(times, 1),
        targets.valid.repeat(times, 1),
        targets.ignore.repeat(times, 1),
        weights=weights,
    )

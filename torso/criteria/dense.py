"""The objective of dense detectors: assign, then classify every prior and regress the positive ones."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from torso.assigners.sample import Sampled
from torso.boxes.coders import Coder
from torso.boxes.overlap import iou
from torso.config import Role
from torso.criteria.targets import apart, box_targets, centerness, check_ignored, of_matched_class, real, score_targets
from torso.losses.classification import BinaryCrossEntropy
from torso.losses.reduction import Loss
from torso.structures import Assignment, DenseOutput, Losses, Targets

TAKES = ("deltas", "boxes", "uncertain")


class DenseCriterion(nn.Module):
    """Assigner and losses: ``{"class": ..., "box": ...}``, and what else is asked for, each divided by one count.

    What a positive prior costs is multiplied by the weight of its object (``Targets.weights``); the number of priors
    by which is divided stays what it is. With ``objectness_loss`` the class loss sees positive priors only, for
    whether there is anything is then learned apart.

    Args:
        assigner: says which prior learns which object.
        class_loss: a loss that takes ``"scores"`` (one against the rest) or ``"classes"`` (softmax with a background);
            sees every prior that is positive or negative.
        box_loss: a loss that takes ``"deltas"``, ``"boxes"`` or ``"uncertain"``; sees positive priors.
        coder: writes the targets of a loss on deltas.
        class_weight: factor of the class loss.
        box_weight: factor of the box loss.
        average: what the sums are divided by: positives of the ``"batch"`` (Detectron2, mmdetection); of each
            ``"image"``, then the mean over images (torchvision); learned priors, positive or negative
            (``"samples"``, RPN); ``"pictures"`` (YOLO); or the ``"quality"`` of the assignment's positives (TOOD).
        sample: which of the assigned priors learn, and how much; all, equally, when None.
        class_target: what the score of a positive prior should be: the ``"assigned"`` quality, 1 where the assigner
            gives none, or the ``"iou"`` of its box with its object (quality focal loss, YOLOX).
        box_by: what the box of a positive prior counts: ``"one"``; the ``"centerness"`` (ATSS), the assigned
            ``"quality"`` (TOOD), the ``"iou"`` of what is predicted there (PAA, OTA) or the predicted ``"score"`` of
            its class (GFL), and then the box loss is divided by the sum of these instead of the count (where
            ``average`` counts no positives their mean is made 1); or by ``"size"``, 2 less the share of the picture
            (YOLOv3).
        quality: a branch of the head that says how good a box is: its ``"centerness"`` (FCOS) or ``"iou"`` (PAA).
        quality_loss: a loss that takes ``"scores"`` for it; binary cross entropy when None.
        quality_weight: factor of it.
        objectness_loss: a loss that takes ``"scores"`` for a branch that says whether anything is there; no such
            branch when None.
        objectness_weight: factor of it.
        nothing_weight: what a negative prior counts in it.
        objectness_target: 1 at positive priors (``"one"``), or the ``"iou"`` of box and object.
        distribution_loss: a loss that takes ``"distribution"``, for a coder that has one (GFL).
        distribution_weight: factor of it.

    Source: Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002; Generalized Focal Loss, 2020,
        arXiv:2006.04388; YOLOv3, 2018, arXiv:1804.02767
    """

    of_regions: ClassVar[bool] = True
    """Priors may be regions, those of each picture its own, which were drawn for what they learn."""

    def __init__(
        self,
        assigner: nn.Module,
        class_loss: nn.Module,
        box_loss: nn.Module,
        coder: Coder,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        average: Literal["batch", "image", "samples", "pictures", "quality"] = "batch",
        *,
        sample: nn.Module | None = None,
        class_target: Literal["assigned", "iou"] = "assigned",
        box_by: Literal["one", "centerness", "iou", "quality", "score", "size"] = "one",
        quality: Literal["centerness", "iou"] | None = None,
        quality_loss: Annotated[nn.Module | None, Role("loss")] = None,
        quality_weight: float = 1.0,
        objectness_loss: Annotated[nn.Module | None, Role("loss")] = None,
        objectness_weight: float = 1.0,
        nothing_weight: float = 1.0,
        objectness_target: Literal["one", "iou"] = "one",
        distribution_loss: Annotated[nn.Module | None, Role("loss")] = None,
        distribution_weight: float = 0.25,
    ):
        super().__init__()
        if getattr(class_loss, "takes", None) not in ("scores", "classes"):
            raise ValueError(f"a dense detector needs a class loss of scores such as focal, got {class_loss}")
        if getattr(box_loss, "takes", None) not in TAKES:
            raise ValueError(f"a dense detector needs a box loss of deltas or boxes such as l1 or giou, got {box_loss}")
        _check_coder(coder, box_loss, distribution_loss)
        self.assigner, self.class_loss, self.box_loss, self.coder = assigner, class_loss, box_loss, coder
        self.class_weight, self.box_weight, self.average, self.sample = class_weight, box_weight, average, sample
        self.class_target, self.box_by = class_target, box_by
        self.quality, self.quality_weight = quality, quality_weight
        self.quality_loss = BinaryCrossEntropy() if quality_loss is None else quality_loss
        self.objectness_loss, self.objectness_weight = objectness_loss, objectness_weight
        self.nothing_weight, self.objectness_target = nothing_weight, objectness_target
        self.distribution_loss, self.distribution_weight = distribution_loss, distribution_weight
        self.background: bool = class_loss.takes == "classes"
        """Scores are a softmax, and the head says one class more than there are: the background, the last."""
        wanted = {"objectness": objectness_loss is not None, "variance": box_loss.takes == "uncertain"}
        self.branches = [*([quality] if quality else []), *(name for name, needed in wanted.items() if needed)]
        """What the head has to say beside classes and boxes."""

    def forward(self, output: DenseOutput, targets: Targets, assigned: Assignment | None = None) -> Losses:
        """All priors of all pictures at once; a batch without objects has a finite class loss and a box loss of 0.

        Where it was said before what each prior learns, ``assigned``, the assigner is not asked again.
        """
        targets = targets.with_a_row()
        if assigned is None:
            assigned = self.assigner(apart(output), targets)
        assigned = real(assigned, output.valid)
        output = of_matched_class(output, targets.labels.gather(1, assigned.matched), self.coder)
        boxes = box_targets(assigned, targets, output.priors)  # [B, P, 4]
        overlap = None
        if "iou" in (self.class_target, self.quality, self.objectness_target):
            overlap = iou(output.boxes.detach(), boxes)  # [B, P]

        class_factor, box_factor, costs = None, None, None
        if self.sample is not None:
            costs = self._costs(output, assigned, targets, overlap, boxes)
            sampled: Sampled = self.sample(assigned, *costs, output, targets)
            assigned = assigned._replace(positive=sampled.positive, negative=sampled.negative)
            class_factor, box_factor = sampled.class_weight, sampled.box_weight

        learned, counted, share = self._counted(output, assigned, targets)
        by_box = self._by_box(counted, share, output, assigned, targets, boxes)
        learned, by_box = _times(learned, class_factor), _times(by_box, box_factor)
        if costs is None:
            class_loss = self._class_cost(output, assigned, targets, overlap, weight=learned)
            box_loss = self._box_cost(output, boxes, weight=by_box)
        else:
            class_loss, box_loss = (costs[0] * learned).sum(), (costs[1] * by_box).sum()
        losses = {"class": self.class_weight * class_loss, "box": self.box_weight * box_loss}
        if self.distribution_loss is not None:
            wanted = self.coder.encode(boxes, output.priors, output.strides)
            spread = self.distribution_loss(output.deltas, wanted, weight=by_box, reduction="sum")
            losses["distribution"] = self.distribution_weight * spread
        if self.quality is not None:
            good = overlap if self.quality == "iou" else centerness(boxes, output.priors)
            good = self.quality_loss(output.extra[self.quality], good, weight=counted, reduction="sum")
            losses["quality"] = self.quality_weight * good
        if self.objectness_loss is not None:
            nothing = _times(self.nothing_weight * share, class_factor)
            there = self._objectness(output, assigned, counted, nothing, overlap)
            losses["objectness"] = self.objectness_weight * there
        return losses

    def _costs(
        self, output: DenseOutput, assigned: Assignment, targets: Targets, overlap: Tensor | None, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The losses ``[B, P]`` of class and box that a sampler ranks, 0 where nothing is learned.

        Where the objectness learns that nothing is there, that is what a negative prior costs.
        """
        positive = assigned.positive.to(output.logits.dtype)
        learned = positive + assigned.negative.to(output.logits.dtype)
        class_cost = self._class_cost(output, assigned, targets, overlap, learned, reduction="none")
        if self.objectness_loss is not None:
            said = output.extra["objectness"]
            nothing = self.objectness_loss(said, torch.zeros_like(said), weight=learned)
            class_cost = torch.where(assigned.positive, class_cost, nothing)
        return class_cost, self._box_cost(output, boxes, positive, reduction="none")

    def _counted(self, output: DenseOutput, assigned: Assignment, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        """What each prior counts for its class and its box, ``[B, P]``, and what one of a picture does, ``[B, 1]``."""
        positive, share = assigned.positive, self._share(assigned, output.logits.dtype)
        regressed = positive.to(share.dtype)
        learned = regressed if self.objectness_loss is not None else (positive | assigned.negative).to(share.dtype)
        if targets.weights is not None:  # objects of mixed pictures
            weight = targets.weights.to(share.dtype).gather(1, assigned.matched)
            learned = torch.where(positive, learned * weight, learned)
            regressed = regressed * weight
        return learned * share, regressed * share, share

    def _class_cost(
        self,
        output: DenseOutput,
        assigned: Assignment,
        targets: Targets,
        overlap: Tensor | None,
        weight: Tensor,
        reduction: Literal["none", "sum"] = "sum",
    ) -> Tensor:
        """The class loss weighted by ``[B, P]``, summed or of every prior, ``[B, P]``."""
        labels = targets.labels.gather(1, assigned.matched)  # [B, P]
        if self.background:
            classes = output.logits.shape[-1]
            check_ignored(self.class_loss, classes)
            wanted = torch.where(assigned.positive, labels, classes - 1)
            # A prior a row: the classes of one lie together in memory.
            logits, wanted = output.logits.flatten(0, 1), wanted.flatten()
            loss = self.class_loss.at_classes if isinstance(self.class_loss, Loss) else self.class_loss
            cost: Tensor = loss(logits, wanted, weight.flatten(), reduction)
            return cost.view_as(weight) if reduction == "none" else cost
        quality = overlap if self.class_target == "iou" else assigned.quality
        if reduction == "sum" and isinstance(self.class_loss, Loss):
            score = assigned.positive if quality is None else quality * assigned.positive
            return self.class_loss.at_labels(output.logits, labels, score, weight)
        wanted = score_targets(assigned.positive, labels, quality, output.logits)  # [B, P, C]
        cost = self.class_loss(output.logits, wanted, weight=weight[..., None], reduction=reduction)
        return cost.sum(dim=-1) if reduction == "none" else cost

    def _box_cost(
        self, output: DenseOutput, boxes: Tensor, weight: Tensor, reduction: Literal["none", "sum"] = "sum"
    ) -> Tensor:
        """The box loss weighted by ``[B, P]``, summed or of every prior, ``[B, P]``."""
        if self.box_loss.takes == "boxes":
            guess, wanted = output.boxes, boxes
        else:
            guess, wanted = output.deltas, self.coder.encode(boxes, output.priors, output.strides)
            if self.box_loss.takes == "uncertain":
                guess = torch.cat([guess, output.extra["variance"]], dim=-1)
        cost: Tensor = self.box_loss(guess, wanted, weight=weight, reduction=reduction)
        return cost

    def _by_box(
        self, counted: Tensor, share: Tensor, output: DenseOutput, assigned: Assignment, targets: Targets, boxes: Tensor
    ) -> Tensor:
        """What the box of each prior counts in all, ``[B, P]``."""
        if self.box_by == "one":
            return counted
        if self.box_by == "size":
            size = boxes[..., 2:] - boxes[..., :2]
            return counted * (2 - size.prod(dim=-1) / (output.size[0] * output.size[1]))
        if self.box_by == "centerness":
            factor = centerness(boxes, output.priors)
        elif self.box_by == "iou":
            factor = iou(output.boxes.detach(), boxes)
        elif self.box_by == "quality":
            factor = torch.ones_like(counted) if assigned.quality is None else assigned.quality.to(counted.dtype)
        else:
            labels = targets.labels.gather(1, assigned.matched)
            factor = output.class_scores().detach().gather(2, labels[..., None]).squeeze(-1)
        positive = assigned.positive.to(counted.dtype)
        total, count = (factor * positive).sum(dim=1, keepdim=True), positive.sum(dim=1, keepdim=True)
        if self.average != "image":
            total, count = total.sum(), count.sum()
        if self.average == "quality":  # it was divided by the sum of something else than a count
            count = 1 / share
        return counted * factor * (count / total.clamp(min=1e-6))

    def _objectness(
        self, output: DenseOutput, assigned: Assignment, counted: Tensor, nothing: Tensor, overlap: Tensor | None
    ) -> Tensor:
        """The loss of "is anything there", summed, with what a positive and what a negative prior counts."""
        assert self.objectness_loss is not None
        wanted = assigned.positive.to(counted.dtype)
        if self.objectness_target == "iou" and overlap is not None:
            wanted = wanted * overlap
        weight = torch.where(assigned.negative, nothing, counted)
        cost: Tensor = self.objectness_loss(output.extra["objectness"], wanted, weight=weight, reduction="sum")
        return cost

    def _share(self, assigned: Assignment, dtype: torch.dtype) -> Tensor:
        """What one prior of each picture counts, ``[B, 1]``."""
        learned = assigned.positive | assigned.negative if self.average == "samples" else assigned.positive
        count = learned.sum(dim=1, keepdim=True, dtype=dtype)  # [B, 1]
        if self.average == "pictures":
            return torch.ones_like(count) / len(count)
        if self.average == "image":
            return 1 / (count.clamp(min=1) * len(count))
        if self.average == "quality" and assigned.quality is not None:
            count = (assigned.quality.to(dtype) * assigned.positive).sum(dim=1, keepdim=True)
        return 1 / count.sum().clamp(min=1).expand_as(count)


def _check_coder(coder: Coder, box_loss: nn.Module, distribution_loss: nn.Module | None) -> None:
    bins = getattr(coder, "bins", None)
    if bins is None and distribution_loss is not None:
        raise ValueError(f"a distribution_loss needs a coder that has one, such as distribution, not {coder}")
    if bins is not None and box_loss.takes != "boxes":
        raise ValueError(f"a coder of distributions needs a box loss of boxes such as giou, got {box_loss}")


def _times(weight: Tensor, factor: Tensor | None) -> Tensor:
    return weight if factor is None else weight * factor

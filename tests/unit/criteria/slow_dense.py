"""The objective of dense detectors as a loop over pictures and priors, each loss a formula of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from tests.unit.parts import slow
from torso.structures import Assignment, DenseOutput, Targets

ZERO = torch.zeros((), dtype=torch.float64)


@dataclass
class Options:
    """What `DenseCriterion` is told, with its defaults; losses by their name."""

    class_loss: str = "focal"
    box_loss: str = "l1"
    class_weight: float = 1.0
    box_weight: float = 1.0
    average: str = "batch"
    sample: Any = None
    class_target: str = "assigned"
    box_by: str = "one"
    quality: str | None = None
    quality_weight: float = 1.0
    objectness: bool = False
    objectness_weight: float = 1.0
    nothing_weight: float = 1.0
    objectness_target: str = "one"
    distribution: bool = False
    distribution_weight: float = 0.25


def bce(logit: Tensor, target: Tensor | float) -> Tensor:
    score = 1 / (1 + torch.exp(-logit))
    return -(target * torch.log(score) + (1 - target) * torch.log(1 - score))


class SlowDense:
    """One picture and one prior at a time."""

    def __init__(self, options: Options, coder: Any, output: DenseOutput, targets: Targets, assigned: Assignment):
        self.options, self.coder, self.output, self.targets, self.assigned = options, coder, output, targets, assigned
        self.pictures, self.count = assigned.positive.shape

    def box(self, i: int, p: int) -> Tensor:
        return self.targets.boxes[i, self.assigned.matched[i, p]]

    def weight(self, i: int, p: int) -> float:
        return 1.0 if self.targets.weights is None else float(self.targets.weights[i, self.assigned.matched[i, p]])

    def iou(self, i: int, p: int) -> float:
        return slow.iou(self.output.boxes[i, p].tolist(), self.box(i, p).tolist())

    def label(self, i: int, p: int) -> int:
        return int(self.targets.labels[i, self.assigned.matched[i, p]])

    def graded(self, i: int, p: int) -> float:
        return 1.0 if self.assigned.quality is None else float(self.assigned.quality[i, p])

    def class_cost(self, i: int, p: int) -> Tensor:
        """Focal or binary cross entropy of all classes; softmax with the background, the last."""
        logits, positive = self.output.logits[i, p], bool(self.assigned.positive[i, p])
        if self.options.class_loss == "cross_entropy":
            wanted = self.label(i, p) if positive else len(logits) - 1
            return -torch.log(torch.exp(logits[wanted]) / torch.exp(logits).sum())
        target = torch.zeros(len(logits), dtype=torch.float64)
        if positive:
            graded = self.iou(i, p) if self.options.class_target == "iou" else self.graded(i, p)
            target[self.label(i, p)] = graded
        if self.options.class_loss == "focal":
            return sigmoid_focal_loss(logits, target).sum()
        return sum((bce(logit, wanted) for logit, wanted in zip(logits, target, strict=True)), ZERO)

    def box_cost(self, i: int, p: int) -> Tensor:
        """Of a positive prior."""
        box, prior = self.box(i, p)[None], self.output.priors[p][None]
        if self.options.box_loss == "giou":
            return generalized_box_iou_loss(self.output.boxes[i, p][None], box, eps=0).sum()
        wanted = self.coder.encode(box, prior, self.output.strides[p][None])[0]
        difference = self.output.deltas[i, p] - wanted
        if self.options.box_loss == "l1":
            return difference.abs().sum()
        variance = self.output.extra["variance"][i, p]  # kl_box
        smooth = torch.where(difference.abs() < 1, difference**2 / 2, difference.abs() - 0.5)
        return (torch.exp(-variance) * smooth + variance / 2).sum()

    def distribution_cost(self, i: int, p: int) -> Tensor:
        """The two bins next to each side, each by how near the side is."""
        sides = self.coder.encode(self.box(i, p)[None], self.output.priors[p][None], self.output.strides[p][None])[0]
        cost = ZERO
        for side, logits in zip(sides.tolist(), self.output.deltas[i, p].view(4, -1), strict=True):
            low, log = int(side), functional.log_softmax(logits, dim=0)
            cost = cost - (low + 1 - side) * log[low] - (side - low) * log[low + 1]
        return cost

    def centerness(self, i: int, p: int) -> float:
        """Equation 3 of FCOS."""
        x1, y1, x2, y2 = self.box(i, p).tolist()
        a, b, c, d = self.output.priors[p].tolist()
        x, y = (a + c) / 2, (b + d) / 2
        left, right, top, bottom = x - x1, x2 - x, y - y1, y2 - y
        if min(left, right, top, bottom) <= 0:
            return 0.0
        return (min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)) ** 0.5

    def factor(self, i: int, p: int) -> float:
        """What the box of a positive prior counts."""
        kind = self.options.box_by
        if kind == "size":
            return 2 - slow.area(self.box(i, p).tolist()) / (self.output.size[0] * self.output.size[1])
        if kind == "score":
            logits = self.output.logits[i, p].detach()
            scores = logits.softmax(0) if self.output.background else logits.sigmoid()
            return float(scores[self.label(i, p)])
        return {"one": lambda *_: 1.0, "centerness": self.centerness, "quality": self.graded}[kind](i, p)

    def objectness_cost(self, i: int, p: int) -> Tensor:
        positive = bool(self.assigned.positive[i, p])
        wanted = float(positive)
        if positive and self.options.objectness_target == "iou":
            wanted = self.iou(i, p)
        return bce(self.output.extra["objectness"][i, p], wanted)

    def quality_cost(self, i: int, p: int) -> Tensor:
        wanted = self.iou(i, p) if self.options.quality == "iou" else self.centerness(i, p)
        return bce(self.output.extra[str(self.options.quality)][i, p], wanted)

    def places(self, mask: Tensor) -> list[tuple[int, int]]:
        return [(i, p) for i in range(self.pictures) for p in range(self.count) if mask[i, p]]

    def sampled(self) -> tuple[Tensor | None, Tensor | None]:
        """The factors of class and box losses; who learns is kept."""
        if self.options.sample is None:
            return None, None
        costs = [[ZERO] * self.count for _ in range(self.pictures)], [[ZERO] * self.count for _ in range(self.pictures)]
        for i, p in self.places(self.assigned.positive):
            costs[0][i][p], costs[1][i][p] = self.class_cost(i, p), self.box_cost(i, p)
        for i, p in self.places(self.assigned.negative):
            # Whether there is nothing is learned by the objectness where there is one.
            costs[0][i][p] = self.objectness_cost(i, p) if self.options.objectness else self.class_cost(i, p)
        tables = [torch.stack([torch.stack(row) for row in table]) for table in costs]
        chosen = self.options.sample(self.assigned, *tables, self.output, self.targets)
        self.assigned = self.assigned._replace(positive=chosen.positive, negative=chosen.negative)
        return chosen.class_weight, chosen.box_weight

    def share(self, i: int) -> float:
        """What one prior of a picture counts."""
        positives, negatives = self.places(self.assigned.positive), self.places(self.assigned.negative)
        if self.options.average == "image":
            return 1 / max(1, sum(j == i for j, _ in positives)) / self.pictures
        divisor = {
            "batch": len(positives),
            "samples": len(positives) + len(negatives),
            "pictures": self.pictures,
            "quality": sum(self.graded(*place) for place in positives),
        }[self.options.average]
        return 1 / max(1, divisor)

    def box_share(self, i: int) -> float:
        """What one prior counts for its box where boxes are weighed."""
        positives = self.places(self.assigned.positive)
        if self.options.average == "image":
            positives = [place for place in positives if place[0] == i]
        total = sum(self.factor(*place) for place in positives)
        if self.options.box_by in ("one", "size") or not total:
            return self.share(i)
        if self.options.average == "image":
            return 1 / total / self.pictures
        if self.options.average in ("samples", "pictures"):
            return self.share(i) * len(positives) / total
        return 1 / total

    def losses(self) -> dict[str, Tensor]:
        options, (of_class, of_box) = self.options, self.sampled()
        shares = [self.share(i) for i in range(self.pictures)]
        box_shares = [self.box_share(i) for i in range(self.pictures)]
        found = {"class": ZERO, "box": ZERO}
        extra = {"distribution": options.distribution, "quality": options.quality, "objectness": options.objectness}
        found |= {name: ZERO for name, wanted in extra.items() if wanted}
        for i, p in self.places(self.assigned.positive):
            counts = self.weight(i, p) * shares[i]
            by_class, by_box = (1.0 if x is None else x[i, p] for x in (of_class, of_box))
            boxed = self.weight(i, p) * box_shares[i] * self.factor(i, p)
            found["class"] = found["class"] + counts * by_class * self.class_cost(i, p)
            found["box"] = found["box"] + boxed * by_box * self.box_cost(i, p)
            if options.distribution:
                found["distribution"] = found["distribution"] + boxed * by_box * self.distribution_cost(i, p)
            if options.quality:
                found["quality"] = found["quality"] + counts * self.quality_cost(i, p)
            if options.objectness:
                found["objectness"] = found["objectness"] + counts * self.objectness_cost(i, p)
        for i, p in self.places(self.assigned.negative):
            by_class = 1.0 if of_class is None else of_class[i, p]
            if options.objectness:
                cost = options.nothing_weight * self.objectness_cost(i, p)
                found["objectness"] = found["objectness"] + shares[i] * by_class * cost
            else:
                found["class"] = found["class"] + shares[i] * by_class * self.class_cost(i, p)
        return {name: getattr(options, f"{name}_weight") * loss for name, loss in found.items()}

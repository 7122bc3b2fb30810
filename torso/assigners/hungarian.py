"""One query for each object, so that the sum of what the pairs cost is the smallest there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from torso.assigners.lowest import lowest
from torso.boxes.convert import area
from torso.boxes.overlap import pairwise_giou
from torso.boxes.shares import shares
from torso.structures import Assignment, DenseOutput, Targets

BIG = 1e30  # what no pair of finite numbers costs
Case = tuple[DenseOutput, Targets]


class Hungarian(nn.Module):
    """Objects and priors one to one, at the lowest sum of class, distance and overlap; all other priors are negative.

    The distance is L1 between centres, widths and heights as shares of the picture, the overlap GIoU. Where objects are
    more than priors, the dearest objects get none. The pairs are found on the host (scipy), with one transfer a call.

    Args:
        class_weight: factor of the class cost.
        box_weight: factor of the distance.
        overlap_weight: factor of the overlap.
        class_cost: what a class costs: less the ``"probability"`` of the object's (DETR), or what the ``"focal"`` loss
            would rise by if it were not learned, less what it would if it were (Deformable DETR).
        alpha: of the focal cost, 0..1.
        gamma: of the focal cost.
        ignore_overlap: a prior whose box has at least this share of its area in an ignored region is not negative.

    Raises:
        ValueError: all weights are 0.

    Source: End-to-End Object Detection with Transformers, 2020, arXiv:2005.12872; Deformable DETR, 2020,
        arXiv:2010.04159
    """

    def __init__(
        self,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        overlap_weight: float = 2.0,
        class_cost: Literal["probability", "focal"] = "probability",
        alpha: float = 0.25,
        gamma: float = 2.0,
        ignore_overlap: float = 0.5,
    ):
        super().__init__()
        if not (class_weight or box_weight or overlap_weight):
            raise ValueError("a matching needs a cost: give class_weight, box_weight or overlap_weight")
        self.class_weight, self.box_weight, self.overlap_weight = class_weight, box_weight, overlap_weight
        self.class_cost, self.alpha, self.gamma = class_cost, alpha, gamma
        self.ignore_overlap = ignore_overlap

    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        """Assignment of P priors to M padded objects."""
        return self.together([(output, targets)])[0]

    @torch.no_grad()
    def together(self, cases: Sequence[Case]) -> list[Assignment]:
        """Assignments of several outputs, with one transfer for all of them."""
        cases = [(output, targets.with_a_row()) for output, targets in cases]
        pairs = lowest([self._costs(output, targets) for output, targets in cases])
        return [self._assignment(pair, *case) for pair, case in zip(pairs, cases, strict=True)]

    def _costs(self, output: DenseOutput, targets: Targets) -> Tensor:
        """What each pair costs, ``[B, P, M]``; infinite where there is no object."""
        boxes = targets.boxes.to(output.boxes.dtype)
        classes = targets.labels.unsqueeze(1).expand(-1, output.boxes.shape[1], -1)
        cost = self.class_weight * self._of_class(output.class_scores().gather(2, classes))
        said, wanted = shares(output.boxes, output), shares(boxes, output)
        apart = sum((said[..., i, None] - wanted[:, None, :, i]).abs() for i in range(4))
        cost = cost + self.box_weight * apart - self.overlap_weight * pairwise_giou(output.boxes, boxes)
        cost = cost.nan_to_num(BIG, BIG, BIG).clamp(max=BIG)  # taken only where nothing else is left
        if output.valid is not None:
            cost = torch.where(output.valid.unsqueeze(2), cost, BIG)
        return torch.where(targets.valid.unsqueeze(1), cost, torch.inf)

    def _of_class(self, probability: Tensor) -> Tensor:
        if self.class_cost == "probability":
            return -probability
        rest = 1 - probability
        learned = self.alpha * rest**self.gamma * (probability + 1e-8).log()
        not_learned = (1 - self.alpha) * probability**self.gamma * (rest + 1e-8).log()
        return not_learned - learned

    def _assignment(self, pair: Tensor, output: DenseOutput, targets: Targets) -> Assignment:
        positive = pair >= 0
        ignored = self._covered(output.boxes, targets)
        return Assignment(pair.clamp(min=0), positive, ~positive & ~ignored)

    def _covered(self, boxes: Tensor, targets: Targets) -> Tensor:
        """Which boxes ``[B, P, 4]`` lie in an ignored region: ``[B, P]`` bool."""
        regions = targets.boxes.to(boxes.dtype).unsqueeze(1)  # [B, 1, M, 4]
        each = boxes.unsqueeze(2)
        sides = [
            (torch.minimum(each[..., i + 2], regions[..., i + 2]) - torch.maximum(each[..., i], regions[..., i]))
            for i in (0, 1)
        ]
        shared = sides[0].clamp(min=0) * sides[1].clamp(min=0) * targets.ignore.unsqueeze(1)
        most = shared.amax(dim=2)  # [B, P]
        return (most >= self.ignore_overlap * area(boxes)) & (most > 0)

"""Where a detector of several stages looks: regions that a dense head proposes.

A proposer is called with the features and the size ``(height, width)`` of the network's input and returns what a dense
head says, or None; ``losses(output, targets)`` are its own; ``choose(output, features, size, keep)`` are its regions
``[B, R, 4]`` and which of them are no padding, ``[B, R]``, R the same for every picture. ``inside`` names what it
keeps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from torso.boxes.candidates import candidates
from torso.boxes.coders import Coder
from torso.boxes.convert import clip
from torso.models.detector import beside, look
from torso.models.inside import Keep
from torso.structures import DenseOutput, Detections, Features, Losses, Targets


class Proposer(Protocol):
    """The contract of this role."""

    inside: tuple[str, ...]

    def __call__(self, features: Features, size: tuple[int, int]) -> DenseOutput | None:
        """What a dense head says."""
        ...

    def losses(self, output: DenseOutput | None, targets: Targets) -> Losses:
        """What it learns."""
        ...

    def choose(
        self, output: DenseOutput | None, features: Features, size: tuple[int, int], keep: Keep
    ) -> tuple[Tensor, Tensor]:
        """Regions ``[B, R, 4]``, best first, and which are no padding, ``[B, R]``."""
        ...


class RegionProposals(nn.Module):
    """The best boxes of a dense head that knows one class, "object".

    Args:
        head: features to one logit and the deltas at every prior.
        prior: the boxes the head looks at.
        coder: deltas and priors to boxes.
        criterion: its objective; all objects are of class 0 to it.
        suppress: candidates to proposals; its ``max_detections`` is R.
        topk: candidates of a level at most.
        least: sides in pixels below which a box is no proposal.

    Raises:
        ValueError: a criterion with a softmax: proposals have one score.

    Source: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, 2015, arXiv:1506.01497
    """

    inside: ClassVar[tuple[str, ...]] = ("prior_scores", "prior_boxes")

    def __init__(
        self,
        head: nn.Module,
        prior: nn.Module,
        coder: Coder,
        criterion: nn.Module,
        suppress: nn.Module,
        topk: int = 1000,
        least: float = 1e-3,
    ):
        super().__init__()
        if getattr(criterion, "background", False):
            raise ValueError("proposals have one score, so their class loss takes scores, such as binary_cross_entropy")
        self.head, self.prior, self.coder, self.criterion, self.suppress = head, prior, coder, criterion, suppress
        self.topk, self.least = topk, least

    def forward(self, features: Features, size: tuple[int, int]) -> DenseOutput:
        """What the head says at every prior."""
        return look(features, self.head, self.prior, self.coder, size, background=False)

    def losses(self, output: DenseOutput, targets: Targets) -> Losses:
        """The losses of the criterion."""
        losses: Losses = self.criterion(output, replace(targets, labels=torch.zeros_like(targets.labels)))
        return losses

    def choose(
        self, output: DenseOutput, features: Features, size: tuple[int, int], keep: Keep
    ) -> tuple[Tensor, Tensor]:
        """Regions ``[B, R, 4]``, best first, and which are no padding, ``[B, R]``."""
        boxes = clip(output.boxes.detach(), *size)  # no_grad around a loop does not export
        scores = keep("prior_scores", output.class_scores().detach())  # [B, P, 1]
        boxes = keep("prior_boxes", boxes)
        large = ((boxes[..., 2:] - boxes[..., :2]) >= self.least).all(dim=-1, keepdim=True)
        scores = torch.where(large, scores, 0.0)
        more = [beside(output, name) for name in getattr(self.suppress, "extra", ())]
        boxes = torch.cat([boxes, *more], dim=-1) if more else boxes
        found: Detections = self.suppress(*candidates(scores, boxes, output.counts, threshold=0.0, topk=self.topk))
        return found.boxes, found.valid

"""Variance voting: a box of the answer moves to where its neighbours, each as sure as it is, say its edges are."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from torso.boxes.greedy import Greedy
from torso.boxes.ordered import by_score, check, finite, precise, same_class
from torso.boxes.overlap import pairwise_iou
from torso.structures import Detections


class VarianceVoting(nn.Module):
    """Greedy suppression, then each box of the answer is the mean of all candidates that it overlaps.

    A candidate's weight for an edge is ``exp(-(1 - IoU)^2 / sigma)`` over the variance of that edge. The head says the
    logarithms of the variances of the *deltas*; here they become those of the edges, in pixels: with ``deltas`` of
    centre and size, ``var(left) = var(right) = width^2 (var(x) + var(w) / 4)``, which takes the prior to be as large as
    the box, and the four to be independent; with ``deltas`` of four edges, ``width^2`` (left and right) or ``height^2``
    times each one's own. A common factor of all deltas (a coder's weights) does not matter.

    Args:
        overlap: the largest IoU (0..1) that two boxes of the answer may have before they are moved.
        sigma: how much nearer candidates count more, above 0; the paper's best is 0.02.
        max_detections: rows of the answer, over all classes.
        topk: candidates that vote, the best: a picture costs a few matrices of ``max_detections x topk`` floats.
        per_class: boxes of different classes leave each other alone.
        deltas: what the coder's four numbers say: ``centre`` (x, y, w, h) or ``edges`` (left, top, right, bottom).

    Raises:
        ValueError: an argument outside its range.

    Source: Bounding Box Regression with Uncertainty for Accurate Object Detection, 2019, arXiv:1809.08545
    """

    extra: ClassVar[tuple[str, ...]] = ("variance",)

    def __init__(
        self,
        overlap: float = 0.5,
        sigma: float = 0.02,
        max_detections: int = 300,
        *,
        topk: int = 2000,
        per_class: bool = True,
        deltas: Literal["centre", "edges"] = "centre",
    ):
        super().__init__()
        check(max_detections, overlap=overlap)
        if not sigma > 0 or topk < 1:
            raise ValueError(f"sigma must be above 0 and topk at least 1, got {sigma} and {topk}")
        if deltas not in ("centre", "edges"):
            raise ValueError(f"deltas is centre or edges, got {deltas!r}")
        self.overlap, self.sigma, self.deltas = overlap, sigma, deltas
        self.max_detections, self.topk, self.per_class = max_detections, topk, per_class
        self.suppress = Greedy(pairwise_iou, overlap, max_detections, per_class)

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 8]``, corners and log variances of deltas.

        ``scores [B, K]`` (padding: 0) and ``labels [B, K]`` are as ever.
        """
        found: Detections = self.suppress(boxes[..., :4], scores, labels)
        boxes, scores, labels = (each[:, : self.topk] for each in by_score(boxes, scores, labels))
        corners = precise(boxes[..., :4])
        overlap = pairwise_iou(precise(found.boxes), corners)  # [B, D, K]
        votes = (overlap > 0) & (scores > 0).unsqueeze(1)
        if self.per_class:
            votes = votes & same_class(found.labels, labels)
        near = -(1 - overlap).square() / self.sigma
        log_variance = self._of_edges(corners, precise(boxes[..., 4:]))  # [B, K, 4]
        moved = []
        for edge in range(4):
            # Softmax: the weights are ratios, and variances far from 1 must not overflow.
            weight = torch.where(votes, near - log_variance[..., edge].unsqueeze(1), -torch.inf)
            weight = torch.where(found.valid.unsqueeze(-1) & votes.any(dim=-1, keepdim=True), weight, 0.0)
            moved.append((weight.softmax(dim=-1) @ finite(corners[..., edge]).unsqueeze(-1)).squeeze(-1))
        voted = torch.stack(moved, dim=-1).to(found.boxes.dtype)
        # A box without area overlaps nothing, not even itself: it stays where it is.
        return found._replace(boxes=torch.where(votes.any(dim=-1, keepdim=True), voted, found.boxes))

    def _of_edges(self, corners: Tensor, log_variance: Tensor) -> Tensor:
        """Log variances of the edges in pixels from those of the deltas, ``[B, K, 4]``."""
        tiny = torch.finfo(corners.dtype).tiny
        width = (corners[..., 2:3] - corners[..., 0:1]).clamp(min=tiny).log()
        height = (corners[..., 3:4] - corners[..., 1:2]).clamp(min=tiny).log()
        size = 2 * torch.cat([width, height], dim=-1)  # [B, K, 2]
        if self.deltas == "centre":
            quarter = log_variance[..., 2:] - math.log(4)
            log_variance = torch.logaddexp(log_variance[..., :2], quarter).repeat(1, 1, 2)
        return log_variance + size.repeat(1, 1, 2)

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"overlap={self.overlap}, sigma={self.sigma}, max_detections={self.max_detections}"

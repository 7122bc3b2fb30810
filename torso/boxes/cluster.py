"""Cluster-NMS: all candidates of a picture settled together as one matrix, which can then say more than who stays."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from torso.boxes.greedy import settled
from torso.boxes.ordered import Above, again_by_score, answer, by_score, check, finite, padded, precise, same_class
from torso.boxes.overlap import pairwise_diou, pairwise_iou
from torso.structures import Detections


class ClusterNMS(nn.Module):
    """Greedy suppression as a matrix that is multiplied until it stands still: the boxes that stay are those of NMS.

    ``penalty`` removes no box by its overlap: each score falls by the product of ``exp(-IoU^2 / sigma)`` over the
    better boxes that stay. ``weighted`` moves each box that stays to the mean of itself and the worse boxes that
    overlap it by more than ``overlap``, weighted by score times IoU; the paper leaves open which boxes of a cluster
    count, and its code takes those above 0.8.

    Args:
        overlap: the largest overlap (0..1) that two boxes of the answer may have.
        method: what is made of the matrix.
        distance: overlap is DIoU in place of IoU.
        sigma: of ``penalty``: the width of the bell, above 0.
        score: of ``penalty``: a box whose score is not above this (0..1) is dropped.
        max_detections: rows of the answer, over all classes.
        topk: candidates that take part, the best: a picture costs a few matrices of ``topk x topk`` floats.
        per_class: boxes of different classes leave each other alone.

    Raises:
        ValueError: an argument outside its range, or an unknown method.

    Source: Enhancing Geometric Factors in Model Learning and Inference for Object Detection and Instance Segmentation,
    2020, arXiv:2005.03572
    """

    def __init__(
        self,
        overlap: float = 0.5,
        method: Literal["plain", "penalty", "weighted"] = "plain",
        max_detections: int = 300,
        *,
        distance: bool = False,
        sigma: float = 0.2,
        score: float = 0.01,
        topk: int = 1000,
        per_class: bool = True,
    ):
        super().__init__()
        check(max_detections, overlap=overlap, score=score)
        if method not in ("plain", "penalty", "weighted"):
            raise ValueError(f"method is plain, penalty or weighted, got {method!r}")
        if not sigma > 0 or topk < 1:
            raise ValueError(f"sigma must be above 0 and topk at least 1, got {sigma} and {topk}")
        self.overlap, self.method, self.distance, self.sigma, self.score = overlap, method, distance, sigma, score
        self.above = Above(overlap)
        self.max_detections, self.topk, self.per_class = max_detections, topk, per_class

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        boxes, scores, labels = (each[:, : self.topk] for each in by_score(boxes, scores, labels))
        measure = pairwise_diou if self.distance else pairwise_iou
        overlap = measure(precise(boxes), precise(boxes)).tril(diagonal=-1)  # [B, K, K]: row i, better box j
        if self.per_class:
            overlap = torch.where(same_class(labels, labels), overlap, 0.0)
        beats, real = self.above(overlap), scores > 0
        stays = settled(beats, real)
        if self.method == "penalty":
            factor = torch.exp(-overlap.clamp(min=0).square() / self.sigma)
            scores = scores * torch.where(stays.unsqueeze(1), factor, 1.0).prod(dim=-1)
            scores = torch.where(scores > self.score, scores, 0.0)
            return again_by_score(boxes, scores, labels, self.max_detections)
        if self.method == "weighted":
            weight = overlap * beats * scores.unsqueeze(-1)  # of the worse box i in the box j
            own = torch.where(real, scores, 1.0).unsqueeze(-1)
            boxes = (weight.mT @ finite(precise(boxes)) + own * boxes) / (weight.sum(dim=1).unsqueeze(-1) + own)
        return answer(*padded(boxes, scores * stays, labels, self.max_detections))

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"{self.method}, overlap={self.overlap}, max_detections={self.max_detections}"

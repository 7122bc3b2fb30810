"""Suppression: from many scored boxes to the few that are the answer, with fixed sizes so that it exports.

A suppressor is called with ``boxes [B, K, 4]`` (``xyxy``), ``scores [B, K]`` and ``labels [B, K]``, in any order; an
entry whose score is not above 0 is padding. It returns ``Detections`` of ``max_detections`` rows. ``candidates`` makes
its input. A suppressor that wants more of the head names its branches in ``extra``: their numbers follow the box.
``level``, the number of the level that a box comes from, can be named there too.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from torso.boxes.candidates import candidates
from torso.boxes.cluster import ClusterNMS
from torso.boxes.crf import DenseCRF
from torso.boxes.ensemble import Ensemble
from torso.boxes.fusion import WeightedFusion
from torso.boxes.greedy import NMS, BatchedNMS, DIoUNMS
from torso.boxes.ios_nms import IoSNMS
from torso.boxes.level_nms import LevelNMS
from torso.boxes.matrix_nms import MatrixNMS
from torso.boxes.ordered import again_by_score, check
from torso.boxes.soft import SoftNMS
from torso.boxes.voting import VarianceVoting
from torso.structures import Detections

__all__ = [
    "BESIDE",
    "NMS",
    "SUPPRESSORS",
    "BatchedNMS",
    "ClusterNMS",
    "DIoUNMS",
    "DenseCRF",
    "Ensemble",
    "IoSNMS",
    "LevelNMS",
    "MatrixNMS",
    "SoftNMS",
    "Suppressor",
    "Threshold",
    "VarianceVoting",
    "WeightedFusion",
    "candidates",
]


class Suppressor(Protocol):
    """The contract of this role."""

    max_detections: int

    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        ...


class Threshold(nn.Module):
    """No suppression: the ``max_detections`` best boxes with a score above ``score``.

    Args:
        max_detections: rows of the answer.
        score: what a score (0..1) has to exceed.

    Source: own design.
    """

    def __init__(self, max_detections: int = 300, score: float = 0.0):
        super().__init__()
        check(max_detections, score=score)
        self.max_detections, self.score = max_detections, score

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        return again_by_score(boxes, torch.where(scores > self.score, scores, 0.0), labels, self.max_detections)

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"max_detections={self.max_detections}, score={self.score}"


SUPPRESSORS = {
    "nms": NMS,
    "batched_nms": BatchedNMS,
    "cluster_nms": ClusterNMS,
    "dense_crf": DenseCRF,
    "diou_nms": DIoUNMS,
    "ensemble": Ensemble,
    "ios_nms": IoSNMS,
    "level_nms": LevelNMS,
    "matrix_nms": MatrixNMS,
    "soft_nms": SoftNMS,
    "threshold": Threshold,
    "variance_voting": VarianceVoting,
    "weighted_fusion": WeightedFusion,
}

BESIDE = {
    "dense_crf": "takes class maps and pictures, not candidates",
    "ensemble": "takes models and pictures, not candidates",
}
"""What the catalogue lists here without the contract of this role, and why."""

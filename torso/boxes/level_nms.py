"""Suppression within each level of the pyramid, as proposals have it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from torso.boxes.greedy import BatchedNMS
from torso.structures import Detections

STEP = 1 << 20  # more than there are classes: level and class as one number


class LevelNMS(nn.Module):
    """Greedy non-maximum suppression within each class of each level: boxes of different levels leave each other alone.

    Objects of one place and another size are looked for on another level, so proposals of both should stay.

    Args:
        overlap: the largest IoU (0..1) that two boxes of one class and level in the answer may have.
        max_detections: rows of the answer, over all classes and levels.

    Source: Feature Pyramid Networks for Object Detection, 2016, arXiv:1612.03144
        (torchvision's RegionProposalNetwork)
    """

    extra: ClassVar[tuple[str, ...]] = ("level",)  # the model says it, not the head

    def __init__(self, overlap: float = 0.7, max_detections: int = 1000):
        super().__init__()
        self.suppress = BatchedNMS(overlap, max_detections)
        self.max_detections = max_detections

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 5]``, the last number the level, ``scores [B, K]`` and ``labels [B, K]``."""
        level = boxes[..., 4].long()
        found: Detections = self.suppress(boxes[..., :4], scores, labels + level * STEP)
        return found._replace(labels=found.labels % STEP)

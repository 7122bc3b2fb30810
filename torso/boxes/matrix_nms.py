"""Matrix NMS: soft suppression in one step, without a loop."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torso.boxes.ordered import again_by_score, by_score, check, precise, same_class
from torso.boxes.overlap import pairwise_iou
from torso.structures import Detections


class MatrixNMS(nn.Module):
    """Every score falls by its worst overlap with a better box, less so where that box is overlapped itself.

    ``gaussian`` is ``exp(-(IoU^2 - worst^2) / sigma)``, ``linear`` is ``(1 - IoU) / (1 - worst)``, with the ``worst``
    IoU of the better box with those better still; the least of these over all better boxes is the factor. The paper
    compares masks, this compares boxes, as PP-YOLO does. The paper's code multiplies with sigma = 2, which is 0.5 here.

    Args:
        method: how scores fall.
        sigma: of ``gaussian``: the width of the bell, above 0.
        score: a box whose score is not above this (0..1) is dropped.
        max_detections: rows of the answer, over all classes.
        topk: candidates that take part, the best: a picture costs a few matrices of ``topk x topk`` floats.
        per_class: boxes of different classes leave each other alone.

    Raises:
        ValueError: an argument outside its range, or an unknown method.

    Source: SOLOv2: Dynamic and Fast Instance Segmentation, 2020, arXiv:2003.10152
    """

    def __init__(
        self,
        method: Literal["gaussian", "linear"] = "gaussian",
        sigma: float = 0.5,
        score: float = 0.01,
        max_detections: int = 300,
        *,
        topk: int = 500,
        per_class: bool = True,
    ):
        super().__init__()
        check(max_detections, score=score)
        if method not in ("gaussian", "linear"):
            raise ValueError(f"method is gaussian or linear, got {method!r}")
        if not sigma > 0 or topk < 1:
            raise ValueError(f"sigma must be above 0 and topk at least 1, got {sigma} and {topk}")
        self.method, self.sigma, self.score = method, sigma, score
        self.max_detections, self.topk, self.per_class = max_detections, topk, per_class

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """The answer among ``boxes [B, K, 4]`` with ``scores [B, K]`` (padding: 0) and ``labels [B, K]``."""
        boxes, scores, labels = (each[:, : self.topk] for each in by_score(boxes, scores, labels))
        overlap = pairwise_iou(precise(boxes), precise(boxes)).tril(diagonal=-1)  # [B, K, K]: row i, better box j
        if self.per_class:
            overlap = torch.where(same_class(labels, labels), overlap, 0.0)
        worst = _largest(overlap).unsqueeze(1)  # [B, 1, K]: of the better box j
        if self.method == "gaussian":
            fall = (overlap.square() - worst.square()) / self.sigma
        else:
            # A box that is wholly another one's has lost its score and takes none: 1 - worst is 0 there.
            room = torch.where(worst < 1, 1 - worst, 1.0)
            fall = torch.where(worst < 1, 1 - (1 - overlap) / room, 0.0)
        most = _largest(fall)  # [B, K]
        factor = torch.exp(-most) if self.method == "gaussian" else 1 - most
        scores = scores * factor
        scores = torch.where(scores > self.score, scores, 0.0)
        return again_by_score(boxes, scores, labels, self.max_detections)

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"{self.method}, score={self.score}, max_detections={self.max_detections}"


def _largest(matrix: Tensor) -> Tensor:
    """The largest of each row of ``[B, K, K]``, or 0 where none is larger."""
    return F.pad(matrix, (0, 1)).amax(dim=-1)

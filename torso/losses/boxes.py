"""Losses of boxes, written as deltas or as corners."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from torso.boxes.overlap import giou
from torso.losses.reduction import Loss


class L1(Loss):
    """Sum of absolute differences of the deltas: ``[..., D]`` and ``[..., D]`` to ``[...]``.

    Source: torch.nn.L1Loss.
    """

    takes = "deltas"

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        return (prediction - target).abs().sum(dim=-1)


class SmoothL1(Loss):
    """Quadratic below ``beta``, linear above, summed over the deltas: ``[..., D]`` and ``[..., D]`` to ``[...]``.

    Args:
        beta: where the two meet, in the deltas' units; > 0.

    Source: Fast R-CNN, 2015, arXiv:1504.08083 (torch.nn.SmoothL1Loss)
    """

    takes = "deltas"

    def __init__(self, beta: float = 1.0 / 9):
        super().__init__()
        self.beta = beta

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        loss = functional.smooth_l1_loss(prediction, target, reduction="none", beta=self.beta)
        return loss.sum(dim=-1)


class GIoU(Loss):
    """1 - generalised IoU of ``xyxy`` boxes, in 0..2: ``[..., 4]`` and ``[..., 4]`` to ``[...]``.

    Source: Generalized Intersection over Union, 2019, arXiv:1902.09630
    """

    takes = "boxes"

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        return 1 - giou(prediction, target)

"""Losses of boxes, written as deltas or as corners."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from torso.boxes.overlap import giou
from torso.losses.reduction import Reduction, reduced


class L1(nn.Module):
    """Sum of absolute differences of the deltas: ``[..., D]`` and ``[..., D]`` to ``[...]``.

    Source: torch.nn.L1Loss.
    """

    takes = "deltas"

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: Reduction = "none",
        avg_factor: Tensor | float | None = None,
    ) -> Tensor:
        """See the contract in `torso.losses`."""
        return reduced((prediction - target).abs().sum(dim=-1), weight, reduction, avg_factor)


class SmoothL1(nn.Module):
    """Quadratic below ``beta``, linear above, summed over the deltas: ``[..., D]`` and ``[..., D]`` to ``[...]``.

    Args:
        beta: where the two meet, in the deltas' units; > 0.

    Source: Fast R-CNN, 2015, arXiv:1504.08083 (torch.nn.SmoothL1Loss)
    """

    takes = "deltas"

    def __init__(self, beta: float = 1.0 / 9):
        super().__init__()
        self.beta = beta

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: Reduction = "none",
        avg_factor: Tensor | float | None = None,
    ) -> Tensor:
        """See the contract in `torso.losses`."""
        loss = functional.smooth_l1_loss(prediction, target, reduction="none", beta=self.beta)
        return reduced(loss.sum(dim=-1), weight, reduction, avg_factor)


class GIoU(nn.Module):
    """1 - generalised IoU of ``xyxy`` boxes, in 0..2: ``[..., 4]`` and ``[..., 4]`` to ``[...]``.

    Source: Generalized Intersection over Union, 2019, arXiv:1902.09630
    """

    takes = "boxes"

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: Reduction = "none",
        avg_factor: Tensor | float | None = None,
    ) -> Tensor:
        """See the contract in `torso.losses`."""
        return reduced(1 - giou(prediction, target), weight, reduction, avg_factor)

"""Losses of boxes as the head writes them: raw numbers in the coder's units."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

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


class BalancedL1(Loss):
    """Smooth L1 whose gradient rises early, so that boxes that are nearly right still count: ``[..., D]`` to ``[...]``.

    The gradient is ``alpha ln(b d / beta + 1)`` up to ``beta`` and ``gamma`` above, with ``b`` such that the two meet.
    The paper has ``beta`` 1. Of the ways to scale it this one keeps the gradient continuous; mmdetection's, which
    scales inside the logarithm only, has a jump wherever ``beta`` is not 1.

    Args:
        alpha: how early it rises: smaller is earlier; > 0.
        gamma: gradient of outliers, > 0.
        beta: where a difference becomes an outlier, in the deltas' units; > 0.

    Source: Libra R-CNN: Towards Balanced Learning for Object Detection, 2019, arXiv:1904.02701, equations 7-9
    """

    takes = "deltas"

    def __init__(self, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0):
        super().__init__()
        self.alpha, self.gamma, self.beta = alpha, gamma, beta

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        b = math.expm1(self.gamma / self.alpha)
        far = (prediction - target).abs() / self.beta
        near = far.clamp(max=1)
        inner = self.alpha / b * (b * near + 1) * torch.log1p(b * near) - self.alpha * near
        loss = self.beta * (inner + self.gamma * (far - near))
        return loss.sum(dim=-1)


class KLBox(Loss):
    """Smooth L1 divided by a variance that is predicted too: a delta is a Gaussian, and the truth a point.

    ``exp(-a) smooth_l1(d) + a / 2`` with ``a`` the logarithm of the variance (1 of smooth L1 at ``beta`` 1, to which
    it reduces where ``a`` is 0). The prediction ``[..., 2 * D]`` holds the deltas, then the logarithms; with
    ``[..., D]`` to ``[...]``. The loss may be negative. This is not the KL divergence of distillation
    (``kl_divergence``).

    Source: Bounding Box Regression with Uncertainty for Accurate Object Detection, 2018, arXiv:1809.08545,
        equations 9-10
    """

    takes = "uncertain"

    WIDEST = 20.0
    """Precisions above exp(20) grow linearly, so that neither they nor their gradients overflow."""

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs."""
        deltas, variance = prediction.chunk(2, dim=-1)
        precision = (-variance).clamp(max=self.WIDEST).exp() * (1 + (-variance - self.WIDEST).clamp(min=0))
        loss = precision * functional.smooth_l1_loss(deltas, target, reduction="none", beta=1.0) + variance / 2
        return loss.sum(dim=-1)

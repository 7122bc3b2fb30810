"""Losses of detectors of keypoints: heatmaps, and numbers that tell which corners belong together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from torso.losses.one_hot import sigmoid_and_softplus
from torso.losses.reduction import Loss


class HeatmapFocal(Loss):
    """Focal loss of a heatmap: only a target of exactly 1 is positive, and near it "nothing here" costs less.

    ``-(1 - p)^alpha ln p`` where the target is 1, ``-(1 - t)^beta p^alpha ln(1 - p)`` elsewhere.
    Logits ``[..., C]`` against targets ``[..., C]`` in 0..1, unreduced ``[..., C]``. The gradient is computed in closed
    form together with the loss, which halves the passes over memory; it has no second derivative.

    Args:
        alpha: how strongly what is right already is turned down, >= 0 (focal loss's gamma).
        beta: how strongly the neighbourhood of a positive is turned down, >= 0.

    Raises:
        ValueError: a power below 0.

    Source: CornerNet: Detecting Objects as Paired Keypoints, 2018, arXiv:1808.01244, equation 1
    """

    takes = "scores"

    def __init__(self, alpha: float = 2.0, beta: float = 4.0):
        super().__init__()
        if alpha < 0 or beta < 0:
            raise ValueError(f"alpha and beta are powers of at least 0, got {alpha} and {beta}")
        self.alpha, self.beta = alpha, beta

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""
        loss: Tensor = _Heatmap.apply(prediction, target.to(prediction.dtype), self.alpha, self.beta)
        return loss


class _Heatmap(torch.autograd.Function):
    """The loss, and with it its gradient in the logits, so that one tensor is kept instead of many."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, alpha: float, beta: float) -> Tensor:
        loss, gradient = _heatmap(x, t, alpha, beta)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad[0], None, None, None


def _heatmap(x: Tensor, t: Tensor, alpha: float, beta: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient. A positive is a negative whose logit is turned around.

    With y = -x for it and x else, s = sigmoid(y), and w = 1 and (1 - t)^beta:

    loss     = w s^alpha softplus(y)
    gradient = w s^alpha (alpha (1 - s) softplus(y) + s), turned around for a positive.
    """
    positive = t == 1
    sign = torch.where(positive, -1.0, 1.0).to(x.dtype)
    s, ce = sigmoid_and_softplus(x * sign)
    factor = torch.where(positive, 1.0, (1 - t) ** beta) * s**alpha
    return factor * ce, sign * factor * (alpha * (1 - s) * ce + s)


class AssociativeEmbedding(Loss):
    """The keypoints of an object say equal numbers (pull), those of different objects different ones (push).

    Predictions ``[B, M, K]``, the embeddings at the K keypoints of M objects, against ``[B, M]``: 1 for an object, 0
    for padding; unreduced ``[B, M]``: each object's share, so that the sum over a picture of N objects is
    ``pull / N * sum_k |e_ik - e_i|^2`` over objects i, with ``e_i`` the mean of an object's numbers, plus
    ``push / (N (N - 1)) * sum over pairs i != j of max(0, margin - |e_i - e_j|)``. What padding says teaches nothing.
    The paper's losses are of one picture; its authors' code adds those of the pictures of a GPU up, and so can
    ``reduction="sum"``. Memory: one table ``B x M x M``.

    Args:
        pull: factor of the one half.
        push: factor of the other.
        margin: how far the numbers of different objects are to be apart, > 0.

    Raises:
        ValueError: a margin that is not above 0.

    Source: CornerNet: Detecting Objects as Paired Keypoints, 2018, arXiv:1808.01244, equations 4 and 5; Associative
        Embedding, 2016, arXiv:1611.05424
    """

    takes = "embeddings"

    def __init__(self, pull: float = 1.0, push: float = 1.0, margin: float = 1.0):
        super().__init__()
        if not margin > 0:
            raise ValueError(f"the margin between different objects is above 0, got {margin}")
        self.pull, self.push, self.margin = pull, push, margin

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each object costs."""
        there = (target > 0).to(prediction.dtype)  # [B, M]
        said = torch.where((target > 0).unsqueeze(-1), prediction, 0.0)
        mean = said.mean(dim=-1)  # [B, M]
        count = there.sum(dim=-1, keepdim=True)  # [B, 1]
        pull = (said - mean.unsqueeze(-1)).square().sum(dim=-1) / count.clamp(min=1)
        near = (self.margin - (mean.unsqueeze(-1) - mean.unsqueeze(-2)).abs()).clamp(min=0)  # [B, M, M]
        objects = mean.shape[-1]
        other = 1 - torch.eye(objects, dtype=mean.dtype, device=mean.device)
        push = (near * other * there.unsqueeze(-2)).sum(dim=-1) / (count * (count - 1)).clamp(min=1)
        return there * (self.pull * pull + self.push * push)

"""Losses whose truth lies between 0 and 1, or between two bins: generalized focal loss and its two halves."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from torso.losses.one_hot import one_hot_sum
from torso.losses.reduction import Loss


class QualityFocal(Loss):
    """Focal loss for soft targets: cross entropy, turned down where the score is already near its target.

    ``|t - p|^beta CE``. Logits ``[..., C]`` against targets ``[..., C]`` in 0..1 (the quality of a box at its class,
    else 0), unreduced ``[..., C]``. With targets of 0 and 1 it is focal loss without its ``alpha``. The gradient is
    computed in closed form together with the loss; it has no second derivative.

    Args:
        beta: how strongly easy examples are turned down, >= 0; 0 is cross entropy.

    Source: Generalized Focal Loss, 2020, arXiv:2006.04388, equation 5
    """

    takes = "scores"

    def __init__(self, beta: float = 2.0):
        super().__init__()
        self.beta = beta

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""
        loss: Tensor = _QualityFocal.apply(prediction, target, self.beta)
        return loss

    def at_labels(self, logits: Tensor, labels: Tensor, score: Tensor, weight: Tensor) -> Tensor:
        """The weighted sum for targets ``score`` at ``labels`` and 0 elsewhere, see `Loss.at_labels`."""
        return one_hot_sum(logits, labels, score, weight, self._pointwise, self._absent)

    def _pointwise(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return _quality_focal(x, t, self.beta)

    def _absent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient for t = 0: ``p^beta CE`` and ``p^beta (p + beta (1 - p) CE)``."""
        p, ce = x.sigmoid(), functional.softplus(x)
        power = p * p if self.beta == 2 else p**self.beta
        slope = torch.addcmul(p, 1 - p, ce, value=self.beta).mul_(power)
        return ce.mul_(power), slope


class _QualityFocal(torch.autograd.Function):
    """The loss, and with it its gradient in the logits, so that one tensor is kept instead of six."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, beta: float) -> Tensor:
        loss, gradient = _quality_focal(x, t, beta)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad[0], None, None


def _quality_focal(x: Tensor, t: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient. With p = sigmoid(x), d = p - t and CE = softplus(x) - xt.

    loss     = |d|^beta CE
    gradient = |d|^beta d + beta |d|^(beta - 1) sign(d) p (1 - p) CE
    """
    p = x.sigmoid()
    d = p - t
    ce = functional.softplus(x).sub_(x * t)
    slope = p.mul(1 - p).mul_(ce)
    if beta == 2:
        full = d.square()
        slope.mul_(d)
    else:  # below 1 the power has a pole where the answer is entirely right, and the loss is 0 there
        m = d.abs().clamp_(min=torch.finfo(d.dtype).tiny)
        less = m ** (beta - 1)
        full = less * m
        slope.mul_(less).mul_(d.sign())
    return ce.mul_(full), slope.mul_(beta).addcmul_(full, d)


class DistributionFocal(Loss):
    """Cross entropy of the two bins next to the truth, each as much as the truth is near it.

    Logits ``[..., 4 * (R + 1)]`` over the bins 0..R of each side against sides ``[..., 4]`` in bins (cut to 0..R), to
    ``[...]``: the sum over the sides (the paper's code has their mean: a weight of a quarter). Least where the two
    bins share the probability such that its mean is the truth. Above 0 even there, unless the truth is a bin.

    Source: Generalized Focal Loss, 2020, arXiv:2006.04388, equation 6
    """

    takes = "distribution"

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What the distributions of each box cost."""
        low, high, _, rise = _neighbours(prediction, target)
        return -((1 - rise) * low + rise * high).sum(dim=-1)


class GeneralizedFocal(Loss):
    """Focal loss of a truth between two neighbouring numbers: ``|y - (y_l p_l + y_r p_r)|^beta CE``.

    One formula with two uses, chosen by ``takes``, so that one part is both losses of a GFL detector:

    - ``"scores"``: the numbers are 0 and 1, their probabilities those of a sigmoid; this is ``quality_focal``.
      Logits ``[..., C]`` and targets ``[..., C]`` in 0..1 to ``[..., C]``.
    - ``"distribution"``: the numbers are the bins next to the truth, their probabilities those of a softmax over all
      bins; ``distribution_focal`` is the case of ``beta`` 0. Logits ``[..., 4 * (R + 1)]`` and sides ``[..., 4]`` in
      0..R to ``[...]``.

    Args:
        takes: what is compared.
        beta: how strongly easy examples are turned down, >= 0; by default 2 for scores and 0 for distributions, the
            paper's choices.

    Raises:
        ValueError: it takes neither.

    Source: Generalized Focal Loss, 2020, arXiv:2006.04388, equation 8
    """

    def __init__(self, takes: Literal["scores", "distribution"] = "scores", beta: float | None = None):
        super().__init__()
        if takes not in ("scores", "distribution"):
            raise ValueError(f"takes is 'scores' or 'distribution', got {takes!r}")
        self.takes = takes
        self.beta = (2.0 if takes == "scores" else 0.0) if beta is None else beta

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element, or the distributions of each box, cost."""
        if self.takes == "scores":
            loss: Tensor = _QualityFocal.apply(prediction, target, self.beta)
            return loss
        low, high, left, rise = _neighbours(prediction, target)
        loss = -((1 - rise) * low + rise * high)
        if self.beta:
            mean = left * low.exp() + (left + 1) * high.exp()
            off = (left + rise - mean).abs().clamp(min=torch.finfo(loss.dtype).tiny)  # a power below 1 has a pole
            loss = off**self.beta * loss
        return loss.sum(dim=-1)


def _neighbours(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each side ``[..., 4]``: log-probabilities of the bins below and above, the bin below, and how far above it."""
    sides = target.shape[-1]
    logs = prediction.reshape(*target.shape[:-1], sides, prediction.shape[-1] // sides).log_softmax(dim=-1)
    last = logs.shape[-1] - 1
    side = target.to(logs.dtype).clamp(0, last)
    left = side.floor().clamp(max=last - 1)
    index = left.long().unsqueeze(-1)
    low, high = (logs.gather(-1, index + i).squeeze(-1) for i in (0, 1))
    return low, high, left, side - left


class Varifocal(Loss):
    """Cross entropy of positives by their quality; only negatives are turned down where they are easy.

    ``t CE`` where the target ``t`` is above 0, else ``alpha p^gamma CE``. Logits ``[..., C]`` against targets
    ``[..., C]`` in 0..1, unreduced ``[..., C]``. The gradient is that of the formula; some implementations (RT-DETR)
    take the factor for a constant.

    Args:
        alpha: weight of negatives, >= 0.
        gamma: how strongly easy negatives are turned down, >= 0.

    Source: VarifocalNet: An IoU-aware Dense Object Detector, 2020, arXiv:2008.13367, equation 2
    """

    takes = "scores"

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""
        target = target.to(prediction.dtype)
        hard = prediction.sigmoid().clamp(min=torch.finfo(prediction.dtype).tiny) ** self.gamma
        factor = torch.where(target > 0, target, self.alpha * hard)
        return factor * functional.binary_cross_entropy_with_logits(prediction, target, reduction="none")

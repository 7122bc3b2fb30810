"""Losses of one class among many, by softmax; plain cross entropy is in `torso.losses.classification`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from torso.losses.classification import CrossEntropy
from torso.losses.reduction import Loss


class LabelSmoothing(CrossEntropy):
    """Cross entropy against a truth that gives every class a little: ``[B, C, ...]`` and ``[B, ...]`` to ``[B, ...]``.

    ``smoothing / C`` of each class and 1 - ``smoothing`` more of the right one. (Some texts spread it over the other
    classes only: theirs at ``s (C - 1) / C`` is this one at ``s``.)

    Args:
        smoothing: share of the target spread evenly over all classes, 0..1.
        ignore_index: this class counts neither way.

    Source: Rethinking the Inception Architecture for Computer Vision, 2015, arXiv:1512.00567, section 7
    """

    def __init__(self, smoothing: float = 0.1, ignore_index: int = 255):
        super().__init__(label_smoothing=smoothing, ignore_index=ignore_index)


class _OfShares(Loss):
    """A loss that compares the classes' shares; one class is a share of 1, an ignored one costs nothing."""

    takes = "classes"

    def __init__(self, ignore_index: int) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""
        if target.is_floating_point():
            return self.of_shares(prediction, target.to(prediction.dtype))
        there = target != self.ignore_index
        index = torch.where(there, target, 0).unsqueeze(1)
        shares = torch.zeros_like(prediction).scatter_(1, index, there.unsqueeze(1).to(prediction.dtype))
        return torch.where(there, self.of_shares(prediction, shares), 0)

    def counted(self, target: Tensor) -> Tensor | None:
        """A plain mean leaves out what is ignored."""
        return None if target.is_floating_point() else (target != self.ignore_index).sum().clamp(min=1)

    def of_shares(self, prediction: Tensor, shares: Tensor) -> Tensor:
        """Logits ``[B, C, ...]`` and shares ``[B, C, ...]`` to ``[B, ...]``."""
        raise NotImplementedError


class SoftmaxFocal(_OfShares):
    """Softmax cross entropy, turned down where the answer is already right: ``alpha_t (1 - p_t)^gamma CE``.

    Logits ``[B, C, ...]`` against int64 classes ``[B, ...]``, or probabilities ``[B, C, ...]`` in floating point (each
    class then costs its share), unreduced ``[B, ...]``.

    Args:
        gamma: how strongly easy examples are turned down, >= 0; 0 is cross entropy.
        alpha: weight in 0..1 of all classes but the last, which is the background of dense detectors and has
            1 - alpha; a negative number for none.
        ignore_index: this class counts neither way.

    Source: Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002, section 3.2
    """

    def __init__(self, gamma: float = 2.0, alpha: float = -1.0, ignore_index: int = 255):
        super().__init__(ignore_index)
        self.gamma, self.alpha = gamma, alpha

    def of_shares(self, prediction: Tensor, shares: Tensor) -> Tensor:
        """Logits ``[B, C, ...]`` and shares ``[B, C, ...]`` to ``[B, ...]``."""
        logs = prediction.log_softmax(dim=1)
        # 1 - p by expm1, for p near 1; below 1 the power has a pole where the answer is entirely right.
        wrong = (-torch.expm1(logs)).clamp(min=torch.finfo(logs.dtype).tiny)
        loss = -shares * wrong**self.gamma * logs
        if self.alpha < 0:
            return loss.sum(dim=1)
        return self.alpha * loss[:, :-1].sum(dim=1) + (1 - self.alpha) * loss[:, -1]


class KLDivergence(_OfShares):
    """How much the truth's distribution over classes says that the prediction's does not: KL(truth || prediction).

    Logits ``[B, C, ...]`` against probabilities ``[B, C, ...]`` that sum to 1, or int64 classes ``[B, ...]``, to
    ``[B, ...]``. Both are softened: a softmax of ``x / T`` is the softmax of ``x`` to the power ``1 / T``, made to sum
    to 1 again, so the probabilities of a teacher come as they are. The loss is multiplied by ``T^2``, so that gradients
    keep their size (Distilling the Knowledge, 2015, arXiv:1503.02531). 0 where both agree.

    Args:
        temperature: T, > 0; above 1 the unlikely classes count more.
        ignore_index: this class counts neither way.

    Source: torch.nn.KLDivLoss.
    """

    def __init__(self, temperature: float = 1.0, ignore_index: int = 255):
        super().__init__(ignore_index)
        self.temperature = temperature

    def of_shares(self, prediction: Tensor, shares: Tensor) -> Tensor:
        """Logits ``[B, C, ...]`` and shares ``[B, C, ...]`` to ``[B, ...]``."""
        logs = (prediction / self.temperature).log_softmax(dim=1)
        if self.temperature != 1:
            shares = shares.clamp(min=0) ** (1 / self.temperature)
            shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
        loss = functional.kl_div(logs, shares, reduction="none").sum(dim=1)
        return loss * self.temperature**2

"""Losses of one class among many, by softmax; plain cross entropy is in `torso.losses.classification`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from torso.losses.classification import CrossEntropy
from torso.losses.reduction import Loss


class LabelSmoothing(Loss):
    """Cross entropy against a truth that gives every class a little: ``[B, C, ...]`` and ``[B, ...]`` to ``[B, ...]``.

    ``smoothing / C`` of each class and 1 - ``smoothing`` more of the right one. (Some texts spread it over the other
    classes only: theirs at ``s (C - 1) / C`` is this one at ``s``.)

    Args:
        smoothing: share of the target spread evenly over all classes, 0..1.
        ignore_index: this class counts neither way.

    Source: Rethinking the Inception Architecture for Computer Vision, 2015, arXiv:1512.00567, section 7
    """

    takes = "classes"

    def __init__(self, smoothing: float = 0.1, ignore_index: int = 255):
        super().__init__()
        self.ignore_index = ignore_index
        self.smoothed = CrossEntropy(label_smoothing=smoothing, ignore_index=ignore_index)

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""
        return self.smoothed.unreduced(prediction, target)

    def counted(self, target: Tensor) -> Tensor | None:
        """A plain mean leaves out what is ignored."""
        return self.smoothed.counted(target)


class SoftmaxFocal(Loss):
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

    takes = "classes"

    def __init__(self, gamma: float = 2.0, alpha: float = -1.0, ignore_index: int = 255):
        super().__init__()
        self.gamma, self.alpha, self.ignore_index = gamma, alpha, ignore_index

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""
        shares = _shares(prediction, target, self.ignore_index)
        logs = prediction.log_softmax(dim=1)
        # 1 - p by expm1, for p near 1; below 1 the power has a pole where the answer is entirely right.
        wrong = (-torch.expm1(logs)).clamp(min=torch.finfo(logs.dtype).tiny)
        loss = -shares * wrong**self.gamma * logs
        if self.alpha < 0:
            return loss.sum(dim=1)
        return self.alpha * loss[:, :-1].sum(dim=1) + (1 - self.alpha) * loss[:, -1]

    def counted(self, target: Tensor) -> Tensor | None:
        """A plain mean leaves out what is ignored."""
        return _counted(target, self.ignore_index)


class KLDivergence(Loss):
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

    takes = "classes"

    def __init__(self, temperature: float = 1.0, ignore_index: int = 255):
        super().__init__()
        self.temperature, self.ignore_index = temperature, ignore_index

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""
        shares = _shares(prediction, target, self.ignore_index)
        logs = (prediction / self.temperature).log_softmax(dim=1)
        if self.temperature != 1:
            shares = shares.clamp(min=0) ** (1 / self.temperature)
            shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
        return functional.kl_div(logs, shares, reduction="none").sum(dim=1) * self.temperature**2

    def counted(self, target: Tensor) -> Tensor | None:
        """A plain mean leaves out what is ignored."""
        return _counted(target, self.ignore_index)


def _shares(prediction: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """The truth as a share of each class, ``[B, C, ...]``; nothing is shared where it is ignored, which costs 0."""
    if target.is_floating_point():
        return target.to(prediction.dtype)
    there = (target != ignore_index).unsqueeze(1)
    index = torch.where(there, target.unsqueeze(1), 0)
    return torch.zeros_like(prediction).scatter_(1, index, there.to(prediction.dtype))


def _counted(target: Tensor, ignore_index: int) -> Tensor | None:
    return None if target.is_floating_point() else (target != ignore_index).sum().clamp(min=1)

"""Losses of class scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from torso.losses.one_hot import one_hot_sum, sigmoid_and_softplus
from torso.losses.reduction import Loss, Reduction, reduced
from torso.losses.softmax_rows import cross_entropy_of_rows

PIECE = 1 << 15  # elements a thread: the temporaries of a piece, each 128 KiB of float32, stay in a core's cache


class CrossEntropy(Loss):
    """Softmax cross entropy: logits ``[B, C, ...]`` against int64 classes ``[B, ...]``, unreduced ``[B, ...]``.

    Classes may also come as probabilities ``[B, C, ...]`` in floating point (mix-up, cut-mix): each class then costs
    its share. Nothing is ignored there.

    Args:
        label_smoothing: share of the target spread evenly over all classes, 0..1.
        ignore_index: this class counts neither way (0 loss, 0 gradient), and not in a plain mean.

    Source: torch.nn.CrossEntropyLoss; label smoothing: Rethinking the Inception Architecture, 2015, arXiv:1512.00567
    """

    takes = "classes"

    def __init__(self, label_smoothing: float = 0.0, ignore_index: int = 255):
        super().__init__()
        self.label_smoothing, self.ignore_index = label_smoothing, ignore_index

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""
        if target.is_floating_point():
            shares = target.to(prediction.dtype)
            return functional.cross_entropy(prediction, shares, reduction="none", label_smoothing=self.label_smoothing)
        return functional.cross_entropy(
            prediction, target, reduction="none", ignore_index=self.ignore_index, label_smoothing=self.label_smoothing
        )

    def at_classes(
        self, logits: Tensor, classes: Tensor, weight: Tensor | None = None, reduction: Reduction = "none"
    ) -> Tensor:
        """The loss of many rows, see `Loss.at_classes`; it has no second derivative."""
        if self.label_smoothing or not logits.is_cpu or torch.compiler.is_compiling():
            return super().at_classes(logits, classes, weight, reduction)
        return reduced(cross_entropy_of_rows(logits, classes, self.ignore_index), weight, reduction)

    def counted(self, target: Tensor) -> Tensor | None:
        """A plain mean leaves out what is ignored."""
        if target.is_floating_point():
            return None
        return (target != self.ignore_index).sum().clamp(min=1)


class BinaryCrossEntropy(Loss):
    """Every class against the rest: logits ``[..., C]`` and targets ``[..., C]`` in 0..1, unreduced ``[..., C]``.

    A target below 0 is ignored: it counts neither way, and not in a plain mean.

    Args:
        label_smoothing: share of the target that is drawn to one half, 0..1.
        pos_weight: factor of what is positive, a number or one a class; > 0.

    Source: torch.nn.BCEWithLogitsLoss.
    """

    takes = "scores"
    pos_weight: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, pos_weight: float | Sequence[float] | None = None):
        super().__init__()
        self.label_smoothing = label_smoothing
        factor = None if pos_weight is None else torch.as_tensor(pos_weight, dtype=torch.float32)
        self.register_buffer("pos_weight", factor, persistent=False)

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""
        factor = None if self.pos_weight is None else self.pos_weight.to(prediction.dtype)
        there = target >= 0
        smooth = target.to(prediction.dtype)
        if self.label_smoothing:
            smooth = torch.lerp(smooth, torch.full_like(smooth, 0.5), self.label_smoothing)
        loss = functional.binary_cross_entropy_with_logits(prediction, smooth, reduction="none", pos_weight=factor)
        return torch.where(there, loss, 0)

    def at_labels(self, logits: Tensor, labels: Tensor, score: Tensor, weight: Tensor) -> Tensor:
        """The weighted sum for targets ``score`` at ``labels`` and 0 elsewhere, see `Loss.at_labels`."""
        if self.pos_weight is not None:
            return super().at_labels(logits, labels, score, weight)
        return one_hot_sum(logits, labels, score, weight, self._pointwise, self._absent)

    def _pointwise(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        p, softplus = sigmoid_and_softplus(x)
        smooth = t + self.label_smoothing * (0.5 - t)
        return softplus - x * smooth, p - smooth

    def _absent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rest = self.label_smoothing / 2
        p, softplus = sigmoid_and_softplus(x)
        return (softplus - rest * x, p - rest) if rest else (softplus, p)

    def counted(self, target: Tensor) -> Tensor | None:
        """A plain mean leaves out what is ignored."""
        return (target >= 0).sum().clamp(min=1)


class Focal(Loss):
    """Binary cross entropy of every class, turned down where the answer is already right.

    ``alpha_t (1 - p_t)^gamma CE`` with ``p_t`` the score given to the truth.
    Logits ``[..., C]`` against targets ``[..., C]`` in 0..1, unreduced ``[..., C]``. The gradient is computed in
    closed form together with the loss, which halves the passes over memory; it has no second derivative.

    Args:
        alpha: weight of the positive class in 0..1 (1 - alpha for the negative), or a negative number for none.
        gamma: how strongly easy examples are turned down; 0 is cross entropy.

    Source: Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002
    """

    takes = "scores"

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0):
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""
        loss: Tensor = _Focal.apply(prediction, target, self.alpha, self.gamma)
        return loss

    def at_labels(self, logits: Tensor, labels: Tensor, score: Tensor, weight: Tensor) -> Tensor:
        """The weighted sum for targets ``score`` at ``labels`` and 0 elsewhere, see `Loss.at_labels`."""
        return one_hot_sum(logits, labels, score, weight, self._pointwise, self._absent)

    def _pointwise(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return _focal(x, t, self.alpha, self.gamma)

    def _absent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient for t = 0: ``a p^gamma CE`` and ``a p^gamma (p + gamma (1 - p) CE)``."""
        p, ce = x.sigmoid(), functional.softplus(x)
        power = p * p if self.gamma == 2 else p**self.gamma
        if self.alpha >= 0:
            power.mul_(1 - self.alpha)
        slope = torch.addcmul(p, 1 - p, ce, value=self.gamma).mul_(power)
        return ce.mul_(power), slope


class _Focal(torch.autograd.Function):
    """The loss, and with it its gradient in the logits, so that one tensor is kept instead of eight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, alpha: float, gamma: float) -> Tensor:
        if x.is_cpu and not torch.compiler.is_compiling():
            # Large tensors leave the cache at each of a dozen passes: a piece of them at a time does not.
            loss, gradient = (torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(2))
            size = PIECE * torch.get_num_threads()
            pieces = [torch.split(each.reshape(-1), size) for each in (x, t.expand_as(x), loss, gradient)]
            for logits, targets, loss_piece, gradient_piece in zip(*pieces, strict=True):
                values = _focal(logits, targets, alpha, gamma)
                loss_piece.copy_(values[0])
                gradient_piece.copy_(values[1])
        else:
            loss, gradient = _focal(x, t, alpha, gamma)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad[0], None, None, None


def _focal(x: Tensor, t: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient. With p = sigmoid(x), m = 1 - p_t = p + t - 2pt and CE = softplus(x) - xt.

    loss     = a_t * CE * m^gamma
    gradient = a_t * ((p - t) m^gamma + gamma CE m^(gamma - 1) p (1 - p) (1 - 2t))
    """
    p, softplus = sigmoid_and_softplus(x)
    sign = 1 - 2 * t
    m = torch.addcmul(t, p, sign)
    ce = softplus.sub_(x * t)
    # Below 1 the power has a pole where the answer is entirely right, and the loss is 0 there.
    m_less = m if gamma == 2 else m.clamp(min=torch.finfo(m.dtype).tiny) ** (gamma - 1)
    m_full = m_less * m
    slope = p.mul(1 - p).mul_(sign).mul_(ce).mul_(m_less).mul_(gamma)
    gradient, loss = slope.addcmul_(p - t, m_full), ce.mul_(m_full)
    if alpha >= 0:
        balance = (1 - alpha) + (2 * alpha - 1) * t
        loss, gradient = loss.mul_(balance), gradient.mul_(balance)
    return loss, gradient

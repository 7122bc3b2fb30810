"""Gradient harmonising: examples count the less, the more of them are as hard as they are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.losses.reduction import Loss


class _Balance(nn.Module):
    """Weighs elements against the histogram of their gradients.

    All bins that are not empty get the same share of the total. (The paper divides by all bins, its code by those that
    are not empty: then the mean factor is 1.) Elements of weight 0 are not counted; how large another weight is does
    not matter to the histogram, it multiplies the loss as everywhere.
    """

    seen: Tensor

    def __init__(self, bins: int, momentum: float):
        super().__init__()
        if bins < 1 or not 0 <= momentum < 1:
            raise ValueError(f"bins is at least 1 and momentum in 0..1, got {bins} and {momentum}")
        self.bins, self.momentum = bins, momentum
        self.register_buffer("seen", torch.zeros(bins))

    @torch.no_grad()
    def forward(self, gradient: Tensor, counted: Tensor | None, total: Tensor | None = None) -> Tensor:
        """Factor of each element, by its ``gradient`` in 0..1; those counted add up to ``total`` (their number)."""
        bin_of = (gradient * self.bins).to(torch.int32).clamp(max=self.bins - 1)
        if counted is not None:
            bin_of = torch.where(counted, bin_of, self.bins)
        counts = _histogram(bin_of, self.bins)
        there = counts > 0
        counts = counts.to(gradient.dtype)
        total = counts.sum() if total is None else total
        typical = self._typical(counts, there)
        table = torch.where(there, total / torch.where(there, typical, 1) / there.sum().clamp(min=1), 0)
        table = torch.cat([table, table.new_zeros(1)])  # the last is of what is not counted
        return table.index_select(0, bin_of.reshape(-1)).reshape(bin_of.shape)

    def _typical(self, counts: Tensor, there: Tensor) -> Tensor:
        """The moving average of the counts. A bin's begins with its first count, and empty bins are left alone."""
        if not self.momentum:
            return counts
        now = counts.to(self.seen.dtype)
        moved = torch.lerp(now, self.seen, self.momentum)
        average = torch.where(there, torch.where(self.seen > 0, moved, now), self.seen)
        if self.training:
            self.seen.copy_(average)
        return average.to(counts.dtype)


def _histogram(bin_of: Tensor, bins: int) -> Tensor:
    """How many of each of the ``bins``, int64 (in float32, counts would stand still at 16 million)."""
    if bin_of.is_cuda:  # adding to few numbers from many threads is slow
        return torch.stack([(bin_of == i).sum() for i in range(bins)])
    counts = torch.zeros(bins + 1, dtype=torch.int64, device=bin_of.device)
    one = torch.ones((), dtype=torch.int64, device=bin_of.device)
    return counts.scatter_add_(0, bin_of.reshape(-1).long(), one.expand(bin_of.numel()))[:bins]


class GHMC(Loss):
    """Binary cross entropy in which all degrees of hardness count alike, however many examples there are of each.

    Logits ``[..., C]`` against targets ``[..., C]`` in 0..1, unreduced ``[..., C]``. Hardness is the size of the
    gradient, |sigmoid - target|. The paper's loss is a mean over all elements, where other losses of scores are
    divided by the number of positives: so by default the factors add up to the sum of the targets, and the sum of the
    loss over the number of positives is the paper's loss. ``total: elements`` is for a plain mean.

    Args:
        bins: of the histogram, >= 1.
        momentum: of the moving average of its counts in training, in 0..1; 0 counts each batch by itself.
        total: what the factors of all elements add up to.

    Raises:
        ValueError: no bins, or a momentum outside 0..1.

    Source: Gradient Harmonized Single-stage Detector, 2018, arXiv:1811.05181, equations 7-11
    """

    takes = "scores"

    def __init__(self, bins: int = 30, momentum: float = 0.75, total: Literal["positives", "elements"] = "positives"):
        super().__init__()
        self.balance, self.total = _Balance(bins, momentum), total

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs where all are counted."""
        return self.among(prediction, target, None)

    def among(self, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """What each element costs among those of some weight."""
        target = target.to(prediction.dtype)
        counted = None if weight is None else (weight != 0).expand_as(prediction)
        total = None
        if self.total == "positives":
            total = (target if counted is None else target * counted).sum().clamp(min=1)
        factor = self.balance((prediction.detach().sigmoid() - target).abs(), counted, total)
        loss: Tensor = factor * functional.binary_cross_entropy_with_logits(prediction, target, reduction="none")
        return loss


class GHMR(Loss):
    """A smooth L1 of deltas in which all degrees of error count alike: ``[..., D]`` and ``[..., D]`` to ``[...]``.

    ``sqrt(d^2 + mu^2) - mu``, whose gradient lies in 0..1 everywhere; its size is the hardness of each number. The
    mean factor is 1, so that the loss is summed over D and divided like any other of deltas (the paper's is the mean
    over D too).

    Args:
        mu: below it the loss is nearly quadratic, in the deltas' units; > 0.
        bins: of the histogram, >= 1.
        momentum: of the moving average of its counts in training, in 0..1; 0 counts each batch by itself.

    Raises:
        ValueError: no bins, or a momentum outside 0..1.

    Source: Gradient Harmonized Single-stage Detector, 2018, arXiv:1811.05181, equations 13-15
    """

    takes = "deltas"

    def __init__(self, mu: float = 0.02, bins: int = 10, momentum: float = 0.7):
        super().__init__()
        self.balance, self.mu = _Balance(bins, momentum), mu

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box costs where all are counted."""
        return self.among(prediction, target, None)

    def among(self, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """What each box costs among those of some weight."""
        apart = prediction - target
        root = (apart.square() + self.mu**2).sqrt()
        counted = None if weight is None else (weight != 0).unsqueeze(-1).expand_as(apart)
        factor = self.balance((apart.abs() / root).detach(), counted)
        loss: Tensor = (factor * (root - self.mu)).sum(dim=-1)
        return loss

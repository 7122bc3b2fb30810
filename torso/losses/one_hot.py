"""Losses of many class scores with at most one target a row: nothing as large as the logits is built but the gradient.

A dense detector has millions of scores, and all but a handful should be 0. Their targets need no tensor; what they cost
is computed as if all were 0, a cache-sized piece at a time and with the gradient, and then put right in the few places
where something is. On a CPU a loss is bound by memory: this reads the logits once and writes the gradient once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Pointwise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Logits and targets in 0..1 of one shape to the loss and its derivative."""

Absent = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The same for targets that are all 0."""

PIECE = 1 << 16  # elements a thread: the temporaries of a piece, each 256 KiB of float32, stay in a core's cache


def one_hot_sum(
    logits: Tensor, labels: Tensor, score: Tensor, weight: Tensor, pointwise: Pointwise, absent: Absent
) -> Tensor:
    """The weighted sum of a loss whose targets are ``score`` at ``labels`` and 0 elsewhere.

    Args:
        logits: ``[B, P, C]``.
        labels: ``[B, P]`` int64, 0..C-1.
        score: targets at the labels, ``[B, P]`` in 0..1.
        weight: ``[B, P]``; gets no gradient.
        pointwise: the loss and its derivative.
        absent: the same where targets are 0.
    """
    score, weight = score.detach().to(logits.dtype), weight.detach().to(logits.dtype)
    if torch.compiler.is_compiling():
        total: Tensor = _Traced.apply(logits, labels, score, weight, pointwise)
    else:
        total = _Pieces.apply(logits, labels, score, weight, pointwise, absent)
    return total


class _Pieces(torch.autograd.Function):
    """The gradient is made with the loss, and scaled where it lies when the time comes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, labels: Tensor, score: Tensor, weight: Tensor, pointwise: Pointwise, absent: Absent
    ) -> Tensor:
        classes = x.shape[-1]
        gradient = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        rows, slopes, weights = x.reshape(-1, classes), gradient.view(-1, classes), weight.reshape(-1, 1)
        total = x.new_zeros(())
        # A GPU hides its memory behind many threads: there all rows are one piece.
        step = max(PIECE * torch.get_num_threads() // classes, 1) if x.is_cpu else max(len(rows), 1)
        for start in range(0, len(rows), step):
            end = start + step
            loss, slope = absent(rows[start:end])
            torch.mul(slope, weights[start:end], out=slopes[start:end])
            total += torch.mv(loss.t(), weights[start:end, 0]).sum()
        at = x.gather(-1, labels[..., None]).squeeze(-1)  # [B, P]
        loss, slope = pointwise(at, score)
        total += ((loss - absent(at)[0]) * weight).sum()
        gradient.scatter_(-1, labels[..., None], (slope * weight)[..., None])
        ctx.gradient, ctx.pointwise = gradient, pointwise
        ctx.save_for_backward(x, labels, score, weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:  # the graph is walked a second time
            return _slope(ctx.saved_tensors, ctx.pointwise) * grad[0], None, None, None, None, None
        return gradient.mul_(grad[0]), None, None, None, None, None


class _Traced(torch.autograd.Function):
    """For a compiler, which fuses what is written down: loss and gradient each read the logits once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, labels: Tensor, score: Tensor, weight: Tensor, pointwise: Pointwise) -> Tensor:
        ctx.save_for_backward(x, labels, score, weight)
        ctx.pointwise = pointwise
        return (pointwise(x, _dense(x, labels, score))[0] * weight[..., None]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _slope(ctx.saved_tensors, ctx.pointwise) * grad[0], None, None, None, None


def sigmoid_and_softplus(x: Tensor) -> tuple[Tensor, Tensor]:
    """Both, precise everywhere; a compiler gets them with one exponential between them."""
    if not torch.compiler.is_compiling():
        return x.sigmoid(), functional.softplus(x)
    small = (-x.abs()).exp()
    inverse = 1 / (1 + small)
    return torch.where(x >= 0, inverse, small * inverse), x.clamp(min=0) + torch.log1p(small)


def _dense(x: Tensor, labels: Tensor, score: Tensor) -> Tensor:
    """The targets written out, by a comparison and not a scatter, which a compiler could not fuse."""
    classes = torch.arange(x.shape[-1], device=x.device)
    return torch.where(classes == labels[..., None], score[..., None], 0)


def _slope(saved: tuple[Tensor, Tensor, Tensor, Tensor], pointwise: Pointwise) -> Tensor:
    x, labels, score, weight = saved
    return pointwise(x, _dense(x, labels, score))[1] * weight[..., None]

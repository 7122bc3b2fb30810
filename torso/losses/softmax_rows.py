"""Softmax cross entropy of many rows on a CPU, with one tensor as large as the logits instead of three."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy_of_rows(logits: Tensor, classes: Tensor, ignore_index: int) -> Tensor:
    """What each row of ``logits [N, C]`` costs for int64 ``classes [N]``; 0 where that is ``ignore_index``: ``[N]``.

    The softmax is made with the loss and becomes the gradient where it lies; there is no second derivative.
    """
    loss: Tensor = _Rows.apply(logits, classes, ignore_index)
    return loss


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, classes: Tensor, ignore_index: int) -> Tensor:
        counted = classes != ignore_index
        at = torch.where(counted, classes, 0)[:, None]
        ctx.logarithms = logarithms = x.log_softmax(dim=1)
        ctx.save_for_backward(x, at, counted)
        return torch.where(counted, -logarithms.gather(1, at).squeeze(1), 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        x, at, counted = ctx.saved_tensors
        logarithms, ctx.logarithms = ctx.logarithms, None
        if logarithms is None:  # the graph is walked a second time
            logarithms = x.log_softmax(dim=1)
        weight = (grad[0] * counted)[:, None]
        return logarithms.exp_().mul_(weight).scatter_add_(1, at, -weight), None, None

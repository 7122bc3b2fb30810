"""The one meaning of weight, reduction and avg_factor."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Reduction = Literal["none", "sum", "mean"]


def reduced(
    loss: Tensor, weight: Tensor | None, reduction: Reduction, avg_factor: Tensor | float | None = None
) -> Tensor:
    """Weight an unreduced loss, then reduce it.

    ``"mean"`` divides the sum by ``avg_factor``, or by the number of elements where that is ``None``.

    Raises:
        ValueError: ``avg_factor`` with another reduction than ``"mean"``, or an unknown reduction.
    """
    if avg_factor is not None and reduction != "mean":
        raise ValueError(f"avg_factor divides a mean, but reduction is {reduction!r}: use reduction='mean'")
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if avg_factor is None else loss.sum() / avg_factor
    raise ValueError(f"reduction is 'none', 'sum' or 'mean', got {reduction!r}")

"""What all losses share: the one meaning of weight, reduction and avg_factor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

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


class Loss(nn.Module, ABC):
    """A loss says what one element costs; weighting and reducing are the same for all."""

    takes: ClassVar[str]  # "scores", "classes", "deltas" or "boxes", see `torso.losses`

    def __init__(self) -> None:  # no *args and **kwargs of torch's: the signature is the schema
        super().__init__()

    @abstractmethod
    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""

    def counted(self, target: Tensor) -> Tensor | None:
        """How many elements a plain mean is over; all where ``None``."""
        return None

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: Reduction = "none",
        avg_factor: Tensor | float | None = None,
    ) -> Tensor:
        """The loss, weighted and reduced; see the contract in `torso.losses`."""
        if reduction == "mean" and avg_factor is None:
            avg_factor = self.counted(target)
        return reduced(self.unreduced(prediction, target), weight, reduction, avg_factor)

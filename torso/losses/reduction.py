"""What all losses share: the one meaning of weight, reduction and avg_factor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

Reduction = Literal["none", "sum", "mean"]


def reduced(
    loss: Tensor, weight: Tensor | None, reduction: Reduction, avg_factor: Tensor | float | None = None
) -> Tensor:
    """Weights an unreduced loss, then reduces it: what ``weight``, ``reduction`` and ``avg_factor`` mean to all losses.

    A function, no loss of its own: it is listed for its page.

    Args:
        loss: what each element costs, of any shape.
        weight: factor of each element; it broadcasts. None is 1.
        reduction: ``"none"`` keeps the elements, ``"sum"`` adds them up, ``"mean"`` divides the sum by ``avg_factor``,
            or by the number of elements (not by the sum of the weights) where that is None.
        avg_factor: what the sum is divided by, such as the number of positives; with ``"mean"`` only.

    Raises:
        ValueError: ``avg_factor`` with another reduction than ``"mean"``, or an unknown reduction.

    Source: own design.
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


def wide(x: Tensor) -> Tensor:
    """In float32 at least: half precision has too few digits for logarithms, and too small a range for squares."""
    return x if x.dtype.itemsize >= 4 else x.float()


class Loss(nn.Module, ABC):
    """A loss says what one element costs; weighting and reducing are the same for all."""

    takes: str  # what is compared, see `torso.losses`; of the class, or of an instance where an option decides it

    def __init__(self) -> None:  # no *args and **kwargs of torch's: the signature is the schema
        super().__init__()

    @abstractmethod
    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each element costs."""

    def among(self, prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """The same, for losses in which an element's cost depends on the others: on those whose weight is not 0."""
        return self.unreduced(prediction, target)

    def counted(self, target: Tensor) -> Tensor | None:
        """How many elements a plain mean is over; all where ``None``."""
        return None

    def at_labels(self, logits: Tensor, labels: Tensor, score: Tensor, weight: Tensor) -> Tensor:
        """The weighted sum of a loss of scores whose targets are ``score`` at ``labels`` and 0 elsewhere.

        The same number as with targets written out; losses that can, do without them.

        Args:
            logits: ``[B, P, C]``.
            labels: ``[B, P]`` int64, 0..C-1.
            score: ``[B, P]`` in 0..1.
            weight: ``[B, P]``.
        """
        target = torch.zeros_like(logits).scatter_(-1, labels[..., None], score[..., None].to(logits.dtype))
        return self(logits, target, weight=weight[..., None], reduction="sum")  # type: ignore[no-any-return]

    def at_classes(
        self, logits: Tensor, classes: Tensor, weight: Tensor | None = None, reduction: Reduction = "none"
    ) -> Tensor:
        """A loss of classes for many rows, ``[N, C]`` and int64 ``[N]``, as `forward`; losses that can, save memory."""
        return self(logits, classes, weight, reduction)  # type: ignore[no-any-return]

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
        return reduced(self.among(wide(prediction), target, weight), weight, reduction, avg_factor)

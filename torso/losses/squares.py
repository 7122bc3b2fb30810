"""The mean's own loss: squares."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from torso.losses.reduction import Loss


class MSE(Loss):
    """Squared differences, ``d^2`` as in torch; the ``d^2 / 2`` of some texts is half of it.

    - ``"deltas"``: raw regression ``[..., D]`` with ``[..., D]`` to ``[...]``, summed over D.
    - ``"scores"``: the sigmoid of logits ``[..., C]`` with targets ``[..., C]`` in 0..1, unreduced ``[..., C]``.

    Args:
        takes: what is compared.

    Raises:
        ValueError: it takes neither.

    Source: torch.nn.MSELoss.
    """

    def __init__(self, takes: Literal["deltas", "scores"] = "deltas"):
        super().__init__()
        if takes not in ("deltas", "scores"):
            raise ValueError(f"takes is 'deltas' or 'scores', got {takes!r}")
        self.takes = takes

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What each box, or each score, costs."""
        if self.takes == "scores":
            return (prediction.sigmoid() - target).square()
        return (prediction - target).square().sum(dim=-1)

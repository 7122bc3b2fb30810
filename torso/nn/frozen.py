"""Batch normalisation that no longer moves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """Batch normalisation with statistics, weight and bias that are constants, in training too.

    For fine-tuning with batches too small for statistics. It loads the state dict of an ordinary batch norm, and
    `torso.nn.swap.swap_norm` puts it in the place of one.

    Args:
        num_features: channels (given by the layer that asks for the norm).
        eps: added to the variance.

    Source: torchvision.ops.FrozenBatchNorm2d; frozen batch norm of Faster R-CNN on ResNet, 2015, arXiv:1512.03385
    """

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H, W]``."""
        scale, shift = scale_and_shift(self)
        # Multiplied and added in place: torch's batch norm in eval mode takes longer on its way back.
        return (x * scale.to(x.dtype)[:, None, None]).add_(shift.to(x.dtype)[:, None, None])

    def extra_repr(self) -> str:
        """Channels and epsilon."""
        return f"{self.num_features}, eps={self.eps}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)  # an ordinary batch norm counts; nothing counts here
        super()._load_from_state_dict(state_dict, prefix, *rest)


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A batch norm with fixed statistics as one multiply-add: ``norm(x) == scale * x + shift``, each ``[C]``.

    Args:
        norm: a batch norm, frozen or in eval mode (its running statistics count, whatever the mode).

    Raises:
        ValueError: it has no running statistics.
    """
    mean, var = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if mean is None or var is None:
        raise ValueError(f"only a norm with running statistics can be folded, not {type(norm).__name__}")
    scale = (var + norm.eps).rsqrt()
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias

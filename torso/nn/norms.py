"""Normalisation layers, called with the number of channels: ``[B, C, H, W] -> [B, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.nn.cross_norm import CrossIteration, CrossMiniBatch
from torso.nn.frozen import Frozen


class Group(nn.GroupNorm):
    """Group normalisation with groups of a fixed number of channels, so that one setting fits layers of any width.

    Args:
        num_features: channels (given by the layer that asks for the norm).
        group_channels: channels a group; the largest divisor of ``num_features`` not above it is taken.
        eps: added to the variance.

    Source: Group Normalization, 2018, arXiv:1803.08494 (16 channels a group)
    """

    def __init__(self, num_features: int, group_channels: int = 16, eps: float = 1e-5):
        size = next(size for size in range(min(group_channels, num_features), 0, -1) if num_features % size == 0)
        super().__init__(num_features // size, num_features, eps=eps)


class Instance(nn.InstanceNorm2d):
    """Normalises every channel of every picture by itself; with a weight and a bias, which torch's own leaves out.

    Args:
        num_features: channels (given by the layer that asks for the norm).
        eps: added to the variance.
        affine: learn a weight and a bias a channel.

    Raises:
        ValueError: in training, a map of one pixel.

    Source: Instance Normalization: The Missing Ingredient for Fast Stylization, 2016, arXiv:1607.08022
    """

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True):
        super().__init__(num_features, eps=eps, affine=affine)


class Layer(nn.LayerNorm):
    """Normalises the channels of every pixel by themselves, then a weight and a bias a channel.

    Args:
        num_features: channels (given by the layer that asks for the norm).
        eps: added to the variance; 1e-6 as in ConvNeXt.

    Source: Layer Normalization, 2016, arXiv:1607.06450 (on maps as timm's ``LayerNorm2d``)
    """

    def __init__(self, num_features: int, eps: float = 1e-6):
        super().__init__(num_features, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H, W]``."""
        last = functional.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )  # [B, H, W, C]
        return last.permute(0, 3, 1, 2)


class FilterResponse(nn.Module):
    """Divides each channel of a picture by its root mean square over the pixels, no mean subtracted, then thresholds.

    The learned threshold (TLU) ``max(y, tau)`` is the activation: use ``activation: identity`` with it.

    Args:
        num_features: channels (given by the layer that asks for the norm).
        eps: added to the mean square.
        threshold: with the TLU; without, an activation has to follow.

    Source: Filter Response Normalization Layer, 2019, arXiv:1911.09737
    """

    def __init__(self, num_features: int, eps: float = 1e-6, threshold: bool = True):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.tau = nn.Parameter(torch.zeros(num_features)) if threshold else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H, W]``."""
        # The mean square in at least float32; weight and root as one factor, so that x is read only once more.
        square = x.square() if x.dtype.itemsize >= 4 else x.float().square()
        scale = (square.mean((2, 3), keepdim=True) + self.eps).rsqrt() * self.weight[:, None, None]
        x = (x * scale.to(x.dtype)).add_(self.bias[:, None, None].to(x.dtype))
        return x if self.tau is None else torch.maximum(x, self.tau[:, None, None].to(x.dtype))


NORMS: dict[str, type[nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "sync": nn.SyncBatchNorm,
    "frozen": Frozen,
    "cbn": CrossIteration,
    "cmbn": CrossMiniBatch,
    "group": Group,
    "instance": Instance,
    "layer": Layer,
    "frn": FilterResponse,
}

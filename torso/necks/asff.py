"""Adaptively spatial feature fusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.necks.resample import channels_of_levels, check_levels, fit, pool
from torso.nn.activations import LEAKY
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class ASFF(nn.Module):
    """Every level becomes a mean of all levels, weighted at every cell by weights that are learned from them.

    ``[B, in_channels[i], H_i, W_i]`` a level to ``[B, channels[i], H_i, W_i]``. The other levels come to a level's
    channels and size: coarser ones by a 1x1 convolution and nearest neighbour, finer ones by a 3x3 convolution of
    stride 2, after max pooling where they are more than twice as fine. A 1x1 convolution on each and another on all of
    them, and a softmax over levels, give the weights; a 3x3 convolution ends the level.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of the levels that go out: one number, one each, or None to keep them.
        weight_channels: channels from which the weights of a level are computed.
        norm: normalisation after every convolution but the one that gives the weights.
        activation: activation after the same; Darknet's leaky ReLU of slope 0.1 by default.

    Raises:
        ValueError: the levels do not fit each other, or the channels not the levels.

    Source: Learning Spatial Fusion for Single-Shot Object Detection, 2019, arXiv:1911.09516
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int | Sequence[int] | None = None,
        weight_channels: int = 16,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = LEAKY,
    ):
        super().__init__()
        check_levels("asff", in_channels, strides, least=2)
        self.channels = channels_of_levels("asff", channels, in_channels)
        self.strides = list(strides)
        self.levels = nn.ModuleList(
            SpatialFusion(in_channels, strides, i, weight_channels, norm, activation) for i in range(len(strides))
        )
        self.expand = nn.ModuleList(
            ConvNormAct(c, width, 3, norm=norm, activation=activation)
            for c, width in zip(in_channels, self.channels, strict=True)
        )

    def forward(self, features: Features) -> Features:
        """One level in, one level out."""
        return [expand(level(features)) for expand, level in zip(self.expand, self.levels, strict=True)]


class SpatialFusion(nn.Module):
    """All levels at one of them, and their mean with a weight for each at every cell.

    Args:
        in_channels: channels of the levels.
        strides: their strides.
        target: which of them the others are brought to.
        weight_channels: channels from which the weights are computed.
        norm: normalisation after the convolutions.
        activation: activation after the convolutions.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        target: int,
        weight_channels: int,
        norm: Layer | None,
        activation: Callable[[], nn.Module],
    ):
        super().__init__()
        self.target, width = target, in_channels[target]
        ratios = [strides[target] // stride for stride in strides]  # 0 where a level is coarser
        steps = [2 if ratio and ratio % 2 == 0 else max(ratio, 1) for ratio in ratios]
        self.pools = [max(ratio, 1) // step for ratio, step in zip(ratios, steps, strict=True)]
        self.resize = nn.ModuleList(
            nn.Identity()
            if i == target
            else ConvNormAct(c, width, 1 if step == 1 else 3, step, norm=norm, activation=activation)
            for i, (c, step) in enumerate(zip(in_channels, steps, strict=True))
        )
        self.weigh = nn.ModuleList(
            ConvNormAct(width, weight_channels, 1, norm=norm, activation=activation) for _ in strides
        )
        self.weight = nn.Conv2d(weight_channels * len(strides), len(strides), 1)

    def resized(self, features: Features) -> Features:
        """Every level at the channels and size of this one."""
        size = features[self.target].shape[-2:]
        return [fit(f(pool(x, ratio)), size) for f, x, ratio in zip(self.resize, features, self.pools, strict=True)]

    def weights(self, levels: Features) -> Tensor:
        """``[B, number of levels, H, W]``, which sum to 1 over levels."""
        hidden = [weigh(x) for weigh, x in zip(self.weigh, levels, strict=True)]
        output: Tensor = self.weight(torch.cat(hidden, dim=1))
        return output.softmax(1)

    def forward(self, features: Features) -> Tensor:
        """All levels to this one, ``[B, in_channels[target], H, W]``."""
        levels = self.resized(features)
        weights = self.weights(levels)
        total = levels[0] * weights[:, :1]
        for i, x in enumerate(levels[1:], start=1):
            total = total + x * weights[:, i : i + 1]
        return total

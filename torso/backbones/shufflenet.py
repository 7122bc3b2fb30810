"""ShuffleNet V1: grouped 1x1 convolutions, and a shuffle so that the groups hear of each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from torso.backbones.levels import chosen
from torso.config import Role
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features

# Channels of the first stage of units by groups (table 1): chosen so that all cost about the same.
FIRST = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
REPEATS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added to the input, or with stride 2 beside its pooling.

    Args:
        in_channels: channels that come in.
        channels: channels that go out; with stride 2 the pooled input is ``in_channels`` of them.
        groups: groups of the 1x1 convolutions.
        first_groups: groups of the first of them.
        stride: 1 or 2.
        norm: normalisation layer.
        activation: activation layer.

    Source: ShuffleNet, 2017, arXiv:1707.01083, figure 2
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        groups: int,
        first_groups: int,
        stride: int,
        norm: Layer,
        activation: Callable[[], nn.Module],
    ):
        super().__init__()
        width = channels // 4
        added = channels - in_channels if stride == 2 else channels
        self.path = nn.Sequential(
            ConvNormAct(in_channels, width, 1, norm=norm, activation=activation, groups=first_groups),
            nn.ChannelShuffle(groups) if groups > 1 else nn.Identity(),
            ConvNormAct(width, width, 3, stride, norm=norm, activation=None, groups=width),
            ConvNormAct(width, added, 1, norm=norm, activation=None, groups=groups),
        )
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` to ``[B, channels, ceil(H / stride), ceil(W / stride)]``."""
        joined = self.path(x) + x if self.pool is None else torch.cat([self.pool(x), self.path(x)], dim=1)
        out: Tensor = self.activation(joined)
        return out


class ShuffleNetV1(nn.Module):
    """Stem and max pooling to stride 4, then three stages of shuffle units.

    Every width is ``scale`` times the paper's, rounded up to what the groups divide. As in the authors' code the stem
    keeps 24 channels at 1.5x (48 at 2x, fewer below 1x) and weights have the deviation 1 / channels that a filter sees.

    Args:
        groups: groups of the 1x1 convolutions; more groups, more channels at the same cost.
        scale: factor of the channels (the paper's 0.25x, 0.5x, 1x, 1.5x, 2x); more than 0.
        levels: levels to return; level ``l`` (2 to 5) has stride ``2 ** l``, level 2 is the stem's.
        norm: normalisation layer.
        activation: activation layer.

    Raises:
        ModelError: a level it does not have.
        ValueError: a scale that is not positive.

    Source: ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices, 2017, arXiv:1707.01083
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        groups: Literal[1, 2, 3, 4, 8] = 3,
        scale: float = 1.0,
        levels: Sequence[int] = (3, 4, 5),
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        self.levels = chosen(levels, range(2, 6), "shufflenet_v1")
        stem, *widths = stage_channels(groups, scale)
        self.channels = [(stem, *widths)[level - 2] for level in self.levels]
        self.strides = [2**level for level in self.levels]
        self.stem = nn.Sequential(
            ConvNormAct(3, stem, 3, 2, norm=norm, activation=activation), nn.MaxPool2d(3, 2, padding=1)
        )
        self.stages = nn.ModuleList()
        before = stem
        for width, repeat in zip(widths[: self.levels[-1] - 2], REPEATS, strict=False):
            stage = nn.Sequential()
            for place in range(repeat):
                # The very first 1x1 is not grouped: it has few input channels.
                first = 1 if not self.stages and not place else groups
                stage.append(ShuffleUnit(before, width, groups, first, 1 if place else 2, norm, activation))
                before = width
            self.stages.append(stage)
        init_shuffle(self)

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        images = self.stem(images)
        features = [images] if 2 in self.levels else []
        for level, stage in enumerate(self.stages, start=3):
            images = stage(images)
            if level in self.levels:
                features.append(images)
        return features


def stage_channels(groups: int, scale: float) -> tuple[int, int, int, int]:
    """Channels of the stem and of the three stages."""
    if groups not in FIRST or scale <= 0:
        raise ValueError(f"groups must be one of {list(FIRST)} and scale more than 0, got {groups} and {scale}")
    stem = _up(24 * (scale if scale < 1 else math.floor(scale)), groups)
    first = _up(FIRST[groups] * scale, 4 * groups)  # a unit's inner width is a quarter of it, in groups
    return stem, first, 2 * first, 4 * first


def _up(value: float, step: int) -> int:
    return math.ceil(round(value / step, 6)) * step  # 240 * 1.1 is a little more than 264


def init_shuffle(module: nn.Module) -> None:
    """Weights as ShuffleNet's authors draw them: deviation 0.01 in the stem, else 1 / channels that a filter sees."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            seen = layer.weight.shape[1]
            nn.init.normal_(layer.weight, std=0.01 if layer.in_channels == 3 else 1.0 / seen)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

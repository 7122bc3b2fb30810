"""Atrous spatial pyramid pooling: one map seen with several dilations, and as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.necks.chosen import OnLevels, chosen
from torso.necks.resample import check_levels
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class AtrousPyramid(nn.Module):
    """The module of DeepLabv3 on one map: ``[B, in_channels, H, W]`` to ``[B, channels, H, W]``.

    A 1x1 convolution, a dilated 3x3 convolution for each rate, and a 1x1 convolution of the mean of the map lie side
    by side; a 1x1 convolution projects them.

    Args:
        in_channels: channels that come in.
        channels: channels that go out, and those of each branch.
        rates: dilations, in cells.
        separable: dilated depthwise 3x3, then 1x1, instead of full 3x3 convolutions (DeepLabv3+).
        dropout: share of the numbers that is dropped after the projection, 0..1.
        norm: after every convolution.
        activation: after every norm.

    Source: Rethinking Atrous Convolution for Semantic Image Segmentation, 2017, arXiv:1706.05587, section 3.3
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        rates: Sequence[int] = (12, 24, 36),
        *,
        separable: bool = False,
        dropout: float = 0.5,
        norm: Layer | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__()

        def conv(before: int, after: int, kernel: int = 1, dilation: int = 1) -> nn.Module:
            return ConvNormAct(before, after, kernel, norm=norm, activation=activation, dilation=dilation)

        def dilated(rate: int) -> nn.Module:
            if not separable:
                return conv(in_channels, channels, 3, rate)
            depthwise = nn.Conv2d(
                in_channels, in_channels, 3, padding=rate, dilation=rate, groups=in_channels, bias=False
            )
            return nn.Sequential(depthwise, conv(in_channels, channels))

        self.branches = nn.ModuleList([conv(in_channels, channels), *(dilated(rate) for rate in rates)])
        self.whole = conv(in_channels, channels)
        self.project = conv((len(rates) + 2) * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """One map to one of its size."""
        # Bilinear upsampling of a single number is that number everywhere.
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        output: Tensor = self.dropout(self.project(torch.cat([*(branch(x) for branch in self.branches), whole], 1)))
        return output


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling on chosen levels; the others pass as they are.

    The variant of DeepLabv3 (1x1, dilated 3x3, image pooling, batch norm), not DeepLabv2's, which sums four dilated
    classifiers. The branch of the whole map is one number a channel: batch norm cannot learn from a batch of one
    picture there.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of the chosen levels that go out.
        rates: dilations, in cells of the map: ``(12, 24, 36)`` fit a map of stride 8, ``(6, 12, 18)`` of stride 16.
        levels: indices of the levels that are pooled, -1 is the coarsest (DeepLab's); None is all of them.
        separable: depthwise separable instead of full dilated convolutions (DeepLabv3+).
        dropout: share of the numbers that is dropped at the end, 0..1.
        norm: normalisation after every convolution.
        activation: activation after every norm.

    Raises:
        ValueError: the levels do not fit each other, or one is chosen that is not there.

    Source: DeepLab, 2016, arXiv:1606.00915; the module of DeepLabv3, 2017, arXiv:1706.05587
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        levels: Sequence[int] | None = None,
        separable: bool = False,
        dropout: float = 0.5,
        *,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        check_levels("aspp", in_channels, strides)
        places = chosen("aspp", levels, strides)
        self.strides = list(strides)
        self.channels = [channels if i in places else c for i, c in enumerate(in_channels)]
        self.blocks = OnLevels(
            {
                i: AtrousPyramid(
                    in_channels[i],
                    channels,
                    rates,
                    separable=separable,
                    dropout=dropout,
                    norm=norm,
                    activation=activation,
                )
                for i in places
            }
        )

    def forward(self, features: Features) -> Features:
        """The same levels, the chosen ones pooled."""
        levels: Features = self.blocks(features)
        return levels

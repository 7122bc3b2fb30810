"""Receptive field blocks: branches whose kernel and dilation grow together, like the eye's away from its centre."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.necks.resample import channels_of_levels, check_levels, coarser_strides
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features

Step = tuple[int, tuple[int, int], int, int]
"""A convolution of a branch: channels, kernel (height, width), stride, dilation."""


class ReceptiveFieldBlock(nn.Module):
    """RFB or RFB-s on one map: ``[B, in_channels, H, W]`` to ``[B, channels, ceil(H / stride), ceil(W / stride)]``.

    ``activation(scale * project(concatenated branches) + shortcut)``; a branch is a 1x1 convolution, one that stands
    for the size of a receptive field, and a dilated 3x3 for how far from its centre it looks. RFB has three branches
    for ``rates`` r0, r1, r2 with kernels 1, 3 and 5 (two 3x3); RFB-s four, for r0, r1, r1 and r2, with kernels 1, 3x1,
    1x3, and 3 (1x3, then 3x1).

    Args:
        in_channels: channels that come in; a branch is an eighth of them wide (RFB-s: a quarter) where it begins.
        channels: channels that go out.
        small: RFB-s, for shallow levels, instead of RFB.
        stride: 1, or 2 for RFB on the way to a coarser level.
        rates: dilations of the branches.
        scale: factor of the branches before the shortcut is added.
        norm: after every convolution.
        activation: after every norm, but for the dilated convolutions, the projection and the shortcut.

    Raises:
        ValueError: not three rates, or RFB-s with a stride.

    Source: Receptive Field Block Net for Accurate and Fast Object Detection, 2017, arXiv:1711.07767, figure 4; widths
        as in its authors' code
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        small: bool = False,
        stride: int = 1,
        *,
        rates: Sequence[int] = (1, 3, 5),
        scale: float = 0.1,
        norm: Layer | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__()
        if len(rates) != 3 or (small and stride != 1):
            raise ValueError(f"rfb has 3 rates, and rfb-s no stride; got rates {list(rates)} and stride {stride}")
        branches = _small_branches(in_channels, rates) if small else _branches(in_channels, rates, stride)
        self.scale = scale
        self.branches = nn.ModuleList(_branch(in_channels, steps, norm, activation) for steps in branches)
        width = sum(steps[-1][0] for steps in branches)
        self.project = ConvNormAct(width, channels, 1, norm=norm, activation=None)
        self.shortcut = ConvNormAct(in_channels, channels, 1, stride, norm=norm, activation=None)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """One map to another."""
        seen = self.project(torch.cat([branch(x) for branch in self.branches], 1))
        output: Tensor = self.activation(torch.add(self.shortcut(x), seen, alpha=self.scale))
        return output


def _branches(in_channels: int, rates: Sequence[int], stride: int) -> list[list[Step]]:
    thin = max(in_channels // 8, 1)
    wide, between = 2 * thin, max(thin // 2 * 3, 1)
    one, three = (1, 1), (3, 3)
    return [
        [(wide, one, stride, 1), (wide, three, 1, rates[0])],
        [(thin, one, 1, 1), (wide, three, stride, 1), (wide, three, 1, rates[1])],
        [(thin, one, 1, 1), (between, three, 1, 1), (wide, three, stride, 1), (wide, three, 1, rates[2])],
    ]


def _small_branches(in_channels: int, rates: Sequence[int]) -> list[list[Step]]:
    thin = max(in_channels // 4, 1)
    half, between = max(thin // 2, 1), max(thin // 4 * 3, 1)
    one, three, tall, flat = (1, 1), (3, 3), (3, 1), (1, 3)
    return [
        [(thin, one, 1, 1), (thin, three, 1, rates[0])],
        [(thin, one, 1, 1), (thin, tall, 1, 1), (thin, three, 1, rates[1])],
        [(thin, one, 1, 1), (thin, flat, 1, 1), (thin, three, 1, rates[1])],
        [(half, one, 1, 1), (between, flat, 1, 1), (thin, tall, 1, 1), (thin, three, 1, rates[2])],
    ]


def _branch(
    in_channels: int, steps: Sequence[Step], norm: Layer | None, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (channels, kernel, stride, dilation) in enumerate(steps):
        padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
        layers.append(nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=norm is None))
        if norm is not None:
            layers.append(norm(channels))
        if i < len(steps) - 1:
            layers.append(activation())
        in_channels = channels
    return nn.Sequential(*layers)


class RFB(nn.Module):
    """A receptive field block on every level, RFB-s on the shallow ones, and coarser levels made by strided blocks.

    RFBNet-300's first four levels are ``RFB([512, 1024], [8, 16], channels=[512, 1024, 512, 256], extra=2)``; its
    authors' code dilates less than the paper's figure (1, 2, 3; on conv7 2, 3, 5).

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels that go out: one number for all, or one each, with the extra levels.
        extra: how many coarser levels to add, each half the size of the one before.
        small: how many of the finest levels get RFB-s.
        rates: dilations of the branches, in cells.
        scale: factor of the branches before the shortcut is added.
        norm: normalisation after every convolution.
        activation: activation of the blocks.

    Raises:
        ValueError: the levels do not fit each other, numbers of channels or rates are wrong, ``extra`` is negative.

    Source: Receptive Field Block Net for Accurate and Fast Object Detection, 2017, arXiv:1711.07767
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int | Sequence[int] = 256,
        extra: int = 0,
        small: int = 1,
        rates: Sequence[int] = (1, 3, 5),
        scale: float = 0.1,
        *,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        check_levels("rfb", in_channels, strides)
        if extra < 0 or small < 0:
            raise ValueError(f"rfb needs extra >= 0 and small >= 0, got {extra} and {small}")
        self.strides = coarser_strides(strides, extra)
        self.channels = channels_of_levels("rfb", channels, self.strides)
        self.extra = extra
        before = [*in_channels, *self.channels[len(in_channels) - 1 : -1]]
        self.blocks = nn.ModuleList(
            ReceptiveFieldBlock(
                before[i],
                self.channels[i],
                small=i < min(small, len(in_channels)),
                stride=1 if i < len(in_channels) else 2,
                rates=rates,
                scale=scale,
                norm=norm,
                activation=activation,
            )
            for i in range(len(self.strides))
        )

    def forward(self, features: Features) -> Features:
        """One level in, one level out, and the extra ones."""
        count = len(self.blocks) - self.extra
        levels = [block(x) for block, x in zip(self.blocks[:count], features, strict=True)]
        for block in self.blocks[count:]:
            levels.append(block(levels[-1]))
        return levels

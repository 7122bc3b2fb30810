"""M2Det's multi-level feature pyramid: U-shapes one after another, their equal scales gathered and weighed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.necks.resample import channels_of_levels, check_levels, coarser_strides, fit
from torso.nn.channel_attention import SqueezeExcite
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class BaseFusion(nn.Module):
    """FFMv1: levels compressed by 1x1 convolutions, brought to the size of the finest, concatenated.

    ``[B, in_channels[i], H_i, W_i]`` a level to ``[B, sum(channels), H_0, W_0]``.

    Args:
        in_channels: channels of the levels, finest first.
        channels: channels that each level is compressed to.
        norm: makes the norms.
        activation: makes the activations.

    Source: M2Det, 2018, arXiv:1811.04533, figure 4 (a)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: Sequence[int],
        norm: Layer | None,
        activation: Callable[[], nn.Module],
    ):
        super().__init__()
        self.channels = sum(channels)
        self.compress = nn.ModuleList(
            ConvNormAct(before, after, 1, norm=norm, activation=activation)
            for before, after in zip(in_channels, channels, strict=True)
        )

    def forward(self, features: Features) -> Tensor:
        """The levels to one map."""
        maps = [compress(x) for compress, x in zip(self.compress, features, strict=True)]
        return torch.cat([maps[0], *(fit(x, maps[0].shape[2:]) for x in maps[1:])], 1)


class ThinnedU(nn.Module):
    """TUM: strided 3x3 convolutions down, 3x3 laterals and nearest upsampling up, 1x1 convolutions out.

    ``[B, in_channels, H, W]`` to ``scales`` maps of ``channels`` channels, each half the size of the one before,
    finest first. Inside, maps have ``width`` channels.

    Args:
        in_channels: channels that come in.
        width: channels inside.
        channels: channels of each map that goes out.
        scales: how many.
        norm: makes the norms.
        activation: makes the activations.

    Source: M2Det, 2018, arXiv:1811.04533, figure 4 (c)
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        channels: int,
        scales: int,
        norm: Layer | None,
        activation: Callable[[], nn.Module],
    ):
        super().__init__()

        def conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Module:
            return ConvNormAct(before, after, kernel, stride, norm=norm, activation=activation)

        widths = [in_channels, *([width] * (scales - 1))]
        self.down = nn.ModuleList(conv(before, width, 3, 2) for before in widths[:-1])
        self.lateral = nn.ModuleList(conv(before, width, 3) for before in widths[:-1])
        self.top = conv(widths[-1], width, 1)
        self.out = nn.ModuleList(conv(width, channels, 1) for _ in widths)

    def forward(self, x: Tensor) -> Features:
        """One map to the scales of it."""
        seen = [x]
        for down in self.down:
            seen.append(down(seen[-1]))
        maps = [self.top(seen.pop())]
        for lateral, skip in zip(reversed(self.lateral), reversed(seen), strict=True):
            maps.insert(0, lateral(skip) + fit(maps[0], skip.shape[2:]))
        return [out(y) for out, y in zip(self.out, maps, strict=True)]


class SFAM(nn.Module):
    """Multi-level feature pyramid (MLFPN) of M2Det, gathered by scale-wise feature aggregation (SFAM).

    The levels are fused to one base map (FFMv1, `BaseFusion`); U-shaped modules (TUM, `ThinnedU`) follow each other,
    each on the base map compressed by a 1x1 convolution and, from the second, the finest map of the one before (FFMv2);
    the maps of one scale from all modules are concatenated and their channels weighed by squeeze-and-excitation.

    ``[B, in_channels[i], H_i, W_i]`` a level to ``scales`` levels of ``repeats * channels`` channels, the finest with
    the size of the finest that comes in, each other half the size of the one before. (The authors' code does not pad
    the last strided convolution: a 3 x 3 map becomes 1 x 1 there, 2 x 2 here.)

    Args:
        in_channels: channels of the levels that come in (wired); the paper has two, of the strides 8 and 16.
        strides: their strides (wired).
        repeats: how many TUMs.
        scales: levels that go out.
        channels: channels of each scale of a TUM, and of the base map before it.
        width: channels inside a TUM; twice ``channels`` by default.
        base: channels the levels are compressed to: one number for all, or one each; by default 2 times ``channels``
            the finest, 4 times the others.
        reduction: by how much squeeze-and-excitation narrows.
        norm: normalisation after each convolution.
        activation: activation after each norm.

    Raises:
        ValueError: the levels do not fit each other, or ``base`` are not as many.

    Source: M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network, 2018, arXiv:1811.04533
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        repeats: int = 8,
        scales: int = 6,
        channels: int = 128,
        width: int | None = None,
        base: int | Sequence[int] | None = None,
        reduction: int = 16,
        *,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        check_levels("sfam", in_channels, strides)
        if repeats < 1 or scales < 1:
            raise ValueError(f"sfam needs at least one TUM and one scale, got {repeats} and {scales}")
        compressed = channels_of_levels("sfam", base, [2 * channels, *([4 * channels] * (len(strides) - 1))])
        width = 2 * channels if width is None else width
        self.strides = coarser_strides(strides[:1], scales - 1)
        self.channels = [repeats * channels] * scales
        self.base = BaseFusion(in_channels, compressed, norm, activation)
        self.compress = nn.ModuleList(
            ConvNormAct(self.base.channels, channels, 1, norm=norm, activation=activation) for _ in range(repeats)
        )
        self.shapes = nn.ModuleList(
            ThinnedU(channels * (2 if i else 1), width, channels, scales, norm, activation) for i in range(repeats)
        )
        hidden = max(repeats * channels // reduction, 1)
        self.weigh = nn.ModuleList(SqueezeExcite(repeats * channels, hidden) for _ in range(scales))

    def forward(self, features: Features) -> Features:
        """The backbone's levels to all scales."""
        base = self.base(features)
        maps: list[Features] = []
        for compress, shape in zip(self.compress, self.shapes, strict=True):
            x = compress(base)
            maps.append(shape(torch.cat([x, maps[-1][0]], 1) if maps else x))
        return [weigh(torch.cat(scale, 1)) for weigh, *scale in zip(self.weigh, *maps, strict=True)]

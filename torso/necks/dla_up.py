"""Deep layer aggregation upwards: every coarser level joins the finer ones step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.necks.resample import check_levels
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.deformable_conv import DeformableConv
from torso.structures import Features

Activation = Callable[[], nn.Module]


class DLAUp(nn.Module):
    """All levels as one of the finest stride: the two coarsest join, what comes of it and the next one, and so on.

    After each round a finer output is there, in the channels of its level; at last those of all rounds join.

    Args:
        in_channels: channels of the levels that come in (wired); the finest level's are those that go out.
        strides: their strides (wired).
        deformable: convolutions look where offsets say (the paper), or at their neighbours.
        norm: normalisation after each convolution.
        activation: activation after each norm.

    Raises:
        ValueError: the levels do not fit each other, or there is one only.

    Source: Objects as Points, 2019, arXiv:1904.07850, figure 6; Deep Layer Aggregation, 2017, arXiv:1707.06484
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        deformable: bool = False,
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Activation, Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        check_levels("dla_up", in_channels, strides, least=2)

        def layer(before: int, after: int) -> nn.Module:
            made = MovedConv if deformable else ConvNormAct
            return made(before, after, norm=norm, activation=activation)

        self.channels, self.strides = [in_channels[0]], [strides[0]]
        self.rounds = nn.ModuleList()
        widths, steps = list(in_channels), list(strides)
        for start in range(len(widths) - 2, -1, -1):
            width, step = widths[start], steps[start]
            joined = [
                (other, fine // step) for other, fine in zip(widths[start + 1 :], steps[start + 1 :], strict=True)
            ]
            self.rounds.append(Aggregate(width, joined, layer))
            widths[start + 1 :] = [width] * len(joined)
            steps[start + 1 :] = [step] * len(joined)
        outputs = zip(in_channels[1:-1], strides[1:-1], strict=True)
        self.last = Aggregate(in_channels[0], [(width, step // strides[0]) for width, step in outputs], layer)

    def forward(self, features: Features) -> Features:
        """Levels ``[B, C_i, H_i, W_i]`` to one ``[B, C_0, H_0, W_0]``."""
        levels = list(features)
        outputs: Features = []
        for start, part in zip(range(len(levels) - 2, -1, -1), self.rounds, strict=True):
            levels[start:] = part(levels[start:])
            outputs.insert(0, levels[-1])
        return self.last(outputs)[-1:]  # type: ignore[no-any-return]


class Aggregate(nn.Module):
    """Maps in a row: each is brought to the channels and the size of the first, and joins the one before it.

    Args:
        channels: of the first map.
        others: channels, and how many times coarser it is, of each of the others.
        layer: makes a layer of given channels.
    """

    def __init__(self, channels: int, others: Sequence[tuple[int, int]], layer: Callable[[int, int], nn.Module]):
        super().__init__()
        self.projections = nn.ModuleList(layer(width, channels) for width, _ in others)
        self.ups = nn.ModuleList(_up(channels, factor) for _, factor in others)
        self.nodes = nn.ModuleList(layer(channels, channels) for _ in others)

    def forward(self, maps: Features) -> Features:
        """As many maps as come in, all of the size of the first."""
        first, *others = maps
        height, width = first.shape[-2:]
        found = [first]
        for x, project, up, node in zip(others, self.projections, self.ups, self.nodes, strict=True):
            larger = up(project(x))[..., :height, :width]
            found.append(node(larger + found[-1]))
        return found


class MovedConv(nn.Module):
    """A deformable 3x3 convolution with its own offsets and weights of taps, norm and activation."""

    def __init__(self, in_channels: int, channels: int, *, norm: Layer, activation: Activation):
        super().__init__()
        self.offsets = nn.Conv2d(in_channels, 27, 3, padding=1)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)  # type: ignore[arg-type]
        self.conv = DeformableConv(in_channels, channels)
        self.norm, self.activation = norm(channels), activation()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` to ``[B, channels, H, W]``."""
        said = self.offsets(x)
        out: Tensor = self.activation(self.norm(self.conv(x, said[:, :18], said[:, 18:].sigmoid())))
        return out


def _up(channels: int, factor: int) -> nn.Module:
    """Enlarges every channel by itself, bilinear at first and learned."""
    if factor == 1:
        return nn.Identity()
    up = nn.ConvTranspose2d(channels, channels, 2 * factor, factor, factor // 2, groups=channels, bias=False)
    away = (torch.arange(2 * factor) - (2 * factor - 1) / 2).abs() / factor
    tent = 1 - away
    with torch.no_grad():
        up.weight.copy_(tent[:, None] * tent)
    return up

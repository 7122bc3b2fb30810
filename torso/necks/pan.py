"""Path aggregation: a bottom-up path after the top-down one, by addition or by concatenation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import nn

from torso.config import Role
from torso.necks.fpn import FPN
from torso.necks.resample import (
    ExtraFrom,
    ExtraLevels,
    channels_of_levels,
    check_levels,
    coarser_strides,
    fit,
    init_uniform,
)
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.csp import CSP
from torso.structures import Features

Activation = Callable[[], nn.Module]


class PAN(nn.Module):
    """A top-down path, then a bottom-up path of strided convolutions, so that fine positions reach the coarse levels.

    ``[B, in_channels[i], H_i, W_i]`` a level to ``[B, channels[i], H_i, W_i]``, and ``extra`` coarser levels.

    ``fusion="add"`` is PANet's: an FPN, then on every level a 3x3 convolution of the sum of its map and the finer
    output through a strided 3x3 convolution. Each step starts from the finer level's output, as in the paper (mmdet
    starts from the sum before its convolution). ``fusion="concat"`` is that of YOLOv5 and YOLOX: maps are concatenated
    and cross stage partial blocks mix them.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of the levels that go out: one number for all; with ``concat`` also one each, or None to keep
            what comes in (YOLOX).
        fusion: how two maps of a level become one.
        depth: with ``concat``, bottlenecks in a block (YOLOX: S 1, M 2, L 3, X 4).
        extra: how many coarser levels to add.
        extra_from: what they are made of, see `FPN`.
        norm: normalisation after every convolution; by default what the sources have: none to add, batch norm to
            concatenate.
        activation: by default ReLU in the bottom-up path to add, SiLU everywhere to concatenate.

    Raises:
        ValueError: the levels do not fit each other, or the channels not the levels.

    Source: Path Aggregation Network for Instance Segmentation, 2018, arXiv:1803.01534; YOLOX, 2021, arXiv:2107.08430
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int | Sequence[int] | None = 256,
        fusion: Literal["add", "concat"] = "add",
        *,
        depth: int = 1,
        extra: int = 0,
        extra_from: ExtraFrom = "pool",
        norm: Annotated[Layer | None, Role("norm", factory=True)] = None,
        activation: Annotated[Activation | None, Role("activation", factory=True)] = None,
    ):
        super().__init__()
        ratios = check_levels("pan", in_channels, strides, least=2)
        if fusion not in {"add", "concat"}:
            raise ValueError(f"fusion of pan is add or concat, got {fusion!r}")
        widths = channels_of_levels("pan", channels, in_channels)
        self.channels, self.strides = [*widths, *([widths[-1]] * extra)], coarser_strides(strides, extra)
        self.path: nn.Module
        if fusion == "add":
            if len(set(widths)) > 1:
                raise ValueError(f"pan adds levels of equal channels, got {widths}: give one number, or concatenate")
            self.path = _Addition(in_channels, strides, widths[0], ratios, norm, activation or nn.ReLU)
        else:
            norm = norm or nn.BatchNorm2d
            self.path = _Concatenation(in_channels, widths, ratios, depth, norm, activation or nn.SiLU)
        self.coarser = ExtraLevels(in_channels[-1], widths[-1], extra, extra_from, norm)

    def forward(self, features: Features) -> Features:
        """One level in, one level out, and the extra ones."""
        levels: Features = self.coarser(features, self.path(features))
        return levels


class _Addition(nn.Module):
    """PANet's: FPN, then a path upwards by addition."""

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int,
        ratios: Sequence[int],
        norm: Layer | None,
        activation: Activation,
    ):
        super().__init__()
        conv = partial(ConvNormAct, channels, channels, 3, norm=norm, activation=activation)
        self.down = nn.ModuleList(conv(stride=ratio) for ratio in ratios)
        self.smooth = nn.ModuleList(conv() for _ in ratios)
        init_uniform(self)
        self.fpn = FPN(in_channels, strides, channels, extra=0, norm=norm)

    def forward(self, features: Features) -> Features:
        first, *rest = self.fpn(features)
        outputs: Features = [first]
        for down, smooth, x in zip(self.down, self.smooth, rest, strict=True):
            outputs.append(smooth(x + fit(down(outputs[-1]), x.shape[-2:])))
        return outputs


class _Concatenation(nn.Module):
    """YOLOX's: up and down by concatenation, cross stage partial blocks wherever two maps meet."""

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: Sequence[int],
        ratios: Sequence[int],
        depth: int,
        norm: Layer,
        activation: Activation,
    ):
        super().__init__()
        conv = partial(ConvNormAct, norm=norm, activation=activation)

        def body(width: int) -> nn.Sequential:
            return nn.Sequential(*(nn.Sequential(conv(width, width, 1), conv(width, width, 3)) for _ in range(depth)))

        block = partial(CSP, body=body, fusion="first", norm=norm, activation=activation)
        tops = [*channels[1:-1], in_channels[-1]]  # what comes down to each level but the last
        self.reduce = nn.ModuleList(conv(top, c, 1) for top, c in zip(tops, channels[:-1], strict=True))
        self.top_down = nn.ModuleList(block(c + x, c) for x, c in zip(in_channels[:-1], channels[:-1], strict=True))
        self.down = nn.ModuleList(conv(c, c, 3, ratio) for c, ratio in zip(channels[:-1], ratios, strict=True))
        self.bottom_up = nn.ModuleList(block(2 * fine, coarse) for fine, coarse in pairwise(channels))

    def forward(self, features: Features) -> Features:
        x = features[-1]
        reduced: Features = []
        for i in range(len(features) - 2, -1, -1):
            reduced.insert(0, self.reduce[i](x))
            x = self.top_down[i](torch.cat([fit(reduced[0], features[i].shape[-2:]), features[i]], dim=1))
        outputs = [x]
        for down, block, x in zip(self.down, self.bottom_up, reduced, strict=True):
            outputs.append(block(torch.cat([fit(down(outputs[-1]), x.shape[-2:]), x], dim=1)))
        return outputs

"""YOLOv2's passthrough layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import nn
from torch.nn import functional

from torso.config import Role
from torso.necks.resample import check_levels
from torso.nn.activations import LEAKY
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class YOLOv2(nn.Module):
    """All levels become one, the coarsest: finer ones pass through as channels, each square of cells one cell.

    Two 3x3 convolutions on the coarsest level; a 1x1 convolution on each finer one, whose cells become channels of the
    coarsest cell they lie in (space to depth, as the paper says; Darknet's "reorg" deals the same numbers out in an
    order that mixes distant cells); all concatenated, and one more 3x3 convolution.
    ``[B, in_channels[i], H_i, W_i]`` to one ``[B, channels, H, W]`` of the coarsest level's size.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of the three 3x3 convolutions.
        passed: channels a cell of a finer level passes on: 64 in Darknet, 512 (without the 1x1 convolution) in the text
            of the paper.
        norm: normalisation after every convolution.
        activation: activation after every convolution; Darknet's leaky ReLU of slope 0.1 by default.

    Raises:
        ValueError: the levels do not fit each other.

    Source: YOLO9000: Better, Faster, Stronger, 2016, arXiv:1612.08242
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 1024,
        passed: int = 64,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = LEAKY,
    ):
        super().__init__()
        check_levels("yolov2", in_channels, strides)
        self.channels, self.strides = [channels], [strides[-1]]
        self.ratios = [strides[-1] // stride for stride in strides[:-1]]
        self.top = nn.Sequential(
            ConvNormAct(in_channels[-1], channels, 3, norm=norm, activation=activation),
            ConvNormAct(channels, channels, 3, norm=norm, activation=activation),
        )
        self.reduce = nn.ModuleList(
            ConvNormAct(c, passed, 1, norm=norm, activation=activation) for c in in_channels[:-1]
        )
        joined = channels + sum(passed * ratio**2 for ratio in self.ratios)
        self.join = ConvNormAct(joined, channels, 3, norm=norm, activation=activation)

    def forward(self, features: Features) -> Features:
        """Levels in, the coarsest out."""
        top = self.top(features[-1])
        maps = []
        for reduce, ratio, x in zip(self.reduce, self.ratios, features[:-1], strict=True):
            # The coarse map was rounded up: what its last cells lack is 0.
            right, down = top.shape[-1] * ratio - x.shape[-1], top.shape[-2] * ratio - x.shape[-2]
            maps.append(functional.pixel_unshuffle(functional.pad(reduce(x), (0, right, 0, down)), ratio))
        return [self.join(torch.cat([*maps, top], dim=1))]

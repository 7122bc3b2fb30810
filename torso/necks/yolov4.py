"""YOLOv4's neck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

import torch
from torch import nn

from torso.config import Role
from torso.necks.resample import channels_of_levels, check_levels, fit
from torso.necks.yolov3 import UpsampleConcat, alternating
from torso.nn.activations import LEAKY
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.pyramid_pool import PyramidPool
from torso.structures import Features


class YOLOv4(nn.Module):
    """Spatial pyramid pooling on the coarsest level, then a top-down and a bottom-up path, all by concatenation.

    ``[B, in_channels[i], H_i, W_i]`` to ``[B, channels[i], H_i, W_i]``. Wherever two maps meet, five convolutions
    follow, 1x1 and 3x3 in turn. The 3x3 convolution before the predictions belongs to the head.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of the levels that go out: one number, one each, or None for half of what comes in
            (YOLOv4 with CSPDarknet-53: 128, 256, 512).
        kernels: sides of the pooling windows in cells: odd, rising.
        norm: normalisation after every convolution.
        activation: activation after every convolution; Darknet's leaky ReLU of slope 0.1 by default.

    Raises:
        ValueError: the levels do not fit each other, the channels not the levels, or kernels that are even.

    Source: YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020, arXiv:2004.10934
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int | Sequence[int] | None = None,
        kernels: Sequence[int] = (5, 9, 13),
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = LEAKY,
    ):
        super().__init__()
        ratios = check_levels("yolov4", in_channels, strides)
        self.channels = channels_of_levels("yolov4", channels, [max(c // 2, 1) for c in in_channels])
        self.strides = list(strides)
        widths, top = self.channels, self.channels[-1]
        self.spp = nn.Sequential(
            alternating(in_channels[-1], top, 3, norm, activation),
            PyramidPool(kernels),
            alternating(top * (1 + len(kernels)), top, 3, norm, activation),
        )
        self.lateral = nn.ModuleList(
            ConvNormAct(c, width, 1, norm=norm, activation=activation)
            for c, width in zip(in_channels[:-1], widths, strict=False)
        )
        self.join = nn.ModuleList(UpsampleConcat(coarse, fine, norm, activation) for fine, coarse in pairwise(widths))
        self.down = nn.ModuleList(
            ConvNormAct(fine, coarse, 3, ratio, norm=norm, activation=activation)
            for (fine, coarse), ratio in zip(pairwise(widths), ratios, strict=True)
        )
        self.top_down = nn.ModuleList(alternating(2 * c, c, 5, norm, activation) for c in widths[:-1])
        self.bottom_up = nn.ModuleList(alternating(2 * c, c, 5, norm, activation) for c in widths[1:])

    def forward(self, features: Features) -> Features:
        """One level in, one level out."""
        down: Features = [self.spp(features[-1])]
        for i in range(len(features) - 2, -1, -1):
            down.insert(0, self.top_down[i](self.join[i](down[0], self.lateral[i](features[i]))))
        up: Features = [down[0]]
        for shrink, block, x in zip(self.down, self.bottom_up, down[1:], strict=True):
            up.append(block(torch.cat([fit(shrink(up[-1]), x.shape[-2:]), x], dim=1)))
        return up

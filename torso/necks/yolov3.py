"""YOLOv3's neck, and the pieces that YOLOv4's shares with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.necks.resample import channels_of_levels, check_levels, fit
from torso.nn.activations import LEAKY
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.pyramid_pool import PyramidPool
from torso.structures import Features


class UpsampleConcat(nn.Module):
    """A coarser map through a 1x1 convolution, copied up to the size of the finer one, and both concatenated.

    ``[B, in_channels, h, w]`` and ``[B, C, H, W]`` to ``[B, channels + C, H, W]``, the coarser map's channels first.

    Args:
        in_channels: channels of the coarser map.
        channels: what the convolution makes of them.
        norm: normalisation after the convolution.
        activation: activation after the convolution.

    Source: YOLOv3: An Incremental Improvement, 2018, arXiv:1804.02767
    """

    def __init__(self, in_channels: int, channels: int, norm: Layer | None, activation: Callable[[], nn.Module]):
        super().__init__()
        self.conv = ConvNormAct(in_channels, channels, 1, norm=norm, activation=activation)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """The coarser and the finer map, joined at the finer one's size."""
        return torch.cat([fit(self.conv(coarse), fine.shape[-2:]), fine], dim=1)


class YOLOv3(nn.Module):
    """Top-down path by concatenation: five convolutions a level, 1x1 and 3x3 in turn, then up to the finer level.

    ``[B, in_channels[i], H_i, W_i]`` to ``[B, channels[i], H_i, W_i]``. The 3x3 convolution before the predictions
    belongs to the head.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of the levels that go out: one number, one each, or None for half of what comes in
            (YOLOv3 with Darknet-53: 128, 256, 512).
        norm: normalisation after every convolution.
        activation: activation after every convolution; Darknet's leaky ReLU of slope 0.1 by default.
        kernels: sides of pooling windows in cells, odd and rising, after the third convolution of the coarsest level,
            and a 1x1 convolution behind them (YOLOv3-SPP, PP-YOLO: 5, 9, 13); none in YOLOv3.

    Raises:
        ValueError: the levels do not fit each other, or the channels not the levels.

    Source: YOLOv3: An Incremental Improvement, 2018, arXiv:1804.02767
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int | Sequence[int] | None = None,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = LEAKY,
        kernels: Sequence[int] = (),
    ):
        super().__init__()
        check_levels("yolov3", in_channels, strides)
        self.channels = channels_of_levels("yolov3", channels, [max(c // 2, 1) for c in in_channels])
        self.strides = list(strides)
        self.join = nn.ModuleList(
            UpsampleConcat(coarse, fine, norm, activation) for fine, coarse in pairwise(self.channels)
        )
        joined = [c + above for c, above in zip(in_channels, [*self.channels[:-1], 0], strict=True)]
        self.blocks = nn.ModuleList(
            alternating(before, c, 5, norm, activation) for before, c in zip(joined, self.channels, strict=True)
        )
        if kernels:
            top = self.channels[-1]
            self.blocks[-1] = nn.Sequential(
                alternating(joined[-1], top, 3, norm, activation),
                PyramidPool(kernels),
                alternating(top * (1 + len(kernels)), top, 3, norm, activation),
            )

    def forward(self, features: Features) -> Features:
        """One level in, one level out."""
        outputs: Features = [self.blocks[-1](features[-1])]
        for i in range(len(features) - 2, -1, -1):
            outputs.insert(0, self.blocks[i](self.join[i](outputs[0], features[i])))
        return outputs


def alternating(
    in_channels: int, channels: int, count: int, norm: Layer | None, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """Darknet's stack of an odd number of convolutions: 1x1 to ``channels``, 3x3 to twice as many, and again."""
    layers = []
    for i in range(count):
        out, kernel = (2 * channels, 3) if i % 2 else (channels, 1)
        layers.append(ConvNormAct(in_channels, out, kernel, norm=norm, activation=activation))
        in_channels = out
    return nn.Sequential(*layers)

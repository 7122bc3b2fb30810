"""SSD's pyramid: what follows the backbone's last level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.config import Role
from torso.necks.resample import check_levels, coarser_strides
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.init import init_weights
from torso.structures import Features


class SSDExtra(nn.Module):
    """Coarser levels, each of a 1x1 and a 3x3 convolution on the one before; the finest levels are normalised.

    ``[B, in_channels[i], H_i, W_i]`` a level to the same, and ``[B, widths[k], H_k, W_k]`` for each coarser level, half
    the size of the one before. A level that is normalised has length ``scale`` at every cell: its activations are
    larger than those of the levels further up.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        widths: channels of the coarser levels (SSD300: 512, 256, 256, 256; SSD512: one 256 more); their 1x1
            convolutions have half as many.
        unpadded: what the last of them are said to have as strides if their 3x3 convolutions have no border and no
            stride: [100, 300] in SSD300, where maps of 5 cells become 3 and 1. Right for that size of picture only.
        normalized: how many of the finest levels are normalised (SSD: conv4_3).
        scale: their length at the beginning; learned, channel by channel.
        norm: normalisation after each convolution; none in the paper.
        activation: activation after each convolution.

    Raises:
        ValueError: the levels do not fit each other, or fewer levels than are to be normalised or unpadded.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325; the normalisation from ParseNet,
        arXiv:1506.04579
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        widths: Sequence[int] = (512, 256, 256, 256),
        unpadded: Sequence[int] = (),
        normalized: int = 1,
        scale: float = 20.0,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = None,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        check_levels("ssd_extra", in_channels, strides)
        if not 0 <= normalized <= len(in_channels) or len(unpadded) > len(widths):
            raise ValueError(
                f"ssd_extra has {len(in_channels)} levels to normalise and makes {len(widths)} more, but normalized is "
                f"{normalized} and unpadded {list(unpadded)}"
            )
        self.padded = padded = len(widths) - len(unpadded)
        self.channels = [*in_channels, *widths]
        self.strides = [*coarser_strides(strides, padded), *unpadded]
        self.scales = nn.ParameterList(torch.full((channels,), scale) for channels in in_channels[:normalized])
        self.blocks = nn.ModuleList()
        before = in_channels[-1]
        for place, width in enumerate(widths):
            first = ConvNormAct(before, width // 2, 1, norm=norm, activation=activation)
            second = ConvNormAct(width // 2, width, 3, 2, norm=norm, activation=activation)
            if place >= padded:
                conv = second[0]
                assert isinstance(conv, nn.Conv2d)
                conv.stride, conv.padding = (1, 1), (0, 0)
            self.blocks.append(nn.Sequential(first, second))
            before = width
        init_weights(self.blocks, "xavier")

    def forward(self, features: Features) -> Features:
        """One level in, one level out, and the coarser ones."""
        count = len(self.scales)
        levels = [_normalized(x, scale) for x, scale in zip(features[:count], self.scales, strict=True)]
        levels += features[count:]
        x = features[-1]
        for place, block in enumerate(self.blocks):
            x = block(x if place < self.padded else _at_least_three(x))
            levels.append(x)
        return levels


def _at_least_three(x: Tensor) -> Tensor:
    """A map with a border where it is smaller than the kernel: of a picture that is too small for the levels."""
    missing: list[Any] = [torch.sym_max(3 - side, 0) for side in x.shape[-2:]]  # symbols in an exported graph
    return functional.pad(x, (0, missing[1], 0, missing[0]))


def _normalized(x: Tensor, scale: Tensor) -> Tensor:
    return functional.normalize(x) * scale[:, None, None]

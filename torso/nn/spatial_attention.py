"""Attention over places, and CBAM, which attends to channels first and to places then."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torso.nn.channel_attention import ChannelAttention
from torso.nn.conv import ConvNormAct, Layer


class SpatialAttention(nn.Module):
    """Every place is weighed by a number in 0..1 that a convolution reads from the mean and the maximum over channels.

    ``[B, C, H, W] -> [B, C, H, W]`` for any number of channels.

    Args:
        kernel: side of the convolution.
        norm: makes the norm after it; the paper has none, its authors' code and timm have batch norm.

    Source: CBAM: Convolutional Block Attention Module, 2018, arXiv:1807.06521
    """

    def __init__(self, kernel: int = 7, norm: Layer | None = nn.BatchNorm2d):
        super().__init__()
        self.conv = ConvNormAct(2, 1, kernel, norm=norm, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Places weighed."""
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)  # [B, 2, H, W]
        out: Tensor = x * self.conv(summary).sigmoid()
        return out


class CBAM(nn.Sequential):
    """Channel attention, then spatial attention: ``[B, channels, H, W] -> [B, channels, H, W]``.

    Args:
        channels: channels that come in and go out.
        hidden: channels between the two layers of the channel attention; a sixteenth by default.
        kernel: side of the spatial attention's convolution.
        bias: whether the layers of the channel attention have one.

    Source: CBAM: Convolutional Block Attention Module, 2018, arXiv:1807.06521
    """

    def __init__(self, channels: int, hidden: int | None = None, kernel: int = 7, bias: bool = False):
        super().__init__(ChannelAttention(channels, hidden, bias), SpatialAttention(kernel))

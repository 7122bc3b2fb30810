"""Attention over channels: squeeze-and-excitation, and the channel half of CBAM."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Every channel is weighed by a number in 0..1 that two layers read from the mean of all channels.

    ``[B, channels, H, W] -> [B, channels, H, W]``. Named like torchvision's and timm's, so their weights load.

    Args:
        channels: channels that come in and go out.
        hidden: channels between the two layers; a sixteenth by default.
        activation: makes the activation between them.
        gate: makes what maps to 0..1.

    Source: Squeeze-and-Excitation Networks, 2017, arXiv:1709.01507
    """

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
    ):
        super().__init__()
        hidden = max(1, channels // 16) if hidden is None else hidden
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.activation = activation()
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """Channels weighed."""
        mean = x.mean((2, 3), keepdim=True)  # [B, C, 1, 1]
        weight: Tensor = self.gate(self.fc2(self.activation(self.fc1(mean))))
        return x * weight


class ChannelAttention(nn.Module):
    """CBAM's: the same two layers read the mean and the maximum of every channel, and their sum weighs it.

    ``[B, channels, H, W] -> [B, channels, H, W]``.

    Args:
        channels: channels that come in and go out.
        hidden: channels between the two layers; a sixteenth by default.
        bias: whether the two layers have one.

    Source: CBAM: Convolutional Block Attention Module, 2018, arXiv:1807.06521
    """

    def __init__(self, channels: int, hidden: int | None = None, bias: bool = False):
        super().__init__()
        hidden = max(1, channels // 16) if hidden is None else hidden
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Channels weighed."""
        mean, top = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        # The second layer is linear, so it can add the two up by itself: one call instead of two.
        hidden = torch.relu(self.fc1(mean)) + torch.relu(self.fc1(top))
        weight: Tensor = self.fc2(hidden)
        if self.fc2.bias is not None:
            weight = weight + self.fc2.bias[:, None, None]
        return x * weight.sigmoid()

"""Dense connections: every layer reads what all layers before it made."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from torso.nn.conv import ConvNormAct, Layer


class Dense(nn.Module):
    """``x`` and the outputs of all layers beside it: layer ``i`` reads the concatenation of everything before it.

    Args:
        layers: layer ``i`` takes ``in_channels + i * growth`` channels and gives ``growth``, at the same size.

    Source: Densely Connected Convolutional Networks, 2016, arXiv:1608.06993, equation 2
    """

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` to ``[B, in_channels + len(layers) * growth, H, W]``."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def dense_block(
    in_channels: int,
    growth: int,
    layers: int,
    *,
    width: int = 4,
    dropout: float = 0.0,
    norm: Layer = nn.BatchNorm2d,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Dense:
    """A block of DenseNet-BC: pre-activated 1x1 to ``width * growth`` channels, then 3x3 to ``growth``, many times.

    Args:
        in_channels: channels that come in.
        growth: channels that each layer adds.
        layers: how many layers.
        width: channels between the two convolutions, in units of ``growth``.
        dropout: share of each layer's numbers that is dropped, 0..1.
        norm: before each convolution.
        activation: after each norm.

    Source: Densely Connected Convolutional Networks, 2016, arXiv:1608.06993
    """

    def layer(channels: int) -> nn.Module:
        steps: list[nn.Module] = [
            ConvNormAct(before, after, kernel, norm=norm, activation=activation, order="nac", bias=False)
            for before, after, kernel in ((channels, width * growth, 1), (width * growth, growth, 3))
        ]
        return nn.Sequential(*steps, *([nn.Dropout(dropout)] if dropout else []))

    return Dense(*(layer(in_channels + i * growth) for i in range(layers)))

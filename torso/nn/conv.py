"""Convolution, norm and activation as one block, and the initialisation heads share."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

Layer = Callable[[int], nn.Module]
"""Makes a norm for a number of channels."""


class ConvNormAct(nn.Sequential):
    """Convolution (same padding for odd kernels), then norm, then activation; either may be left out.

    The convolution has a bias only where no norm follows.
    ``[B, in_channels, H, W] -> [B, channels, ceil(H / stride), ceil(W / stride)]``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        norm: Layer | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
    ):
        conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=norm is None)
        layers: list[nn.Module] = [conv]
        if norm is not None:
            layers.append(norm(channels))
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)


def init_normal(module: nn.Module, std: float = 0.01) -> None:
    """Weights of all convolutions and linear layers below ``module`` drawn from N(0, std), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

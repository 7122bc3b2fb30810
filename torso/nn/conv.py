"""Convolution, norm and activation as one block, and the initialisation heads share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

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
        groups: int = 1,
    ):
        conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=norm is None)
        layers: list[nn.Module] = [conv]
        if norm is not None:
            layers.append(norm(channels))
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers in order."""
        for layer in self:
            x = layer(x)
        return x


class DepthwiseSeparable(nn.Sequential):
    """A 3x3 convolution a channel, then a 1x1 across channels: a ninth of the work of a full 3x3.

    Source: MobileNets, 2017, arXiv:1704.04861
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        norm: Layer | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
    ):
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
            ConvNormAct(in_channels, channels, 1, norm=norm, activation=activation),
        )


def init_normal(module: nn.Module, std: float = 0.01) -> None:
    """Weights of all convolutions and linear layers below ``module`` drawn from N(0, std), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

"""Residual blocks that the backbones written here are built from: a path, a shortcut, an activation of their sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from torso.nn.conv import Layer

Activation = Callable[[], nn.Module]


def conv_norm(
    in_channels: int,
    channels: int,
    kernel: int,
    stride: int = 1,
    *,
    norm: Layer,
    groups: int = 1,
    dilation: int = 1,
) -> list[nn.Module]:
    """A convolution without bias that keeps the size (rounded up where it has a stride), and its norm."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(
        in_channels, channels, kernel, stride, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    return [conv, norm(channels)]


class Residual(nn.Module):
    """``activation(path(x) + shortcut(x))``."""

    def __init__(self, path: nn.Module, shortcut: nn.Module, activation: nn.Module):
        super().__init__()
        self.path, self.shortcut, self.activation = path, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` to ``[B, channels, ceil(H / stride), ceil(W / stride)]``."""
        out: Tensor = self.activation(self.path(x) + self.shortcut(x))
        return out


def basic(in_channels: int, channels: int, stride: int = 1, *, norm: Layer, activation: Activation) -> Residual:
    """Two 3x3 convolutions, the first with the stride."""
    path = nn.Sequential(
        *conv_norm(in_channels, channels, 3, stride, norm=norm),
        activation(),
        *conv_norm(channels, channels, 3, norm=norm),
    )
    return Residual(path, shortcut(in_channels, channels, stride, norm=norm), activation())


def bottleneck(
    in_channels: int,
    channels: int,
    stride: int = 1,
    *,
    norm: Layer,
    activation: Activation,
    dilation: int = 1,
    project: bool = False,
    stride_on: int = 3,
) -> Residual:
    """1x1 to a quarter of ``channels``, 3x3 with the dilation, 1x1 to ``channels``.

    ``project`` puts a 1x1 convolution on the shortcut even where the sizes agree; ``stride_on`` is the kernel (1 or 3)
    of the convolution that has the stride.
    """
    width = channels // 4
    first, second = (stride, 1) if stride_on == 1 else (1, stride)
    path = nn.Sequential(
        *conv_norm(in_channels, width, 1, first, norm=norm),
        activation(),
        *conv_norm(width, width, 3, second, norm=norm, dilation=dilation),
        activation(),
        *conv_norm(width, channels, 1, norm=norm),
    )
    return Residual(path, shortcut(in_channels, channels, stride, norm=norm, project=project), activation())


def shortcut(in_channels: int, channels: int, stride: int = 1, *, norm: Layer, project: bool = False) -> nn.Module:
    """The identity, or a 1x1 convolution where the size changes or a projection is asked for."""
    if in_channels == channels and stride == 1 and not project:
        return nn.Identity()
    return nn.Sequential(*conv_norm(in_channels, channels, 1, stride, norm=norm))


def init_he(module: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """All convolutions below ``module`` from N(0, 2 / fan), biases 0 (Delving Deep into Rectifiers, equation 10)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

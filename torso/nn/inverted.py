"""Inverted residuals with linear bottlenecks: the blocks of MobileNetV2, MnasNet, EfficientNet and EfficientNetV2."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from torso.nn.channel_attention import SqueezeExcite
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.residual import Residual

Activation = Callable[[], nn.Module]


def inverted_residual(
    in_channels: int,
    channels: int,
    stride: int = 1,
    *,
    expansion: float = 6,
    kernel: int = 3,
    norm: Layer = nn.BatchNorm2d,
    activation: Activation = nn.ReLU6,
    attention: Layer | None = None,
    drop: nn.Module | None = None,
) -> nn.Module:
    """1x1 to more channels, a depthwise convolution, 1x1 to few channels without activation (the linear bottleneck).

    Where nothing changes its shape the input is added.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        stride: of the depthwise convolution.
        expansion: channels inside as a multiple of ``in_channels``; with 1 the first convolution is left out.
        kernel: side of the depthwise kernel.
        norm: makes the norms.
        activation: makes the activations.
        attention: makes an attention over so many channels, after the depthwise convolution.
        drop: applied to the path before the sum, such as stochastic depth.

    Source: MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, arXiv:1801.04381
    """
    width = round(in_channels * expansion)
    layers: list[nn.Module] = []
    if width != in_channels:
        layers.append(ConvNormAct(in_channels, width, 1, norm=norm, activation=activation))
    layers.append(ConvNormAct(width, width, kernel, stride, norm=norm, activation=activation, groups=width))
    if attention is not None:
        layers.append(attention(width))
    layers.append(ConvNormAct(width, channels, 1, norm=norm, activation=None))
    return _with_shortcut(layers, drop, in_channels == channels and stride == 1)


def mbconv(
    in_channels: int,
    channels: int,
    stride: int = 1,
    *,
    expansion: float = 6,
    kernel: int = 3,
    norm: Layer = nn.BatchNorm2d,
    activation: Activation = nn.SiLU,
    squeeze: float = 0.25,
    drop: nn.Module | None = None,
) -> nn.Module:
    """EfficientNet's block: an inverted residual with squeeze-and-excitation after the depthwise convolution.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        stride: of the depthwise convolution.
        expansion: channels inside as a multiple of ``in_channels``.
        kernel: side of the depthwise kernel.
        norm: makes the norms.
        activation: makes the activations.
        squeeze: channels of the squeeze as a fraction of ``in_channels`` (not of the expanded ones), 0..1.
        drop: applied to the path before the sum, such as stochastic depth.

    Source: MnasNet, 2018, arXiv:1807.11626; EfficientNet, 2019, arXiv:1905.11946
    """
    attention = partial(SqueezeExcite, hidden=max(1, int(in_channels * squeeze)), activation=activation)
    return inverted_residual(
        in_channels,
        channels,
        stride,
        expansion=expansion,
        kernel=kernel,
        norm=norm,
        activation=activation,
        attention=attention,
        drop=drop,
    )


def fused_mbconv(
    in_channels: int,
    channels: int,
    stride: int = 1,
    *,
    expansion: float = 4,
    kernel: int = 3,
    norm: Layer = nn.BatchNorm2d,
    activation: Activation = nn.SiLU,
    drop: nn.Module | None = None,
) -> nn.Module:
    """EfficientNetV2's early block: expansion and depthwise convolution as one ordinary convolution, which runs faster.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        stride: of the first convolution.
        expansion: channels inside as a multiple of ``in_channels``; with 1 there is one convolution, with activation.
        kernel: side of the first kernel.
        norm: makes the norms.
        activation: makes the activations.
        drop: applied to the path before the sum, such as stochastic depth.

    Source: EfficientNetV2: Smaller Models and Faster Training, 2021, arXiv:2104.00298
    """
    width = round(in_channels * expansion)
    if width == in_channels:
        layers: list[nn.Module] = [ConvNormAct(in_channels, channels, kernel, stride, norm=norm, activation=activation)]
    else:
        layers = [
            ConvNormAct(in_channels, width, kernel, stride, norm=norm, activation=activation),
            ConvNormAct(width, channels, 1, norm=norm, activation=None),
        ]
    return _with_shortcut(layers, drop, in_channels == channels and stride == 1)


def _with_shortcut(layers: list[nn.Module], drop: nn.Module | None, same: bool) -> nn.Module:
    if not same:
        return nn.Sequential(*layers)
    return Residual(nn.Sequential(*layers, *([] if drop is None else [drop])))

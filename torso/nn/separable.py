"""The depthwise separable convolution: every channel by itself, then every place by itself."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from torso.nn.conv import ConvNormAct, Layer


class SeparableConv(nn.Sequential):
    """A depthwise ``kernel`` x ``kernel`` convolution, then a pointwise 1x1, each with norm and activation.

    ``in_channels kernel^2 + in_channels channels`` weights where a convolution has ``in_channels channels kernel^2``:
    75 against 432 for 3x3 from 3 to 16 channels.
    ``[B, in_channels, H, W] -> [B, channels, ceil(H / stride), ceil(W / stride)]``.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        kernel: side of the depthwise kernel.
        stride: of the depthwise convolution.
        norm: makes the norms.
        activation: makes the activations.
        dilation: of the depthwise convolution.
        between: norm and activation also between the two (MobileNetV1); without, the pair is one linear map followed
            by them (Xception, RetinaNet's separable heads).
        bias: whether the convolutions have one; by default only where no norm comes right after.

    Source: Xception, 2016, arXiv:1610.02357; MobileNets, 2017, arXiv:1704.04861
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
        dilation: int = 1,
        between: bool = True,
        bias: bool | None = None,
    ):
        if not between and bias is None:
            depthwise_bias: bool | None = False  # the pointwise convolution's own bias does the same
        else:
            depthwise_bias = bias
        super().__init__(
            ConvNormAct(
                in_channels,
                in_channels,
                kernel,
                stride,
                norm=norm if between else None,
                activation=activation if between else None,
                groups=in_channels,
                dilation=dilation,
                bias=depthwise_bias,
            ),
            ConvNormAct(in_channels, channels, 1, norm=norm, activation=activation, bias=bias),
        )

"""Convolution, norm and activation as one block in any order, and the initialisation heads share."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

Layer = Callable[[int], nn.Module]
"""Makes a norm for a number of channels."""


class ConvNormAct(nn.Sequential):
    """Convolution (same padding for odd kernels), norm and activation in a given order; norm and activation may miss.

    ``[B, in_channels, H, W] -> [B, channels, ceil(H / stride), ceil(W / stride)]``.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        kernel: side of the kernel.
        stride: cells between two positions of the kernel.
        norm: makes the norm; it normalises what comes in where it stands before the convolution.
        activation: makes the activation.
        groups: groups of channels that do not see each other; ``in_channels`` of them make it depthwise.
        dilation: cells between two taps of the kernel, see `effective_kernel`.
        order: the layers by their first letters: ``"cna"`` (Darknet's DBL unit, ResNet), ``"nac"`` (pre-activation),
            ``"acn"`` (Xception), ``"can"``.
        bias: whether the convolution has one; by default only where no norm comes right after it.

    Raises:
        ValueError: an ``order`` that is not c, n and a, each once.

    Source: YOLOv3, 2018, arXiv:1804.02767 (cna); Identity Mappings in Deep Residual Networks, arXiv:1603.05027 (nac)
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
        dilation: int = 1,
        order: str = "cna",
        bias: bool | None = None,
    ):
        if sorted(order) != ["a", "c", "n"]:
            raise ValueError(f"order must be the letters c, n and a, each once, such as 'cna' or 'nac', got {order!r}")
        if bias is None:
            # Only a norm that follows at once takes the mean out again.
            bias = norm is None or (order + " ")[order.index("c") + 1] != "n"
        layers: list[nn.Module] = []
        for letter in order:
            if letter == "c":
                padding = dilation * (kernel // 2)
                layers.append(
                    nn.Conv2d(
                        in_channels, channels, kernel, stride, padding, dilation=dilation, groups=groups, bias=bias
                    )
                )
            elif letter == "n" and norm is not None:
                layers.append(norm(channels if "c" in order[: order.index("n")] else in_channels))
            elif letter == "a" and activation is not None:
                layers.append(activation())
        super().__init__(*layers)


def effective_kernel(kernel: int, dilation: int) -> int:
    """Side of what a dilated kernel spans: ``k + (k - 1)(a - 1)``.

    Source: Multi-Scale Context Aggregation by Dilated Convolutions, 2015, arXiv:1511.07122

    >>> effective_kernel(3, 2)
    5
    """
    return kernel + (kernel - 1) * (dilation - 1)


def init_normal(module: nn.Module, std: float = 0.01) -> None:
    """Weights of all convolutions and linear layers below ``module`` drawn from N(0, std), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

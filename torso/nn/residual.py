"""Residual connections, and the blocks of ResNet and ResNeXt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from torso.nn.conv import ConvNormAct, Layer

Activation = Callable[[], nn.Module]
Order = Literal["cna", "nac"]


class Residual(nn.Module):
    """``activation(shortcut(x) + path(x))``.

    Args:
        path: what is learned on top of the shortcut.
        shortcut: the identity by default; see `shortcut`.
        activation: applied to the sum; none by default.

    Source: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385
    """

    def __init__(self, path: nn.Module, shortcut: nn.Module | None = None, activation: nn.Module | None = None):
        super().__init__()
        self.path = path
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` to what ``path`` makes of it."""
        out: Tensor = self.activation(self.path(x) + self.shortcut(x))
        return out


class Weighted(nn.Module):
    """``weight * path(x)`` with one learned weight in -1..1 that starts at 0: the path of a weighted residual (WRC).

    ``Residual(Weighted(path))`` begins as the identity, however deep the network is. The paper projects the weight
    into its range after every step; here the forward pass projects and the gradient passes through (lazy projection),
    which is the same while the weight is inside.

    Args:
        path: what is weighted.
        start: the weight before training, -1..1.

    Source: Weighted Residuals for Very Deep Networks, 2016, arXiv:1605.08831
    """

    def __init__(self, path: nn.Module, start: float = 0.0):
        super().__init__()
        self.path = path
        self.weight = nn.Parameter(torch.tensor(float(start)))

    def forward(self, x: Tensor) -> Tensor:
        """Like ``path``."""
        weight = self.weight + (self.weight.clamp(-1, 1) - self.weight).detach()
        out: Tensor = weight * self.path(x)
        return out


def basic_block(
    in_channels: int,
    channels: int,
    stride: int = 1,
    *,
    norm: Layer = nn.BatchNorm2d,
    activation: Activation = nn.ReLU,
    dilation: int = 1,
    order: Order = "cna",
    attention: Layer | None = None,
    weighted: bool = False,
) -> nn.Module:
    """ResNet-18's block: two 3x3 convolutions, the first with the stride, and a shortcut.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        stride: of the first convolution and of the shortcut.
        norm: makes the norms.
        activation: makes the activations.
        dilation: of both convolutions.
        order: ``"cna"`` is ResNet, ``"nac"`` pre-activation (ResNet V2).
        attention: makes an attention over so many channels (SE, CBAM), before the sum.
        weighted: weighs the path by a number that starts at 0, see `Weighted`.

    Source: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385; Identity Mappings, arXiv:1603.05027
    """
    layers = [(in_channels, channels, 3, stride, dilation, 1), (channels, channels, 3, 1, dilation, 1)]
    return _assembled(layers, norm, activation, order, attention, weighted)


def bottleneck(
    in_channels: int,
    channels: int,
    stride: int = 1,
    *,
    norm: Layer = nn.BatchNorm2d,
    activation: Activation = nn.ReLU,
    width: int | None = None,
    groups: int = 1,
    dilation: int = 1,
    order: Order = "cna",
    attention: Layer | None = None,
    weighted: bool = False,
) -> nn.Module:
    """ResNet-50's block: 1x1 to ``width``, 3x3 with the stride, 1x1 to ``channels``, and a shortcut.

    ResNeXt-50 (32x4d) is ``groups=32`` with a ``width`` of half of ``channels``: 32 equal branches of 4 channels in the
    first stage, drawn as one grouped convolution.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        stride: of the 3x3 convolution (as torchvision; the paper strides the first 1x1) and of the shortcut.
        norm: makes the norms.
        activation: makes the activations.
        width: channels inside; a quarter of ``channels`` by default.
        groups: groups of the 3x3 convolution, the branches of ResNeXt.
        dilation: of the 3x3 convolution.
        order: ``"cna"`` is ResNet, ``"nac"`` pre-activation (ResNet V2).
        attention: makes an attention over so many channels (SE, CBAM), before the sum.
        weighted: weighs the path by a number that starts at 0, see `Weighted`.

    Source: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385; ResNeXt, 2016, arXiv:1611.05431
    """
    width = channels // 4 if width is None else width
    layers = [
        (in_channels, width, 1, 1, 1, 1),
        (width, width, 3, stride, dilation, groups),
        (width, channels, 1, 1, 1, 1),
    ]
    return _assembled(layers, norm, activation, order, attention, weighted)


def shortcut(in_channels: int, channels: int, stride: int = 1, *, norm: Layer | None = nn.BatchNorm2d) -> nn.Module:
    """The identity, or a 1x1 convolution where channels or size change."""
    if in_channels == channels and stride == 1:
        return nn.Identity()
    return ConvNormAct(in_channels, channels, 1, stride, norm=norm, activation=None, bias=False)


def _assembled(
    layers: list[tuple[int, int, int, int, int, int]],
    norm: Layer,
    activation: Activation,
    order: Order,
    attention: Layer | None,
    weighted: bool,
) -> nn.Module:
    """The block of convolutions ``(in_channels, channels, kernel, stride, dilation, groups)``."""
    in_channels, channels = layers[0][0], layers[-1][1]
    stride = max(layer[3] for layer in layers)
    project = in_channels != channels or stride > 1
    path = nn.Sequential()
    for i, (before, after, kernel, step, dilation, groups) in enumerate(layers):
        # Pre-activation: a projection sees the normed input too, so norm and activation stand before both (below).
        bare = order == "nac" and project and i == 0
        last = order == "cna" and i == len(layers) - 1
        path.append(
            ConvNormAct(
                before,
                after,
                kernel,
                step,
                norm=None if bare else norm,
                activation=None if bare or last else activation,
                groups=groups,
                dilation=dilation,
                order=order,
                bias=False,
            )
        )
    if attention is not None:
        path.append(attention(channels))
    learned = Weighted(path) if weighted else path
    if order == "cna":
        return Residual(learned, shortcut(in_channels, channels, stride, norm=norm), activation())
    block = Residual(learned, shortcut(in_channels, channels, stride, norm=None))
    return nn.Sequential(norm(in_channels), activation(), block) if project else block

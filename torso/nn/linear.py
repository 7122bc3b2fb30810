"""A fully connected layer is a convolution that sees its whole input, and the other way round."""

from __future__ import annotations

import torch
from torch import nn


def linear_to_conv(linear: nn.Linear, kernel: int | tuple[int, int] = 1) -> nn.Conv2d:
    """The convolution that gives at every place what ``linear`` gives for the patch under its kernel.

    With kernel 1 it turns a classifier after global pooling into a map of classes; with the size of the last feature
    map it turns one that flattens ``[B, C, h, w]`` (VGG's 7 x 7) into the fully convolutional network of FCN.

    Args:
        linear: the layer; its values are copied.
        kernel: height and width of the map that was flattened for it.

    Raises:
        ValueError: its features do not divide into so many places.

    Source: Fully Convolutional Networks for Semantic Segmentation, 2014, arXiv:1411.4038
    """
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    channels, rest = divmod(linear.in_features, height * width)
    if rest:
        raise ValueError(
            f"{linear.in_features} features are no map of {height} x {width}: they must divide by its size"
        )
    bias, weight = linear.bias is not None, linear.weight
    conv = nn.Conv2d(
        channels, linear.out_features, (height, width), bias=bias, device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        conv.weight.copy_(weight.reshape(conv.weight.shape))
        if conv.bias is not None:
            conv.bias.copy_(linear.bias)
    return conv


def conv_to_linear(conv: nn.Conv2d) -> nn.Linear:
    """The linear layer on ``patch.flatten(1)`` that gives what ``conv`` gives for one patch of its kernel's size.

    Args:
        conv: the layer; its values are copied. Stride and padding say where patches lie, so they do not matter here.

    Raises:
        ValueError: a grouped or dilated convolution, which skips part of the patch.

    Source: Network In Network, 2013, arXiv:1312.4400
    """
    if conv.groups != 1 or tuple(conv.dilation) != (1, 1):
        raise ValueError(
            f"only a convolution that sees its whole patch is a linear layer, got groups={conv.groups} and "
            f"dilation={tuple(conv.dilation)}"
        )
    weight = conv.weight.detach().flatten(1)
    linear = nn.Linear(weight.shape[1], weight.shape[0], conv.bias is not None, weight.device, weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if conv.bias is not None:
            linear.bias.copy_(conv.bias)
    return linear

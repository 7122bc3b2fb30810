"""Spatial pyramid pooling: one map seen through windows of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.config import Role
from torso.necks.resample import check_levels
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features

LEAKY = partial(nn.LeakyReLU, 0.1)
"""Darknet's activation."""


class PyramidPool(nn.Module):
    """A map and its maxima over windows of several sizes around every cell, concatenated.

    ``[B, C, H, W]`` to ``[B, C * (1 + len(kernels)), H, W]``: the map itself first, then the windows in their order
    (Darknet's files have them the other way round).

    Args:
        kernels: sides of the windows in cells: odd, rising.
        chained: each window from the one before (SPPF): 5, 9 and 13 are one, two and three times 5. The same numbers
            for fewer comparisons; only where a window holds its maximum twice may the gradient go to the other one.

    Raises:
        ValueError: even kernels, or such that do not rise.

    Source: YOLOv3-SPP, after Spatial Pyramid Pooling in Deep Convolutional Networks, 2014, arXiv:1406.4729
    """

    def __init__(self, kernels: Sequence[int] = (5, 9, 13), chained: bool = True):
        super().__init__()
        if not kernels or any(kernel % 2 == 0 for kernel in kernels) or any(b <= a for a, b in pairwise([1, *kernels])):
            raise ValueError(f"kernels of spp are odd numbers above 1, rising, got {list(kernels)}")
        self.kernels, self.chained = tuple(kernels), chained

    def forward(self, x: Tensor) -> Tensor:
        """One map to the windows of it."""
        maps = [x]
        for before, kernel in pairwise([1, *self.kernels]):
            window = kernel - before + 1 if self.chained else kernel
            maps.append(functional.max_pool2d(maps[-1 if self.chained else 0], window, 1, window // 2))
        return torch.cat(maps, dim=1)


class SPP(nn.Module):
    """Spatial pyramid pooling on the coarsest level; the others pass as they are.

    A 1x1 convolution halves the channels, max pooling with every kernel is concatenated (`PyramidPool`), and a 1x1
    convolution brings them to ``channels``. The original pools into bins for a vector of fixed length; detectors keep
    the map, as here.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of the coarsest level that goes out; None keeps them.
        kernels: sides of the windows in cells: odd, rising.
        chained: pool in a chain (SPPF): the same numbers, fewer comparisons.
        norm: normalisation after the convolutions.
        activation: activation after the convolutions; Darknet's leaky ReLU of slope 0.1 by default.

    Raises:
        ValueError: the levels do not fit each other, or kernels that are even or do not rise.

    Source: Spatial Pyramid Pooling in Deep Convolutional Networks, 2014, arXiv:1406.4729, as in YOLOv3-SPP and YOLOv4
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int | None = None,
        kernels: Sequence[int] = (5, 9, 13),
        chained: bool = True,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = LEAKY,
    ):
        super().__init__()
        check_levels("spp", in_channels, strides)
        self.channels = [*in_channels[:-1], in_channels[-1] if channels is None else channels]
        self.strides = list(strides)
        half = max(in_channels[-1] // 2, 1)
        self.reduce = ConvNormAct(in_channels[-1], half, 1, norm=norm, activation=activation)
        self.pool = PyramidPool(kernels, chained)
        self.expand = ConvNormAct(half * (1 + len(kernels)), self.channels[-1], 1, norm=norm, activation=activation)

    def forward(self, features: Features) -> Features:
        """The same levels, the last one pooled."""
        return [*features[:-1], self.expand(self.pool(self.reduce(features[-1])))]

"""Spatial pyramid pooling: one map seen through windows of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import nn

from torso.config import Role
from torso.necks.resample import check_levels
from torso.nn.activations import LEAKY
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.pyramid_pool import PyramidPool
from torso.structures import Features


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

"""The tiny grid CNN: pictures to one grid of cells, to teach one-grid detectors with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from torch import Tensor, nn

from torso.config import Role
from torso.nn.activations import LEAKY
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class Grid(nn.Module):
    """A handful of 3x3 convolutions that end in one S x S grid, one cell for every ``stride`` x ``stride`` pixels.

    A convolution, norm, activation and 2x2 max pooling for every halving, channels doubling from ``width`` up to
    ``channels``; then ``depth`` convolutions on the grid. A 224 px picture at stride 32 gives YOLOv1's 7 x 7 cells;
    a cell sees more than itself (158 px by default).

    Args:
        stride: pixels a cell; S is the side of the picture divided by it, rounded up.
        width: channels of the first convolution.
        channels: channels of the grid, and the most that any layer has.
        depth: convolutions on the grid.
        norm: normalisation layer.
        activation: activation layer; YOLOv1's is a leaky ReLU of slope 0.1.

    Raises:
        ValueError: no channels, or a negative depth.

    Source: own design, after the one grid of You Only Look Once, 2015, arXiv:1506.02640
    """

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(
        self,
        stride: Literal[8, 16, 32, 64] = 32,
        width: int = 16,
        channels: int = 128,
        depth: int = 1,
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = LEAKY,
    ):
        super().__init__()
        if min(width, channels) < 1 or depth < 0:
            raise ValueError(
                f"width and channels must be at least 1 and depth at least 0, got {width}, {channels} and {depth}"
            )
        self.channels, self.strides = [channels], [stride]
        halvings = stride.bit_length() - 1
        widths = [min(width * 2**i, channels) for i in range(halvings - 1)] + [channels]
        self.layers = nn.Sequential()
        before = 3
        for after in widths:
            self.layers.append(ConvNormAct(before, after, norm=norm, activation=activation))
            self.layers.append(nn.MaxPool2d(2, ceil_mode=True))
            before = after
        for _ in range(depth):
            self.layers.append(ConvNormAct(channels, channels, norm=norm, activation=activation))

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to ``[B, channels, ceil(H / stride), ceil(W / stride)]``."""
        return [self.layers(images)]

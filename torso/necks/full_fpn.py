"""The fully connected feature pyramid network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import nn

from torso.config import Role
from torso.necks.fusion import Fusion, FusionPyramid, Nodes
from torso.nn.conv import Layer
from torso.structures import Features


class FullFPN(nn.Module):
    """Cells in which every level that goes out is the weighted sum of all levels that come in.

    ``[B, in_channels[i], H_i, W_i]`` a level to ``[B, channels, H_i, W_i]``, and ``extra`` coarser levels. Finer levels
    come by max pooling, coarser ones by nearest neighbour. The paper draws these connections (figure 2d of its first
    version) and says no more: activation, convolution, norm and weights are BiFPN's.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of every level that goes out.
        extra: how many coarser levels to add.
        repeats: how many cells.
        fusion: ``"sum"``: no weights; ``"fast"``: weights ``relu(w) / (sum + 1e-4)``; ``"softmax"``.
        separable: depthwise separable convolutions; False for full 3x3 ones.
        norm: normalisation after every convolution.
        activation: activation before the convolution of a node.

    Raises:
        ValueError: the levels do not fit each other, or are fewer than two.

    Source: EfficientDet: Scalable and Efficient Object Detection, 2019, arXiv:1911.09070v1, figure 2 and table 4
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 64,
        extra: int = 2,
        *,
        repeats: int = 3,
        fusion: Fusion = "sum",
        separable: bool = True,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.SiLU,
    ):
        super().__init__()
        self.pyramid = FusionPyramid(
            "full_fpn",
            in_channels,
            strides,
            channels=channels,
            extra=extra,
            nodes=fully_connected,
            repeats=repeats,
            fusion=fusion,
            separable=separable,
            norm=norm,
            activation=activation,
        )
        self.strides = self.pyramid.strides
        self.channels = [channels] * len(self.strides)

    def forward(self, features: Features) -> Features:
        """One level in, one level out, and the extra ones."""
        levels: Features = self.pyramid(features)
        return levels


def fully_connected(levels: int) -> Nodes:
    """A node a level, of all levels.

    >>> fully_connected(2)
    [(0, [0, 1]), (1, [0, 1])]
    """
    return [(level, list(range(levels))) for level in range(levels)]

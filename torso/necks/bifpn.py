"""The weighted bidirectional feature pyramid network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import nn

from torso.config import Role
from torso.necks.fusion import Fusion, FusionPyramid, Nodes
from torso.nn.conv import Layer
from torso.structures import Features


class BiFPN(nn.Module):
    """Cells of a top-down and a bottom-up path whose nodes weigh their inputs, with depthwise separable convolutions.

    ``[B, in_channels[i], H_i, W_i]`` a level to ``[B, channels, H_i, W_i]``, and ``extra`` coarser levels. A node is
    weighted sum, activation, convolution, norm. In the first cell each input of a node has a 1x1 convolution of its own
    where channels differ, as in the authors' code.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of every level that goes out (EfficientDet-D0 to D7: 64 88 112 160 224 288 384 384).
        extra: how many coarser levels to add (EfficientDet: 2, P6 and P7).
        repeats: how many cells (EfficientDet-D0 to D7: 3 4 5 6 7 7 8 8).
        fusion: ``"fast"``: weights ``relu(w) / (sum + 1e-4)``; ``"softmax"``; ``"sum"``: no weights.
        separable: depthwise separable convolutions; False for full 3x3 ones.
        norm: normalisation after every convolution (the authors' batch norm has eps 1e-3 and momentum 0.01).
        activation: activation before the convolution of a node.

    Raises:
        ValueError: the levels do not fit each other, or are fewer than two.

    Source: EfficientDet: Scalable and Efficient Object Detection, 2019, arXiv:1911.09070
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 64,
        extra: int = 2,
        *,
        repeats: int = 3,
        fusion: Fusion = "fast",
        separable: bool = True,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.SiLU,
    ):
        super().__init__()
        self.pyramid = FusionPyramid(
            "bifpn",
            in_channels,
            strides,
            channels=channels,
            extra=extra,
            nodes=bidirectional,
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


def bidirectional(levels: int) -> Nodes:
    """Down from the coarsest level but one, then up again; levels in between see their own input a second time.

    >>> bidirectional(3)
    [(1, [1, 2]), (0, [0, 3]), (1, [1, 3, 4]), (2, [2, 5])]
    """
    nodes: Nodes = []
    latest = list(range(levels))
    for level in range(levels - 2, -1, -1):
        nodes.append((level, [level, latest[level + 1]]))
        latest[level] = levels + len(nodes) - 1
    for level in range(1, levels):
        nodes.append((level, [*sorted({level, latest[level]}), latest[level - 1]]))
        latest[level] = levels + len(nodes) - 1
    return nodes

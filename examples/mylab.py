"""A neck of your own, in a file of your own.

``torso train retinanet --import mylab model.neck=my_neck data.path=DIR``
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from torso.structures import Features


class MyNeck(nn.Module):
    """Brings every level to the same width, and does nothing else.

    Source: own design.
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int = 64):
        super().__init__()
        self.channels, self.strides = [channels] * len(in_channels), list(strides)
        self.squeeze = nn.ModuleList(nn.Conv2d(width, channels, kernel_size=1) for width in in_channels)

    def forward(self, features: Features) -> Features:
        """One level in, one level out."""
        return [layer(level) for layer, level in zip(self.squeeze, features, strict=True)]


PARTS = {"neck": {"my_neck": MyNeck}}

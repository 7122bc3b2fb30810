"""No neck."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from torso.necks.resample import check_levels
from torso.structures import Features


class Identity(nn.Module):
    """The backbone's levels as they are: for heads that look at one level (C4), or have weights of their own on each.

    Args:
        in_channels: channels of the levels (wired).
        strides: their strides (wired).

    Raises:
        ValueError: the levels do not fit each other.

    Source: Faster R-CNN, 2015, arXiv:1506.01497 (its only level is the backbone's last)
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int]):
        super().__init__()
        check_levels("identity", in_channels, strides)
        self.channels, self.strides = list(in_channels), list(strides)

    def forward(self, features: Features) -> Features:
        """Levels ``[B, C_i, H_i, W_i]`` to the same."""
        return features

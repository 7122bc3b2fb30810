"""All levels beside each other, as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from torso.necks.resample import check_levels
from torso.structures import Features


class Concat(nn.Module):
    """One level of the finest stride: the coarser ones enlarged to its size, all channels beside each other.

    Nothing is learned here; ``channels`` is the sum of those that come in.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        upsample: how coarser levels are enlarged; bilinear in the paper.

    Raises:
        ValueError: the levels do not fit each other.

    Source: DenseBox: Unifying Landmark Localization with End to End Object Detection, 2015, arXiv:1509.04874, figure 3
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        upsample: Literal["nearest", "bilinear"] = "bilinear",
    ):
        super().__init__()
        check_levels("concat", in_channels, strides)
        self.upsample = upsample
        self.channels, self.strides = [sum(in_channels)], [strides[0]]

    def forward(self, features: Features) -> Features:
        """Levels ``[B, C_i, H_i, W_i]`` to one ``[B, sum(C_i), H_0, W_0]``."""
        size = features[0].shape[-2:]
        corners = None if self.upsample == "nearest" else False
        larger = [functional.interpolate(x, size, mode=self.upsample, align_corners=corners) for x in features[1:]]
        return [torch.cat([features[0], *larger], dim=1)]

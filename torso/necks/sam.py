"""Spatial attention as a neck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from torch import Tensor, nn

from torso.config import Role
from torso.necks.chosen import OnLevels, chosen
from torso.necks.resample import check_levels
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.spatial_attention import SpatialAttention
from torso.structures import Features


class PointAttention(nn.Module):
    """Every number of a map is weighed by one in 0..1 that a 1x1 convolution reads from the channels at its place.

    ``[B, channels, H, W] -> [B, channels, H, W]``.

    Args:
        channels: channels that come in and go out.
        norm: makes the norm after the convolution.

    Source: YOLOv4, 2020, arXiv:2004.10934, figure 5
    """

    def __init__(self, channels: int, norm: Layer | None = nn.BatchNorm2d):
        super().__init__()
        self.conv = ConvNormAct(channels, channels, 1, norm=norm, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers weighed."""
        out: Tensor = x * self.conv(x).sigmoid()
        return out


class SAM(nn.Module):
    """Spatial attention on chosen levels; shapes stay as they are.

    Two modules have the name: CBAM's reads one weight a place from the mean and the maximum over channels; YOLOv4's
    reads a weight for every number with a 1x1 convolution, without pooling.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        kind: ``"spatial"`` is CBAM's, ``"pointwise"`` YOLOv4's.
        kernel: side of the convolution of CBAM's, in cells; odd.
        levels: indices of the levels that are weighed, -1 is the coarsest; None is all of them.
        norm: normalisation before the sigmoid; CBAM's text has none, its authors' code and timm have batch norm.

    Raises:
        ValueError: the levels do not fit each other, one is chosen that is not there, a kind that is neither, or an
            even kernel.

    Source: CBAM: Convolutional Block Attention Module, 2018, arXiv:1807.06521; YOLOv4, 2020, arXiv:2004.10934
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        kind: Literal["spatial", "pointwise"] = "spatial",
        kernel: int = 7,
        levels: Sequence[int] | None = None,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
    ):
        super().__init__()
        check_levels("sam", in_channels, strides)
        if kind not in {"spatial", "pointwise"} or kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"sam is spatial or pointwise, with an odd kernel, got {kind!r} and {kernel}")
        self.channels, self.strides = list(in_channels), list(strides)
        self.blocks = OnLevels(
            {
                i: SpatialAttention(kernel, norm) if kind == "spatial" else PointAttention(in_channels[i], norm)
                for i in chosen("sam", levels, strides)
            }
        )

    def forward(self, features: Features) -> Features:
        """The same levels, the chosen ones weighed."""
        levels: Features = self.blocks(features)
        return levels

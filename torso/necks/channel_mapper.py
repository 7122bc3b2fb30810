"""The neck that only adapts channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from torch import nn

from torso.config import Role
from torso.necks.resample import channels_of_levels, check_levels, coarser_strides
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class ChannelMapper(nn.Module):
    """A convolution on every level that brings it to the channels a head wants, and coarser levels by strided ones.

    ``[B, in_channels[i], H_i, W_i]`` a level to ``[B, channels[i], H_i, W_i]``; levels do not see each other. The first
    extra level is a 3x3 convolution of stride 2 on the backbone's last level, each other one on the extra one before.
    Before a norm convolutions have no bias (Deformable DETR's have one).

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of the levels that go out: one number, or one each.
        kernel: side of the kernels in cells, odd.
        extra: how many coarser levels to add (Deformable DETR: 1).
        norm: normalisation after every convolution (Deformable DETR: group, of 32 groups).
        activation: activation after every convolution; none by default.

    Raises:
        ValueError: the levels do not fit each other, or the channels not the levels.

    Source: Deformable DETR, 2020, arXiv:2010.04159, appendix A.4 (its input projection)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int | Sequence[int] = 256,
        kernel: int = 1,
        extra: int = 0,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = None,
        activation: Annotated[Callable[[], nn.Module] | None, Role("activation", factory=True)] = None,
    ):
        super().__init__()
        check_levels("channel_mapper", in_channels, strides)
        if extra < 0 or kernel % 2 == 0:
            raise ValueError(f"channel_mapper needs extra >= 0 and an odd kernel, got {extra} and {kernel}")
        widths = channels_of_levels("channel_mapper", channels, in_channels)
        self.channels, self.strides = [*widths, *([widths[-1]] * extra)], coarser_strides(strides, extra)
        conv = partial(ConvNormAct, norm=norm, activation=activation)
        self.maps = nn.ModuleList(conv(c, width, kernel) for c, width in zip(in_channels, widths, strict=True))
        self.coarser = nn.ModuleList(conv(widths[-1] if i else in_channels[-1], widths[-1], 3, 2) for i in range(extra))

    def forward(self, features: Features) -> Features:
        """One level in, one level out, and the extra ones."""
        levels: Features = [layer(x) for layer, x in zip(self.maps, features, strict=True)]
        x = features[-1]
        for down in self.coarser:
            x = down(x)
            levels.append(x)
        return levels

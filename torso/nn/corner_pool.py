"""Corner pooling: what a corner cannot see by itself, for it mostly lies outside of its object.

``[B, C, H, W]`` to the same. In training and prediction these are running maxima; under export, where a side may be
any number of cells and ONNX has no such operator, maxima of ever longer stretches (2, 4, 8, ...) up to `LONGEST` cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.nn.conv import ConvNormAct, Layer

LONGEST = 1 << 14
"""Cells along a side that an exported file can have: 65,536 px at stride 4, the most that export promises."""

Corner = Literal["top_left", "bottom_right"]


def top_pool(x: Tensor) -> Tensor:
    """The largest value from each cell down to the bottom: a corner at the top looks for what lies below it."""
    return _onwards(x, 2)


def left_pool(x: Tensor) -> Tensor:
    """The largest value from each cell to the right border."""
    return _onwards(x, 3)


def bottom_pool(x: Tensor) -> Tensor:
    """The largest value from each cell up to the top."""
    return _onwards(x.flip(2), 2).flip(2) if torch.compiler.is_exporting() else torch.cummax(x, 2).values


def right_pool(x: Tensor) -> Tensor:
    """The largest value from each cell to the left border."""
    return _onwards(x.flip(3), 3).flip(3) if torch.compiler.is_exporting() else torch.cummax(x, 3).values


def _onwards(x: Tensor, dim: int) -> Tensor:
    """The largest value from each cell to the end of ``dim``."""
    if not torch.compiler.is_exporting():
        return torch.cummax(x.flip(dim), dim).values.flip(dim)
    return onwards_by_doubling(x, dim)


def onwards_by_doubling(x: Tensor, dim: int, longest: int = LONGEST) -> Tensor:
    """The same for sides of up to ``longest`` cells, known or not.

    After the step of s cells each place knows the largest of 2 s; beyond the end it asks the last cell, which belongs
    to the stretch of every other.
    """
    last = x.shape[dim] - 1
    place = torch.arange(x.shape[dim], device=x.device)
    step = 1
    while step < longest:
        x = torch.maximum(x, x.index_select(dim, (place + step).clamp(max=last)))
        step *= 2
    return x


class CornerPool(nn.Module):
    """Features of a corner: along both of its sides the largest value, their sum beside a shortcut.

    With ``cascade`` a side is looked at twice: first inwards from the side, so that its values know of the object's
    middle, then along it.

    Args:
        channels: that come in and go out.
        corner: which one.
        pooled: channels of what is pooled.
        cascade: cascade corner pooling (CenterNet of triplets).
        norm: normalisation layer.
        activation: activation layer.

    Raises:
        ValueError: no such corner.

    Source: CornerNet: Detecting Objects as Paired Keypoints, 2018, arXiv:1808.01244, figures 3 and 7; cascade:
        CenterNet: Keypoint Triplets for Object Detection, 2019, arXiv:1904.08189, section 3.3
    """

    def __init__(
        self,
        channels: int,
        corner: Corner,
        pooled: int = 128,
        cascade: bool = False,
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        if corner not in ("top_left", "bottom_right"):
            raise ValueError(f"a corner is top_left or bottom_right, got {corner!r}")
        self.corner, self.cascade = corner, cascade

        def layer() -> nn.Module:
            return ConvNormAct(channels, pooled, norm=norm, activation=activation)

        self.vertical, self.horizontal = layer(), layer()
        if cascade:
            self.look_across, self.look_down = layer(), layer()
            self.after_across, self.after_down = (nn.Conv2d(pooled, pooled, 3, padding=1, bias=False) for _ in range(2))
        self.joined = Joined(channels, pooled, norm, activation)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, channels, H, W]`` to the same."""
        first = self.corner == "top_left"
        down, across = (top_pool, left_pool) if first else (bottom_pool, right_pool)
        vertical, horizontal = self.vertical(x), self.horizontal(x)
        if self.cascade:
            vertical = self.after_across(vertical + across(self.look_across(x)))
            horizontal = self.after_down(horizontal + down(self.look_down(x)))
        out: Tensor = self.joined(x, down(vertical) + across(horizontal))
        return out


class CenterPool(nn.Module):
    """Features of a centre: the largest value of its whole row and that of its column, their sum beside a shortcut.

    Args:
        channels: that come in and go out.
        pooled: channels of what is pooled.
        norm: normalisation layer.
        activation: activation layer.

    Source: CenterNet: Keypoint Triplets for Object Detection, 2019, arXiv:1904.08189, section 3.3
    """

    def __init__(
        self,
        channels: int,
        pooled: int = 128,
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        self.vertical, self.horizontal = (
            ConvNormAct(channels, pooled, norm=norm, activation=activation) for _ in range(2)
        )
        self.joined = Joined(channels, pooled, norm, activation)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, channels, H, W]`` to the same."""
        column = self.vertical(x).amax(dim=2, keepdim=True)
        row = self.horizontal(x).amax(dim=3, keepdim=True)
        out: Tensor = self.joined(x, column + row)
        return out


class Joined(nn.Module):
    """What was pooled, through a convolution, added to a 1x1 of what came in; activated, and one more convolution."""

    def __init__(self, channels: int, pooled: int, norm: Layer, activation: Callable[[], nn.Module]):
        super().__init__()
        self.pooled = ConvNormAct(pooled, channels, norm=norm, activation=None)
        self.shortcut = ConvNormAct(channels, channels, 1, norm=norm, activation=None)
        self.activation = activation()
        self.last = ConvNormAct(channels, channels, norm=norm, activation=activation)

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        """``[B, channels, H, W]`` and ``[B, pooled, H, W]`` to ``[B, channels, H, W]``."""
        out: Tensor = self.last(self.activation(self.pooled(pooled) + self.shortcut(x)))
        return out

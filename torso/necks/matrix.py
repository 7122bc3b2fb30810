"""Matrix layers: a pyramid whose levels are also stretched, for wide and for tall objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from torch import nn

from torso.config import Role
from torso.necks.fpn import FPN
from torso.necks.resample import init_uniform
from torso.nn.conv import Layer
from torso.structures import Features


class Matrix(nn.Module):
    """xNet: a feature pyramid is the diagonal; beside it, levels halved only in width, or only in height.

    From every diagonal level of stride s a 3x3 convolution of stride 1x2 makes the level of stride (s, 2s), once more
    (s, 4s), and so on to the coarsest stride; one of stride 2x1 makes (2s, s), (4s, s) likewise. All the levels share
    these two convolutions. Five levels with ``reach`` 2 make the 19 of the paper: the extreme shapes in the corners of
    the 5 x 5 matrix are left out.

    ``strides`` holds (height, width) of every level; priors and coders that count in strides take them as they are.
    Levels come by rising area of their cells; of equal ones the square first, then the milder before the more extreme,
    the wider before the taller. An assigner sends a wide object to the wide levels: ``{name: fcos, by: sides}``.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of every level that goes out.
        extra: how many coarser levels the pyramid adds (`FPN`).
        extra_from: what they are made from (`FPN`).
        reach: how many halvings a stretched level is away from the diagonal at most; 0 is the pyramid alone.
        norm: normalisation after each convolution; none by default.

    Raises:
        ValueError: the levels do not fit each other, ``extra`` or ``reach`` is negative.

    Source: MatrixNets, 2019, arXiv:1908.04646 and arXiv:2001.03194 (19 layers)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        extra: int = 2,
        extra_from: Literal["output", "input", "pool"] = "output",
        reach: int = 2,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = None,
    ):
        super().__init__()
        if reach < 0:
            raise ValueError(f"matrix: reach is how far from the diagonal levels go, at least 0, got {reach}")
        self.diagonal = FPN(in_channels, strides, channels, extra, extra_from, norm)
        square = self.diagonal.strides
        # Steps of each diagonal level to either side: no side grows beyond the coarsest stride.
        self.steps = [sum(stride * 2**k <= square[-1] for k in range(1, reach + 1)) for stride in square]
        self.wider = _halving(channels, (1, 2), norm) if any(self.steps) else nn.Identity()
        self.taller = _halving(channels, (2, 1), norm) if any(self.steps) else nn.Identity()
        made = [(stride, stride) for stride in square]
        for stride, steps in zip(square, self.steps, strict=True):
            made += [(stride, stride * 2**k) for k in range(1, steps + 1)]
            made += [(stride * 2**k, stride) for k in range(1, steps + 1)]
        self.order = sorted(range(len(made)), key=lambda i: _rank(*made[i]))
        self.strides = [made[i] for i in self.order]
        self.channels = [channels] * len(self.strides)
        for halving in (self.wider, self.taller):
            init_uniform(halving)

    def forward(self, features: Features) -> Features:
        """The diagonal and the stretched levels."""
        diagonal: Features = self.diagonal(features)
        levels = list(diagonal)
        for square, steps in zip(diagonal, self.steps, strict=True):
            for halving in (self.wider, self.taller):
                x = square
                for _ in range(steps):
                    x = halving(x)
                    levels.append(x)
        return [levels[i] for i in self.order]


def _rank(height: int, width: int) -> tuple[int, int, bool]:
    return height * width, max(height, width), height > width


def _halving(channels: int, stride: tuple[int, int], norm: Layer | None) -> nn.Module:
    """A 3x3 convolution with a stride in one direction, and its norm: that side halved, rounded up."""
    conv = nn.Conv2d(channels, channels, 3, stride, 1, bias=norm is None)
    return nn.Sequential(conv, *([norm(channels)] if norm is not None else []))

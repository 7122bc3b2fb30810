"""How a level becomes another: sizes, channels, strides, and the coarser levels that a backbone does not have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features

ExtraFrom = Literal["output", "input", "pool"]


def check_levels(
    neck: str, in_channels: Sequence[int], strides: Sequence[int], least: int = 1, most: int | None = None
) -> list[int]:
    """How many times coarser each level is than the one before it: ``len(strides) - 1`` numbers.

    Raises:
        ValueError: channels and strides do not belong together, there are too few or too many levels, or a stride is
            no multiple of the finer one.
    """
    if len(in_channels) != len(strides):
        raise ValueError(
            f"{neck} gets {len(in_channels)} in_channels {list(in_channels)} but {len(strides)} strides "
            f"{list(strides)}: one of each a level"
        )
    if len(strides) < least or (most is not None and len(strides) > most):
        wanted = f"at least {least}" if most is None else f"{least}" if least == most else f"{least} to {most}"
        raise ValueError(
            f"{neck} joins {wanted} levels, but the backbone gives {len(strides)}, of strides {list(strides)}: "
            "choose its levels"
        )
    for fine, coarse in pairwise(strides):
        if coarse < fine or coarse % fine:
            raise ValueError(
                f"{neck} joins levels from the finest to the coarsest, each stride a multiple of the one before, "
                f"but stride {coarse} follows {fine} in {list(strides)}"
            )
    return [coarse // fine for fine, coarse in pairwise(strides)]


def channels_of_levels(neck: str, channels: int | Sequence[int] | None, default: Sequence[int]) -> list[int]:
    """Channels of each level: one number for all, one each, or the default.

    Raises:
        ValueError: not as many as levels.
    """
    given = [channels] * len(default) if isinstance(channels, int) else list(default if channels is None else channels)
    if len(given) != len(default):
        raise ValueError(
            f"{neck}: {len(given)} channels {given} for {len(default)} levels: give one number, or one each"
        )
    return given


def coarser_strides(strides: Sequence[int], extra: int) -> list[int]:
    """The strides with those of ``extra`` levels more, each twice the one before."""
    return [*strides, *(strides[-1] * 2 ** (i + 1) for i in range(extra))]


def fit(x: Tensor, size: Sequence[int]) -> Tensor:
    """``x`` at the size (height, width), by nearest neighbour; itself where it has that size already."""
    # An exported graph holds for many sizes: there a comparison would pin the one that it was traced with.
    if not torch.compiler.is_exporting() and tuple(x.shape[-2:]) == tuple(size):
        return x
    return functional.interpolate(x, size=tuple(size))


def pool(x: Tensor, ratio: int) -> Tensor:
    """Max pooling to ``ceil(size / ratio)``; windows overlap by one cell where the ratio is even (EfficientDet's)."""
    kernel = ratio | 1
    return x if ratio == 1 else functional.max_pool2d(x, kernel, ratio, padding=kernel // 2)


class Resample(nn.Module):
    """A level at another level's channels and size: 1x1 convolution, then max pooling or nearest neighbour.

    There is a convolution only where the channels differ. A weight multiplies the smaller of the two maps: the same
    numbers for less memory.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        stride: stride of the level that comes in.
        target: stride of the level it becomes.
        norm: normalisation after the convolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, target: int, norm: Layer | None = nn.BatchNorm2d):
        super().__init__()
        self.ratio = max(target // stride, 1)
        same = in_channels == channels
        self.conv = nn.Identity() if same else ConvNormAct(in_channels, channels, 1, norm=norm, activation=None)

    def forward(self, x: Tensor, size: Sequence[int], weight: Tensor | None = None) -> Tensor:
        """``[B, in_channels, h, w]`` to ``[B, channels, *size]``, times the weight."""
        x = pool(self.conv(x), self.ratio)
        return fit(x if weight is None else x * weight, size)


class ExtraLevels(nn.ModuleList):
    """Levels coarser than the coarsest, each half the size of the one before.

    Args:
        in_channels: channels of the backbone's last level.
        channels: channels of the neck's levels.
        extra: how many levels.
        source: ``"output"``: strided 3x3 convolutions on the neck's last level, ReLU between them; ``"input"``: the
            same on the backbone's last level; ``"pool"``: subsampling of the neck's last level, no weights.
        norm: normalisation after each convolution.

    Source: Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002 (P6, P7); Faster R-CNN with FPN (pooling)
    """

    def __init__(self, in_channels: int, channels: int, extra: int, source: ExtraFrom, norm: Layer | None = None):
        if extra < 0:
            raise ValueError(f"extra is how many coarser levels to add, at least 0, got {extra}")
        first = in_channels if source == "input" else channels
        super().__init__(
            ConvNormAct(channels if i else first, channels, 3, stride=2, norm=norm, activation=None)
            for i in range(extra if source != "pool" else 0)
        )
        self.extra, self.source = extra, source

    def forward(self, features: Features, outputs: Features) -> Features:
        """The outputs, and the extra levels after them; ``features`` are the backbone's."""
        x = features[-1] if self.source == "input" else outputs[-1]
        levels = list(outputs)
        if self.source == "pool":
            for _ in range(self.extra):
                x = functional.max_pool2d(x, kernel_size=1, stride=2)
                levels.append(x)
        for i, down in enumerate(self):
            x = down(functional.relu(x) if i else x)
            levels.append(x)
        return levels


def init_uniform(module: nn.Module) -> None:
    """Weights of the convolutions below ``module`` drawn uniformly with variance 1 / fan-in, biases 0 (FPN's)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

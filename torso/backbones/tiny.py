"""A backbone small enough to train in a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import Tensor, nn

from torso.config import Role
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class Tiny(nn.Module):
    """Stages of 3x3 convolution, norm, activation and 2x2 max pooling: stage ``i`` (from 1) has stride ``2 ** i``.

    Args:
        widths: channels of the stages.
        levels: stages whose output is returned, finest first.
        depth: convolutions a stage.
        norm: normalisation layer.
        activation: activation layer.

    Raises:
        ValueError: a level that is not a stage.

    Source: own design, for demos and tests.
    """

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 128),
        levels: Sequence[int] = (2, 3, 4),
        depth: int = 1,
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        if not levels or min(levels) < 1 or max(levels) > len(widths):
            raise ValueError(f"levels must lie in 1..{len(widths)} (the stages of widths), got {list(levels)}")
        self.levels = sorted(levels)
        self.channels = [widths[level - 1] for level in self.levels]
        self.strides = [2**level for level in self.levels]
        self.stages = nn.ModuleList()
        before = 3
        for width in widths[: self.levels[-1]]:
            blocks: list[nn.Module] = []
            for _ in range(depth):
                blocks.append(ConvNormAct(before, width, norm=norm, activation=activation))
                before = width
            self.stages.append(nn.Sequential(*blocks, nn.MaxPool2d(2, ceil_mode=True)))

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        features = []
        for level, stage in enumerate(self.stages, start=1):
            images = stage(images)
            if level in self.levels:
                features.append(images)
        return features

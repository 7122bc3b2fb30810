"""Darknet-19, the backbone of YOLOv2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import Tensor, nn

from torso.backbones.levels import chosen
from torso.config import Role
from torso.nn.activations import LEAKY
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.init import init_weights
from torso.structures import Features

# Channels of the convolutions between two poolings (table 6 of the paper). Kernels alternate 3, 1, 3, ...
STAGES = ((32,), (64,), (128, 64, 128), (256, 128, 256), (512, 256, 512, 256, 512), (1024, 512, 1024, 512, 1024))


class Darknet19(nn.Module):
    """18 convolutions of 3x3 and 1x1 in turn, doubling the channels after each of five 2x2 max poolings.

    The 19th is the classifier's: ``Conv2d(1024, classes, 1)``, then global average pooling. Poolings round up, so
    pictures may have any size. ``levels=(4, 5)`` is what YOLOv2 looks at (its passthrough layer takes level 4).

    Args:
        levels: levels to return; level ``l`` (1 to 5) is what the stage of stride ``2 ** l`` ends with, before the
            next pooling.
        norm: normalisation layer.
        activation: activation layer; the paper's is a leaky ReLU of slope 0.1.

    Raises:
        ModelError: a level it does not have.

    Source: YOLO9000: Better, Faster, Stronger, 2016, arXiv:1612.08242 (weights drawn as in the Darknet framework)
    """

    mean = (0.0, 0.0, 0.0)  # Darknet shows the network pictures in 0..1 as they are
    std = (1.0, 1.0, 1.0)

    def __init__(
        self,
        levels: Sequence[int] = (3, 4, 5),
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = LEAKY,
    ):
        super().__init__()
        self.levels = chosen(levels, range(1, 6), "darknet19")
        self.channels = [STAGES[level][-1] for level in self.levels]
        self.strides = [2**level for level in self.levels]
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.stages = nn.ModuleList()
        before = 3
        for widths in STAGES[: self.levels[-1] + 1]:
            stage = nn.Sequential()
            for place, width in enumerate(widths):
                stage.append(ConvNormAct(before, width, 1 if place % 2 else 3, norm=norm, activation=activation))
                before = width
            self.stages.append(stage)
        init_weights(self, "kaiming", fan="fan_in")

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        features = []
        for level, stage in enumerate(self.stages):
            images = stage(self.pool(images) if level else images)
            if level in self.levels:
                features.append(images)
        return features

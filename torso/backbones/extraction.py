"""The convolutions of YOLOv1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from torch import Tensor, nn

from torso.backbones.levels import chosen
from torso.config import Role
from torso.nn.activations import LEAKY
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.init import init_weights
from torso.structures import Features

# (channels, kernel, stride) of the convolutions of each level; "up to here" the classifier was trained on ImageNet.
_CLASSIFIER: tuple[tuple[tuple[int, int, int], ...], ...] = (
    ((64, 7, 2),),
    ((192, 3, 1),),
    ((128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1)),
    (*((256, 1, 1), (512, 3, 1)) * 4, (512, 1, 1), (1024, 3, 1)),
    ((512, 1, 1), (1024, 3, 1)) * 2,
)
_DETECTOR = ((1024, 3, 1), (1024, 3, 2), (1024, 3, 1), (1024, 3, 1))


class Extraction(nn.Module):
    """YOLOv1's 24 convolutions: 1x1 reductions before 3x3 convolutions, in the place of GoogLeNet's inception modules.

    The first 20, up to stride 32, are the classifier (Darknet's "extraction" network); the other four, which end at
    stride 64, were added for detection. Poolings round up, so pictures may have any size.

    Args:
        levels: levels to return; level ``l`` (1 to 5) is what the classifier says at stride ``2 ** l`` before the next
            pooling, 6 what the detector's convolutions do.
        norm: normalisation layer; the paper has none, Darknet's files have batch norm.
        activation: activation layer; a leaky ReLU of slope 0.1.

    Raises:
        ModelError: a level it does not have.

    Source: You Only Look Once: Unified, Real-Time Object Detection, 2015, arXiv:1506.02640, figure 3
    """

    mean = (0.0, 0.0, 0.0)  # Darknet shows the network pictures in 0..1 as they are
    std = (1.0, 1.0, 1.0)

    def __init__(
        self,
        levels: Sequence[int] = (6,),
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = LEAKY,
    ):
        super().__init__()
        self.levels = chosen(levels, range(1, 7), "extraction")
        stages = (*_CLASSIFIER, _DETECTOR)
        self.channels = [stages[level - 1][-1][0] for level in self.levels]
        self.strides = [2**level for level in self.levels]
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        conv = partial(ConvNormAct, norm=norm, activation=activation)
        self.stages = nn.ModuleList()
        before = 3
        for stage in stages[: self.levels[-1]]:
            layers = []
            for channels, kernel, stride in stage:
                layers.append(conv(before, channels, kernel, stride))
                before = channels
            self.stages.append(nn.Sequential(*layers))
        init_weights(self, "kaiming", fan="fan_in")

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        features = []
        for level, stage in enumerate(self.stages, start=1):
            # The first and the last stage have strides of their own.
            images = stage(self.pool(images) if 1 < level < 6 else images)
            if level in self.levels:
                features.append(images)
        return features

"""DetNet-59: a ResNet that stops shrinking at stride 16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import Tensor, nn

from torso.backbones.levels import chosen
from torso.config import Role
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.init import init_weights
from torso.nn.residual import Residual
from torso.structures import Features

# Of stages 2 to 6: blocks, channels, stride of the first block, dilation.
STAGES = ((3, 256, 1, 1), (4, 512, 2, 1), (6, 1024, 2, 1), (3, 1024, 1, 2), (3, 1024, 1, 2))
STRIDES = (4, 8, 16, 16, 16)


class DetNet59(nn.Module):
    """ResNet-50 up to stride 16, then two more stages of dilated bottlenecks that keep size and channels.

    Each of the two begins with a block whose shortcut is a 1x1 convolution (B in the paper) and goes on with blocks
    whose shortcut is the identity (A); their 3x3 convolutions have dilation 2. Levels 4, 5 and 6 all have stride 16.

    Args:
        levels: stages to return, 2 to 6; their strides are 4, 8, 16, 16, 16.
        stride_in_1x1: halve the size in the first 1x1 of a stage, which the paper's cost of 4.8 G implies, or in the
            3x3 (torchvision's ResNet-50: its stages are these).
        norm: normalisation layer.
        activation: activation layer.

    Raises:
        ModelError: a level it does not have.

    Source: DetNet: A Backbone network for Object Detection, 2018, arXiv:1804.06215
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        levels: Sequence[int] = (2, 3, 4, 5, 6),
        stride_in_1x1: bool = True,
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        self.levels = chosen(levels, range(2, 7), "detnet59")
        self.channels = [STAGES[level - 2][1] for level in self.levels]
        self.strides = [STRIDES[level - 2] for level in self.levels]
        self.stem = nn.Sequential(
            ConvNormAct(3, 64, 7, 2, norm=norm, activation=activation), nn.MaxPool2d(3, 2, padding=1)
        )
        self.stages = nn.ModuleList()
        before = 64
        for repeat, channels, stride, dilation in STAGES[: self.levels[-1] - 1]:
            stage = nn.Sequential()
            for place in range(repeat):
                step = 1 if place else stride
                strides = (step, 1) if stride_in_1x1 else (1, step)
                stage.append(block(before, channels, strides, dilation, place == 0, norm, activation))
                before = channels
            self.stages.append(stage)
        init_weights(self)

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        images = self.stem(images)
        features = []
        for level, stage in enumerate(self.stages, start=2):
            images = stage(images)
            if level in self.levels:
                features.append(images)
        return features


def block(
    in_channels: int,
    channels: int,
    strides: tuple[int, int],
    dilation: int,
    project: bool,
    norm: Layer,
    activation: Callable[[], nn.Module],
) -> Residual:
    """A bottleneck with strides in its 1x1 and its 3x3; ``project`` puts a 1x1 on the shortcut."""
    width = channels // 4
    path = nn.Sequential(
        ConvNormAct(in_channels, width, 1, strides[0], norm=norm, activation=activation),
        ConvNormAct(width, width, 3, strides[1], norm=norm, activation=activation, dilation=dilation),
        ConvNormAct(width, channels, 1, norm=norm, activation=None),
    )
    stride = max(strides)
    beside = ConvNormAct(in_channels, channels, 1, stride, norm=norm, activation=None) if project else None
    return Residual(path, beside, activation())

"""YOLOX's decoupled head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from torch import nn

from torso.config import Role
from torso.heads.dense import HeadOutput
from torso.heads.predictions import Predictions
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class YOLOX(nn.Module):
    """A 1x1 convolution, then a branch for classes and one for boxes and objectness, separately on each level.

    Args:
        in_channels: channels of each level (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for, made of the box branch (wired).
        channels: of the branches: 256 times the width of the model (YOLOX-S 128, M 192, L 256, X 320).
        depth: 3x3 convolutions in a branch.
        norm: normalisation after every convolution.
        activation: activation after every convolution.
        prior_probability: the score every class, and the objectness, starts with.

    Raises:
        ValueError: not as many numbers of priors as levels.

    Source: YOLOX: Exceeding YOLO Series in 2021, 2021, arXiv:2107.08430
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int = 4,
        branches: Sequence[str] = (),
        *,
        channels: int = 256,
        depth: int = 2,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.SiLU,
        prior_probability: float = 0.01,
    ):
        super().__init__()
        self.num_priors = list(num_priors)
        conv = partial(ConvNormAct, norm=norm, activation=activation)
        self.stems = nn.ModuleList(conv(c, channels, 1) for c in in_channels)
        self.class_towers, self.box_towers = (
            nn.ModuleList(nn.Sequential(*(conv(channels, channels) for _ in range(depth))) for _ in in_channels)
            for _ in range(2)
        )
        widths = [channels] * len(in_channels)
        self.predictions = Predictions(widths, num_classes, num_priors, coder_size, branches, prior_probability)

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]``, deltas ``[B, P, D]`` and the branches."""
        features = [stem(x) for stem, x in zip(self.stems, features, strict=True)]
        classes = [tower(x) for tower, x in zip(self.class_towers, features, strict=True)]
        boxes = [tower(x) for tower, x in zip(self.box_towers, features, strict=True)]
        output: HeadOutput = self.predictions(classes, boxes)
        return output

    def reset_classes(self, num_classes: int) -> None:
        """New layers of class logits for other classes; all else stays."""
        self.predictions.reset_classes(num_classes)

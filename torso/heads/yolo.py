"""The head of YOLOv2 to v5 and PP-YOLO: one small predictor a level, with weights of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.heads.dense import HeadOutput
from torso.heads.predictions import Predictions
from torso.nn.activations import LEAKY
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class YOLO(nn.Module):
    """3x3 convolutions (or none), then 1x1 convolutions to classes, boxes and branches, separately on each level.

    YOLOv3 for 416 px and 80 classes says
    13, 26 and 52 squared maps of 3 * (4 + 1 + 80).

    Args:
        in_channels: channels of each level (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for (wired).
        depth: 3x3 convolutions before the predictions: 1 in YOLOv3, v4 and PP-YOLO, 0 in YOLOv2 and v5 (where the neck
            ends with them).
        widen: channels of these convolutions, in channels of the level.
        coordinates: two channels more before them, the places along x and y from -1 to 1 (CoordConv, as in PP-YOLO).
        drop: drops some of what comes in, such as ``block`` (PP-YOLO, YOLOv4).
        norm: normalisation after these convolutions.
        activation: activation after them; Darknet's leaky ReLU of slope 0.1 by default.
        prior_probability: the score every class, and the objectness, starts with.

    Raises:
        ValueError: not as many numbers of priors as levels.

    Source: YOLOv3: An Incremental Improvement, 2018, arXiv:1804.02767; coordinates: PP-YOLO, 2020, arXiv:2007.12099
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int = 4,
        branches: Sequence[str] = (),
        *,
        depth: int = 1,
        widen: float = 2.0,
        coordinates: bool = False,
        drop: Annotated[Callable[[], nn.Module] | None, Role("drop", factory=True)] = None,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = LEAKY,
        prior_probability: float = 0.01,
    ):
        super().__init__()
        self.num_priors = list(num_priors)
        self.drop = nn.Identity() if drop is None else drop()
        self.towers = nn.ModuleList()
        widths = []
        for channels in in_channels:
            tower = nn.Sequential(AddCoordinates()) if coordinates else nn.Sequential()
            before = channels + 2 * coordinates
            for _ in range(depth):
                width = round(channels * widen)
                tower.append(ConvNormAct(before, width, 3, norm=norm, activation=activation))
                before = width
            self.towers.append(tower)
            widths.append(before)
        self.predictions = Predictions(widths, num_classes, num_priors, coder_size, branches, prior_probability)

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]``, deltas ``[B, P, D]`` and the branches."""
        features = [tower(self.drop(x)) for tower, x in zip(self.towers, features, strict=True)]
        output: HeadOutput = self.predictions(features, features)
        return output

    def reset_classes(self, num_classes: int) -> None:
        """New layers of class logits for other classes; all else stays."""
        self.predictions.reset_classes(num_classes)


class AddCoordinates(nn.Module):
    """Two channels more that say where a cell is, from -1 at the left (top) to 1 at the right (bottom).

    ``[B, C, H, W] -> [B, C + 2, H, W]``.

    Source: An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution, 2018, arXiv:1807.03247
    """

    def forward(self, x: Tensor) -> Tensor:
        """The map with its coordinates."""
        batch, _, height, width = x.shape
        # Middles of cells: so a map of a single cell is at 0, and nothing is divided by 0.
        down = (torch.arange(height, device=x.device, dtype=x.dtype) * 2 + 1) / height - 1
        right = (torch.arange(width, device=x.device, dtype=x.dtype) * 2 + 1) / width - 1
        y = down[:, None].expand(batch, 1, height, width)
        return torch.cat([x, right.expand(batch, 1, height, width), y], dim=1)

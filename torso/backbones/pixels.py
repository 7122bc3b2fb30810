"""No backbone: the pixels themselves."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from torso.nn.normalize import IMAGENET_MEAN, IMAGENET_STD
from torso.structures import Features


class Pixels(nn.Module):
    """The normalised picture as the one level, of stride 1: for heads that look at the picture itself, as R-CNN's.

    Args:
        mean: of the pixels in 0..1, by channel; ImageNet's suit the networks that a head runs.
        std: their deviation.

    Source: Rich Feature Hierarchies for Accurate Object Detection and Semantic Segmentation, 2013, arXiv:1311.2524
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD):
        super().__init__()
        self.mean, self.std = tuple(mean), tuple(std)
        self.channels, self.strides = [3], [1]

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` as they are."""
        return [images]

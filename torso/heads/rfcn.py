"""The head of R-FCN: convolutions on the whole picture, and a vote for each region."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torso.heads.dense import one_for_all
from torso.heads.region import RoIOutput
from torso.nn.conv import init_normal
from torso.structures import Features


class RFCN(nn.Module):
    """A map for each class and each number of a box in every bin of a region; what the bins say is averaged.

    It wants ``roi: position_sensitive``: ``maps`` makes ``size * size * (K + boxes * D)`` channels of each level, those
    of one class together, and the regions that are cut out of them are ``[B, R, K + boxes * D, S, S]``.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: logits K of a region, the background's among them (wired).
        coder_size: numbers D a box takes (wired).
        num_boxes: for how many classes a box is said, 1 (R-FCN) or all but the background (wired).
        region_size: bins S along a side of a region (wired); 3 to 7 in the paper.

    Raises:
        ValueError: levels of different channels; when called, regions of another operation.

    Source: R-FCN: Object Detection via Region-based Fully Convolutional Networks, 2016, arXiv:1605.06409
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        coder_size: int = 4,
        num_boxes: int = 1,
        region_size: int = 7,
    ):
        super().__init__()
        (width, _) = one_for_all(in_channels, [1])
        self.num_classes, self.num_boxes, self.coder_size = num_classes, num_boxes, coder_size
        self.bins = region_size**2
        self.class_maps = _maps(width, self.bins * num_classes)
        self.box_maps = _maps(width, self.bins * num_boxes * coder_size)

    def maps(self, features: Features) -> Features:
        """What the regions are cut out of: ``[B, S * S * (K + boxes * D), H, W]`` of each level."""
        return [torch.cat([self.class_maps(x), self.box_maps(x)], dim=1) for x in features]

    def forward(self, regions: Tensor) -> RoIOutput:
        """Regions ``[B, R, K + boxes * D, S, S]`` to logits ``[B, R, K]`` and deltas ``[B, R, boxes * D]``."""
        parts = [self.num_classes, self.num_boxes * self.coder_size]
        if regions.shape[2] != sum(parts):
            raise ValueError("rfcn averages what every bin says by maps of its own: it wants roi: position_sensitive")
        logits, deltas = torch.split(regions.mean(dim=(-2, -1)), parts, dim=-1)
        return RoIOutput(logits, deltas)

    def reset_classes(self, num_classes: int) -> None:
        """New maps of classes, the background's among them, and of boxes where each class has its own."""
        like, background = self.class_maps.weight, self.num_classes - self.num_boxes
        self.num_classes = num_classes
        self.class_maps = _maps(like.shape[1], self.bins * num_classes).to(like)
        if self.num_boxes > 1:
            self.num_boxes = num_classes - background
            self.box_maps = _maps(like.shape[1], self.bins * self.num_boxes * self.coder_size).to(like)


def _maps(width: int, channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(width, channels, 1)
    init_normal(layer)
    return layer

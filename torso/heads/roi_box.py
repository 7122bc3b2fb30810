"""The head of a second stage: what a region is, and where its object really lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import Tensor, nn

from torso.config import Role
from torso.heads.dense import one_for_all
from torso.heads.region import RegionHead, RoIOutput


class RoIBox(RegionHead):
    """Two fully connected layers on the features of a region, then one for classes and one for boxes.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: logits K of a region, the background's among them (wired).
        coder_size: numbers a box takes (wired).
        num_boxes: for how many classes a box is said, 1 or all but the background (wired).
        region_size: cells S along a side of a region's features (wired).
        channels: of the hidden layers.
        depth: how many there are.
        activation: after each.

    Source: Feature Pyramid Networks, 2016, arXiv:1612.03144, section 4.2 (torchvision's TwoMLPHead)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        coder_size: int = 4,
        num_boxes: int = 1,
        region_size: int = 7,
        *,
        channels: int = 1024,
        depth: int = 2,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        (width, _) = one_for_all(in_channels, [1])
        width *= region_size**2
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(width, channels), activation()]
            width = channels
        self.layers = nn.Sequential(*layers)
        self.end(width, num_classes, coder_size, num_boxes)

    def forward(self, regions: Tensor) -> RoIOutput:
        """Features ``[B, R, C, S, S]`` to logits ``[B, R, K]`` and deltas ``[B, R, boxes * D]``."""
        return self.said(self.layers(regions.flatten(2)))

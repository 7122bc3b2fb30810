"""The head of a second stage: what a region is, and where its object really lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

from torch import Tensor, nn

from torso.config import Role
from torso.heads.dense import one_for_all
from torso.structures import Features


class RoIOutput(NamedTuple):
    """Raw outputs of a head for regions, at R of them a picture."""

    logits: Tensor  # [B, R, K], the background last
    deltas: Tensor  # [B, R, boxes * D]


class RoIBox(nn.Module):
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
        self.class_logits = class_layer(width, num_classes)
        self.box_deltas = delta_layer(width, num_boxes * coder_size)
        self.num_boxes, self.coder_size = num_boxes, coder_size

    def maps(self, features: Features) -> Features:
        """What the regions are cut out of: the features as they are."""
        return features

    def forward(self, regions: Tensor) -> RoIOutput:
        """Features ``[B, R, C, S, S]`` to logits ``[B, R, K]`` and deltas ``[B, R, boxes * D]``."""
        x = self.layers(regions.flatten(2))
        return RoIOutput(self.class_logits(x), self.box_deltas(x))

    def reset_classes(self, num_classes: int) -> None:
        """New layers of class logits, the background's among them, and of boxes where each class has its own."""
        like = self.class_logits.weight
        background = len(like) - self.num_boxes
        self.class_logits = class_layer(like.shape[1], num_classes).to(like)
        if self.num_boxes > 1:
            self.num_boxes = num_classes - background
            self.box_deltas = delta_layer(like.shape[1], self.num_boxes * self.coder_size).to(like)


def class_layer(in_channels: int, num_classes: int) -> nn.Linear:
    """The last layer for classes, as Fast R-CNN begins with it."""
    return _linear(in_channels, num_classes, std=0.01)


def delta_layer(in_channels: int, size: int) -> nn.Linear:
    """The last layer for boxes, as Fast R-CNN begins with it: nearly the regions themselves."""
    return _linear(in_channels, size, std=0.001)


def _linear(in_channels: int, size: int, std: float) -> nn.Linear:
    layer = nn.Linear(in_channels, size)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer

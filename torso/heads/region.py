"""What heads of regions share: the form of their output, and the last layers, which know classes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from torso.structures import Features


class RoIOutput(NamedTuple):
    """Raw outputs of a head for regions, at R of them a picture."""

    logits: Tensor  # [B, R, K], the background last
    deltas: Tensor  # [B, R, boxes * D]


class RegionHead(nn.Module):
    """The end of a head that makes one vector of each region: a layer for classes and one for boxes."""

    def end(self, width: int, num_classes: int, coder_size: int, num_boxes: int) -> None:
        """Make the last layers; to be called when those before them are there.

        Args:
            width: numbers of a region's vector.
            num_classes: logits K of a region, the background's among them.
            coder_size: numbers a box takes.
            num_boxes: for how many classes a box is said, 1 or all but the background.
        """
        self.num_boxes, self.coder_size = num_boxes, coder_size
        self.class_logits = _linear(width, num_classes, std=0.01)  # as Fast R-CNN begins with them
        self.box_deltas = _linear(width, num_boxes * coder_size, std=0.001)  # nearly the regions themselves

    def maps(self, features: Features) -> Features:
        """What the regions are cut out of: the features as they are."""
        return features

    def said(self, vectors: Tensor) -> RoIOutput:
        """``[B, R, width]`` to logits ``[B, R, K]`` and deltas ``[B, R, boxes * D]``."""
        return RoIOutput(self.class_logits(vectors), self.box_deltas(vectors))

    def reset_classes(self, num_classes: int) -> None:
        """New layers of class logits, the background's among them, and of boxes where each class has its own."""
        like = self.class_logits.weight
        background = len(like) - self.num_boxes
        self.class_logits = _linear(like.shape[1], num_classes, std=0.01).to(like)
        if self.num_boxes > 1:
            self.num_boxes = num_classes - background
            self.box_deltas = _linear(like.shape[1], self.num_boxes * self.coder_size, std=0.001).to(like)


def _linear(in_channels: int, size: int, std: float) -> nn.Linear:
    layer = nn.Linear(in_channels, size)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer

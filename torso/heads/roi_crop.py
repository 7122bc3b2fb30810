"""The head of R-CNN: a network of its own for every region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

from torch import Tensor, nn

from torso.config import Role
from torso.heads.region import RegionHead, RoIOutput


class RoICrop(RegionHead):
    """A classification backbone on the crop of each region, the mean of its last level, then classes and boxes.

    Regions share nothing but weights: each goes through the whole network on its own, as a picture would.

    Args:
        in_channels: channels of the one level that regions are cut out of: 3, the pixels of `Pixels` (wired).
        num_classes: logits K of a region, the background's among them (wired).
        coder_size: numbers a box takes (wired).
        num_boxes: for how many classes a box is said, 1 or all but the background (wired).
        backbone: crops to features.
        dropout: of the mean before the two layers, 0..1.

    Raises:
        ValueError: something else than pixels to cut out of.

    Source: Rich Feature Hierarchies for Accurate Object Detection and Semantic Segmentation, 2013, arXiv:1311.2524
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        coder_size: int = 4,
        num_boxes: int = 1,
        *,
        backbone: Annotated[nn.Module, Role("backbone")],
        dropout: float = 0.0,
    ):
        super().__init__()
        if list(in_channels) != [3]:
            raise ValueError(
                f"crops are cut out of the pixels, got levels of {list(in_channels)} channels: take the backbone "
                "pixels and the neck identity"
            )
        self.backbone, self.drop = backbone, nn.Dropout(dropout)
        self.end(cast("Any", backbone).channels[-1], num_classes, coder_size, num_boxes)

    def forward(self, regions: Tensor) -> RoIOutput:
        """Crops ``[B, R, 3, S, S]`` to logits ``[B, R, K]`` and deltas ``[B, R, boxes * D]``."""
        x = self.backbone(regions.flatten(0, 1))[-1].mean(dim=(2, 3))  # [B * R, width]
        x = self.drop(x).unflatten(0, regions.shape[:2])
        return self.said(x)

"""The branch of masks of a detector of two stages: features of regions of its own, a head and a loss."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from torso.assigners.draw import Drawn
from torso.boxes.masks import cut
from torso.config import ModelError
from torso.models.detector import precise
from torso.structures import Features, Losses, Targets


class MaskBranch(nn.Module):
    """Masks of regions: learned where a region is positive, for the class of its object; said for the class it has.

    Args:
        roi: features of a region at one size, 14 cells in the paper.
        head: these to masks; has ``of_labels``, see `torso.heads.RoIMask`.
        loss: a loss of ``"scores"`` between a mask and the part of its object's mask inside the region.
        stride: of the finest level, in pixels: tells at every how many pixels the masks of the data were read.
        count: regions of a picture that may learn a mask; the drawn ones begin with the positive ones.
        weight: factor of the loss.

    Raises:
        ValueError: another kind of loss, or no region at all.

    Source: Mask R-CNN, 2017, arXiv:1703.06870, section 3
    """

    def __init__(
        self, roi: nn.Module, head: nn.Module, loss: nn.Module, stride: int, count: int = 128, weight: float = 1.0
    ):
        super().__init__()
        if getattr(loss, "takes", None) != "scores":
            raise ValueError(f"masks are learned by a loss of scores such as binary_cross_entropy, got {loss}")
        if not hasattr(head, "of_labels"):
            raise ValueError(f"masks need a head of masks such as roi_mask, got {type(head).__name__}")
        if count < 1:
            raise ValueError(f"masks are learned by 1 region of a picture or more, got {count}")
        self.roi, self.head, self.loss = roi, cast("Any", head), loss
        self.stride, self.count, self.weight = stride, count, weight

    def forward(self, features: Features, boxes: Tensor, labels: Tensor) -> Tensor:
        """Masks ``[B, D, S, S]`` in 0..1 over ``boxes [B, D, 4]`` of classes ``labels [B, D]``."""
        return precise(self.head.of_labels(self.roi(features, boxes), labels)).sigmoid()

    def losses(self, features: Features, drawn: Drawn, targets: Targets) -> Losses:
        """``{"mask": ...}``: the mean over all cells of positive regions; 0 where there is none.

        Raises:
            ModelError: the targets have no masks.
        """
        if targets.masks is None:
            raise ModelError("the model learns masks, but the batch has none: set data.masks=true")
        boxes, matched, positive = (x[:, : self.count] for x in (drawn.boxes, drawn.matched, drawn.positive))
        labels = targets.labels.gather(1, matched)
        said = precise(self.head.of_labels(self.roi(features, boxes), labels))  # [B, K, S, S]
        stride = max(round(features[0].shape[-2] * self.stride / targets.masks.shape[-2]), 1)
        wanted = cut(targets.masks, matched, (boxes / stride).to(said.dtype), said.shape[-1])
        weight = positive.to(said.dtype)
        count = (weight.sum() * said.shape[-1] ** 2).clamp(min=1)
        if targets.weights is not None:  # objects of mixed pictures
            weight = weight * targets.weights.gather(1, matched).to(weight.dtype)
        loss: Tensor = self.loss(said, wanted, weight=(weight / count)[..., None, None], reduction="sum")
        return {"mask": self.weight * loss}

"""The objective of CenterNet (objects as points)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torso.boxes.candidates import rows
from torso.boxes.coders import Coder
from torso.boxes.heatmap import grid_of
from torso.criteria.heatmap import Drawn, share_of_objects
from torso.structures import DenseOutput, Losses, Targets


class CenterNet(nn.Module):
    """Class scores learn a Gaussian around the cell of each object's centre; that cell alone learns its box.

    ``{"class", "offset", "size"}``, each divided by the objects (the first: the peaks) of the batch; with a loss of
    boxes ``{"class", "box"}``. The two numbers of an offset and of a size add up, as in the paper; the authors' code
    takes their mean, so that its weights are 0.5 and 0.05 here. Of objects with one centre and different boxes the cell
    learns all.

    Args:
        class_loss: a loss that takes ``"scores"`` with soft targets: ``heatmap_focal``.
        box_loss: a loss that takes ``"deltas"`` (``l1``) or ``"boxes"``.
        coder: writes the targets of a loss on deltas, the offset first: ``center_size``.
        class_weight: factor of the class loss.
        offset_weight: factor of the loss of offsets, or of boxes.
        size_weight: factor of the loss of sizes.
        overlap: how much a box at the border of a Gaussian still overlaps the object, above 0, below 1.

    Raises:
        ValueError: a loss that takes something else; more than one level, or more than one prior a cell.

    Source: Objects as Points, 2019, arXiv:1904.07850, section 3
    """

    background = False

    def __init__(
        self,
        class_loss: nn.Module,
        box_loss: nn.Module,
        coder: Coder,
        class_weight: float = 1.0,
        offset_weight: float = 1.0,
        size_weight: float = 0.1,
        *,
        overlap: float = 0.7,
    ):
        super().__init__()
        if getattr(class_loss, "takes", None) != "scores":
            raise ValueError(f"a heatmap needs a class loss of scores such as heatmap_focal, got {class_loss}")
        if getattr(box_loss, "takes", None) not in ("deltas", "boxes"):
            raise ValueError(f"centernet needs a box loss of deltas or boxes such as l1, got {box_loss}")
        if not 0 < overlap < 1:
            raise ValueError(f"an overlap lies between 0 and 1, got {overlap}")
        self.class_loss, self.box_loss, self.coder, self.overlap = class_loss, box_loss, coder, overlap
        self.class_weight, self.offset_weight, self.size_weight = class_weight, offset_weight, size_weight
        self.branches: list[str] = []

    def forward(self, output: DenseOutput, targets: Targets) -> Losses:
        """All cells of all pictures at once; a batch without objects has box losses of 0."""
        if len(output.counts) != 1:
            raise ValueError(
                f"centernet has one map, but the neck gives {len(output.counts)} levels: take one that joins them, "
                "such as dla_up"
            )
        targets = targets.with_a_row()
        grid = grid_of(output.counts[0], output.size)
        boxes = targets.boxes.to(output.priors.dtype)
        classes = output.logits.shape[-1]
        centre = (boxes[..., :2] + boxes[..., 2:]) / 2
        drawn = Drawn(centre, targets, classes, output.strides[0], grid, self.overlap)
        logits = output.logits.transpose(1, 2).reshape(-1, classes, *grid)  # [B, C, H, W]
        return {"class": self.class_weight * drawn.cost(self.class_loss, logits)} | self._box(
            output, boxes, drawn.place, share_of_objects(targets, boxes.dtype)
        )

    def _box(self, output: DenseOutput, boxes: Tensor, place: Tensor, weight: Tensor) -> Losses:
        """The losses of the boxes ``[B, M, 4]`` at their cells ``place [B, M]``."""
        if self.box_loss.takes == "boxes":
            cost = self.box_loss(rows(output.boxes, place), boxes, weight=weight, reduction="sum")
            return {"box": self.offset_weight * cost}
        wanted = self.coder.encode(boxes, output.priors[place], output.strides[place])
        # Rows without an object are far outside of any range: what they weigh is 0, but 0 times infinity is no number.
        wanted = torch.where(weight.unsqueeze(-1) > 0, wanted, 0.0)
        guess = rows(output.deltas, place)
        offset = self.box_loss(guess[..., :2], wanted[..., :2], weight=weight, reduction="sum")
        size = self.box_loss(guess[..., 2:], wanted[..., 2:], weight=weight, reduction="sum")
        return {"offset": self.offset_weight * offset, "size": self.size_weight * size}

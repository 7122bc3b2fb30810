"""The objective of detectors that pair corners."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from torso.boxes.candidates import rows
from torso.boxes.convert import clip
from torso.config import Role
from torso.criteria.heatmap import Drawn, share_of_objects
from torso.heads.corner import CornerMaps
from torso.losses.heatmap import AssociativeEmbedding
from torso.structures import Losses, Targets


class CornerOutput(NamedTuple):
    """What a network of corners says: the maps of one hourglass after another; the last one answers."""

    maps: tuple[CornerMaps, ...]
    stride: tuple[int, int]  # pixels between cells, down and right
    size: tuple[int, int]  # height, width of the network's input in pixels


class Corner(nn.Module):
    """Heatmaps of corners (and centres), embeddings that pair them, and where in its cell a point is.

    ``{"class", "embedding", "offset"}``, each the mean over the maps. The class loss of each kind of point is divided
    by its peaks in the batch, the loss of offsets by the objects; embeddings have a loss of each picture and their mean
    over pictures. Kinds of points add up.

    Args:
        class_loss: a loss that takes ``"scores"`` with soft targets: ``heatmap_focal``.
        box_loss: a loss that takes ``"deltas"``, of the two numbers of an offset: ``smooth_l1``.
        embedding_loss: a loss that takes ``"embeddings"``; `AssociativeEmbedding` when None.
        class_weight: factor of the class loss.
        embedding_weight: factor of the embedding loss.
        offset_weight: factor of the loss of offsets.
        overlap: how much a box of corners at the border of their Gaussians still overlaps the object, above 0, below 1;
            0.3 in the paper.

    Raises:
        ValueError: a loss that takes something else, an overlap outside of its range.

    Source: CornerNet: Detecting Objects as Paired Keypoints, 2018, arXiv:1808.01244, sections 3.2, 3.3 and 4.1
    """

    def __init__(
        self,
        class_loss: nn.Module,
        box_loss: nn.Module,
        embedding_loss: Annotated[nn.Module | None, Role("loss")] = None,
        class_weight: float = 1.0,
        embedding_weight: float = 0.1,
        offset_weight: float = 1.0,
        *,
        overlap: float = 0.3,
    ):
        super().__init__()
        embedding_loss = AssociativeEmbedding() if embedding_loss is None else embedding_loss
        for loss, takes in ((class_loss, "scores"), (box_loss, "deltas"), (embedding_loss, "embeddings")):
            if getattr(loss, "takes", None) != takes:
                raise ValueError(
                    "corners need a class loss of scores (heatmap_focal), a box loss of deltas (smooth_l1) and an "
                    f"embedding loss of embeddings (associative_embedding), got {loss}"
                )
        if not 0 < overlap < 1:
            raise ValueError(f"an overlap lies between 0 and 1, got {overlap}")
        self.class_loss, self.box_loss, self.embedding_loss = class_loss, box_loss, embedding_loss
        self.class_weight, self.embedding_weight, self.offset_weight = class_weight, embedding_weight, offset_weight
        self.overlap = overlap

    def forward(self, output: CornerOutput, targets: Targets) -> Losses:
        """All maps of all pictures at once."""
        targets = targets.with_a_row()
        first = output.maps[0].heat
        points = points_of(clip(targets.boxes.to(first.dtype), *output.size), first.shape[1])
        stride = first.new_ones(2)
        stride = torch.stack([stride[0] * output.stride[1], stride[1] * output.stride[0]])  # x, y
        grid = (first.shape[-2], first.shape[-1])
        drawn = [Drawn(each, targets, first.shape[2], stride, grid, self.overlap) for each in points]
        weight = share_of_objects(targets, first.dtype)
        costs = [self._of_map(maps, drawn, points, stride, targets, weight) for maps in output.maps]
        mean = [torch.stack(each).mean() for each in zip(*costs, strict=True)]
        return {
            "class": self.class_weight * mean[0],
            "embedding": self.embedding_weight * mean[1],
            "offset": self.offset_weight * mean[2],
        }

    def _of_map(
        self,
        maps: CornerMaps,
        drawn: list[Drawn],
        points: list[Tensor],
        stride: Tensor,
        targets: Targets,
        weight: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The losses of class, embedding and offset of one map."""
        heat = sum(each.cost(self.class_loss, maps.heat[:, kind]) for kind, each in enumerate(drawn))
        said = [maps.embeddings[:, kind].flatten(1).gather(1, drawn[kind].place) for kind in range(2)]
        pairs = torch.stack(said, dim=-1)  # [B, M, 2]
        there = targets.valid.to(pairs.dtype)
        counted = None if targets.weights is None else targets.weights.to(pairs.dtype)
        embedding = self.embedding_loss(pairs, there, weight=counted, reduction="sum") / pairs.shape[0]
        offset: Tensor = pairs.new_zeros(())
        for kind, each in enumerate(drawn):
            guess = rows(maps.offsets[:, kind].flatten(2).transpose(1, 2), each.place)  # [B, M, 2]
            wanted = points[kind] / stride - each.cells
            wanted = torch.where(targets.valid.unsqueeze(-1), wanted, 0.0)
            offset = offset + self.box_loss(guess, wanted, weight=weight, reduction="sum")
        return torch.as_tensor(heat), embedding, offset


def points_of(boxes: Tensor, count: int) -> list[Tensor]:
    """The top left and bottom right corners of boxes ``[..., 4]``, and with a ``count`` of 3 their centres."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return [low, high, (low + high) / 2][:count]

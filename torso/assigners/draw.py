"""Which regions a second stage learns from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from torso.boxes.candidates import rows
from torso.structures import Assignment, DenseOutput, Targets


class Drawn(NamedTuple):
    """Regions to learn from, S a picture, the positive ones first."""

    boxes: Tensor  # [B, S, 4] xyxy pixels
    valid: Tensor  # [B, S] bool: no padding
    matched: Tensor  # [B, S] int64: row of the targets (0 where not positive)
    positive: Tensor  # [B, S] bool

    def assignment(self) -> Assignment:
        """What each of them learns: an object, or that there is nothing."""
        return Assignment(self.matched, self.positive, self.valid & ~self.positive)


class Draw(nn.Module):
    """So many regions of each picture, before a head looks at any.

    Args:
        assigner: says which region learns which object, by its box alone (``by_priors``).
        sample: which of these learn, without asking what they cost (``by_priors``); has ``count``.

    Raises:
        ValueError: an assigner or sampler that wants to know what a head says.

    Source: Fast R-CNN, 2015, arXiv:1504.08083, section 2.3
    """

    def __init__(self, assigner: nn.Module, sample: nn.Module):
        super().__init__()
        for part in (assigner, sample):
            if not getattr(part, "by_priors", False):
                raise ValueError(f"regions are drawn before a head looks at them, which {part} cannot")
        self.assigner, self.sample = assigner, sample

    @torch.no_grad()
    def forward(self, boxes: Tensor, valid: Tensor, targets: Targets, size: tuple[int, int]) -> Drawn:
        """Of regions ``[B, R, 4]``, those drawn; ``size`` is height, width of the network's input."""
        output = regions_output(boxes, valid, size)
        assigned = self.assigner(output, targets)
        positive, negative = assigned.positive & valid, assigned.negative & valid
        nothing = torch.zeros_like(boxes[..., 0])
        taken = self.sample(assigned._replace(positive=positive, negative=negative), nothing, nothing, output, targets)
        rank = taken.positive.to(torch.uint8) * 2 + taken.negative.to(torch.uint8)
        count = min(int(self.sample.count), boxes.shape[1])  # type: ignore[arg-type]
        place = rank.argsort(dim=1, descending=True, stable=True)[:, :count]
        rank = rank.gather(1, place)
        return Drawn(rows(boxes, place), rank > 0, assigned.matched.gather(1, place), rank > 1)


def regions_output(boxes: Tensor, valid: Tensor, size: tuple[int, int]) -> DenseOutput:
    """Regions ``[B, R, 4]`` as priors of which nothing is known yet."""
    count = boxes.shape[1]
    nothing = boxes.new_zeros(*boxes.shape[:2], 0)
    return DenseOutput(nothing, boxes, boxes, boxes, (count,), {}, boxes.new_ones(count, 2), size, valid=valid)


def with_objects(boxes: Tensor, valid: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """The objects themselves as further regions, so that there is something to learn from the first step on."""
    return torch.cat([boxes, targets.boxes.to(boxes.dtype)], dim=1), torch.cat([valid, targets.valid], dim=1)

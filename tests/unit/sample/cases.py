"""Pictures of priors that were assigned, with costs drawn at random."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tests.unit.parts import slow
from torso.assigners import MaxIoU
from torso.boxes.coders import Delta
from torso.structures import Assignment, DenseOutput, Targets

Case = tuple[Assignment, Tensor, Tensor, DenseOutput, Targets]


def case(seed: int, counts: tuple[int, ...] = (5, 0, 9), background: bool = False, weights: bool = False) -> Case:
    """The arguments of a sampler: 49 priors a picture, costs all different, boxes near their priors."""
    output, targets = slow.grid_case(seed, counts)
    targets = targets.with_a_row()
    generator = torch.Generator().manual_seed(100 + seed)
    shape = output.logits.shape[:2]
    costs = torch.rand(2, *shape, generator=generator, dtype=torch.float64) * 3
    boxes = Delta().decode(output.deltas, output.priors)
    if background:
        more = torch.randn(*shape, 4, generator=generator, dtype=torch.float64)
        output = output._replace(logits=more, background=True)
    if weights:
        drawn = torch.rand(targets.labels.shape, generator=generator, dtype=torch.float64)
        targets = replace(targets, weights=drawn)
    output = output._replace(boxes=boxes)
    return MaxIoU(0.4, 0.3)(output, targets), costs[0], costs[1], output, targets


def listed(mask: Tensor) -> list[set[int]]:
    """The priors marked in each picture."""
    return [{p for p, marked in enumerate(row) if marked} for row in mask.tolist()]

"""The one prior that is each object's own."""

from __future__ import annotations

import torch
from torch import Tensor

from torso.assigners.chunks import overlaps, slices
from torso.structures import Targets


def owners(priors: Tensor, targets: Targets) -> Tensor:
    """The object ``[B, P]`` that overlaps no prior more than this one, and -1 where there is none.

    Of priors that overlap an object equally the first is its own, of objects with the same prior the last one has it.
    An object that no prior touches has none.

    Args:
        priors: ``[P, 4]``, or each picture's own ``[B, P, 4]``.
        targets: the valid objects count.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325, section 2.2 (torchvision's SSDMatcher)
    """
    owner = torch.full((len(targets.boxes), priors.shape[-2]), -1, dtype=torch.int64, device=priors.device)
    number = torch.arange(targets.boxes.shape[1], device=priors.device)
    for rows in slices(targets.boxes, priors):
        overlap = overlaps(targets.boxes[:, rows].to(priors.dtype), priors)  # [B, m, P]
        most, prior = overlap.max(dim=2)
        learned = (most > 0) & targets.valid[:, rows]
        owner = owner.scatter_reduce(1, prior, torch.where(learned, number[rows], -1), "amax")
    return owner

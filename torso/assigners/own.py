"""The one prior that is each object's own."""

from __future__ import annotations

import torch
from torch import Tensor


def owners(nearest: Tensor, count: int) -> Tensor:
    """The object ``[B, P]`` that overlaps no prior more than this one, and -1 where there is none.

    Of objects with the same prior the last one has it.

    Args:
        nearest: the prior that overlaps each object most, ``[B, M]``; -1 where none does.
        count: priors P.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325, section 2.2 (torchvision's SSDMatcher)
    """
    number = torch.arange(nearest.shape[1], device=nearest.device)
    owner = nearest.new_full((len(nearest), count), -1)
    return owner.scatter_reduce(1, nearest.clamp(min=0), torch.where(nearest >= 0, number, -1), "amax")

"""What a sampler says, and the one way to take the highest of a picture without waiting for their number."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sampled(NamedTuple):
    """Who learns, and what they count."""

    positive: Tensor  # [B, P] bool: a subset of the assigned positives
    negative: Tensor  # [B, P] bool: a subset of the assigned negatives
    class_weight: Tensor | None = None  # [B, P]: factor of the class loss; 1 when None
    box_weight: Tensor | None = None  # [B, P]: factor of the box loss; 1 when None


def highest(score: Tensor, allowed: Tensor, number: Tensor | int, limit: int | None = None) -> Tensor:
    """The ``number`` highest of each picture among those that are allowed, all of them where there are fewer.

    Args:
        score: ``[B, P]``.
        allowed: ``[B, P]`` bool.
        number: how many, for all pictures or ``[B, 1]`` for each.
        limit: the most that ``number`` can be; all priors are sorted where it is not known.

    Returns:
        ``[B, P]`` bool.
    """
    keys = score.masked_fill(~allowed, -torch.inf)
    if limit is None:
        order = keys.argsort(dim=1, descending=True, stable=True)
    else:
        order = keys.topk(min(limit, keys.shape[1]), dim=1).indices
    first = torch.arange(order.shape[1], device=score.device) < number
    return torch.zeros_like(allowed).scatter(1, order, first.expand(order.shape)) & allowed

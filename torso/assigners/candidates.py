"""The priors an object may take: a few of all, so that what is known of every pair fits into memory.

An assigner that ranks the priors of an object keeps its best K, ``[B, M, K]``, instead of a table ``[B, M, P]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from torso.assigners.chunks import centres
from torso.boxes.candidates import best
from torso.boxes.convert import area
from torso.structures import DenseOutput, Targets


def scores(output: DenseOutput) -> Tensor:
    """How sure the detector is of every class at every prior, ``[B, P, C]`` in 0..1; with objectness if it has one."""
    found = output.class_scores()
    objectness = output.extra.get("objectness")
    return found if objectness is None else found * objectness.sigmoid().unsqueeze(-1)


def learnable(targets: Targets) -> Tensor:
    """Objects that can be learned, ``[B, M]``: those with an area. No box overlaps the others."""
    return targets.valid & (area(targets.boxes) > 0)


def of_labels(values: Tensor, labels: Tensor) -> Tensor:
    """What ``values [B, P, C]`` are for the classes ``labels [B, m]`` of objects: ``[B, m, P]``."""
    batch, priors, classes = values.shape
    rows = labels + classes * torch.arange(batch, device=labels.device)[:, None]
    return values.transpose(1, 2).reshape(-1, priors).index_select(0, rows.flatten()).view(batch, -1, priors)


def power(base: Tensor, exponent: float) -> Tensor:
    """``base ** exponent`` of numbers that are not negative; of whole exponents by products, which is far quicker."""
    if exponent != int(exponent) or not 1 <= exponent <= 8:
        return base.sqrt() if exponent == 0.5 else base**exponent
    found, square, left = None, base, int(exponent)
    while True:
        if left % 2:
            found = square if found is None else found * square
        left //= 2
        if not left:
            return base if found is None else found
        square = square * square


def offsets(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """How far points, ``[P, 2]`` or ``[B, P, 2]``, are right of and below the middles of ``boxes [B, m, 4]``.

    Each is ``[B, m, P]``.
    """
    x, y = centres(boxes).unsqueeze(2).unbind(dim=-1)
    right, down = points.unsqueeze(-3).unbind(dim=-1)
    return right - x, down - y


def topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of ``values [B, m, P]``, falling, and their places; of equals the first, unlike `torch.topk`.

    Where there are fewer than ``k`` priors, or they are ``-inf``, so are the last of the values.
    """
    batch, objects, count = values.shape
    flat = values.reshape(-1, count)
    if count < k:
        flat = functional.pad(flat, (0, k - count), value=-math.inf)
    place = best(flat, k)  # by memory
    found, order = flat.gather(1, place).sort(dim=1, descending=True, stable=True)
    place = place.gather(1, order).clamp(max=count - 1)
    return found.reshape(batch, objects, k), place.reshape(batch, objects, k)


def claimed(prior: Tensor, claim: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Who gets a prior: the object with the highest claim on it, the first of equals.

    Args:
        prior: rows of the priors that objects claim, ``[B, M, K]``.
        claim: how much, ``[B, M, K]``; ``-inf`` where not at all.
        count: priors P.

    Returns:
        The object of each prior, ``[B, P]`` (0 where there is none), and its claim, ``[B, P]`` (``-inf``).
    """
    batch, objects, k = prior.shape
    at, value = prior.flatten(1), claim.flatten(1)
    highest = value.new_full((batch, count), -math.inf).scatter_reduce(1, at, value, "amax")
    row = torch.arange(objects, device=at.device)[:, None].expand(-1, k).reshape(1, -1)
    won = (value == highest.gather(1, at)) & (value > -math.inf)
    first = at.new_full((batch, count), objects).scatter_reduce(1, at, torch.where(won, row, objects), "amin")
    return torch.where(first < objects, first, 0), highest


def owned(prior: Tensor, matched: Tensor, positive: Tensor) -> Tensor:
    """Which of the claims ``prior [B, M, K]`` their object won, ``[B, M, K]``."""
    at = prior.flatten(1)
    row = torch.arange(prior.shape[1], device=at.device)[None, :, None]
    return (matched.gather(1, at).view_as(prior) == row) & positive.gather(1, at).view_as(prior)

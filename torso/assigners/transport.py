"""Optimal transport by Sinkhorn's iterations in the log domain, where each supplier reaches a few demanders only.

Source: Sinkhorn Distances: Lightspeed Computation of Optimal Transport, 2013, arXiv:1306.0895
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinkhorn(
    cost: Tensor, prior: Tensor, real: Tensor, supply: Tensor, count: int, blur: float, steps: int
) -> tuple[Tensor, Tensor]:
    """The plan that brings one unit to each of P priors, from M objects that reach K of them each, or from the rest.

    The rest, the background, supplies what the objects do not, and reaches every prior at no cost: a cost of its own at
    a prior may be taken from all costs there, which changes no plan. The columns of the plan sum to 1; its rows sum to
    the supplies after enough steps.

    Args:
        cost: of a unit, ``[B, M, K]``.
        prior: which priors an object reaches, ``[B, M, K]``, each of them once where ``real``.
        real: which of them there are, ``[B, M, K]``.
        supply: units of each object, ``[B, M]``.
        count: priors P.
        blur: the weight of the plan's entropy, in units of the cost: the smaller, the nearer the plan is to the best
            and the more steps it takes.
        steps: of scaling rows, then columns.

    Returns:
        The units an object brings to its priors, ``[B, M, K]``, and what the background brings, ``[B, P]``.
    """
    at = prior.flatten(1)
    kernel = (cost / -blur).masked_fill(~real, -math.inf)  # [B, M, K]
    has = real.any(dim=-1) & (supply > 0)
    wanted = supply.where(has, 1).log()  # [B, M]
    left = (count - supply.where(has, 0).sum(dim=1)).clamp(min=torch.finfo(cost.dtype).tiny).log()  # [B]
    v = cost.new_zeros(len(cost), count)
    u = torch.zeros_like(wanted)
    ground = torch.zeros_like(left)
    for _ in range(steps):
        u = (wanted - (kernel + v.gather(1, at).view_as(kernel)).logsumexp(dim=-1)).where(has, -math.inf)
        ground = left - v.logsumexp(dim=1)
        # What all suppliers together bring to a prior, relative to the greatest of them.
        brings = (kernel + u.unsqueeze(-1)).flatten(1)  # [B, M * K]
        top = ground.unsqueeze(1).expand(-1, count).scatter_reduce(1, at, brings, "amax")
        total = (ground.unsqueeze(1) - top).exp().scatter_add(1, at, (brings - top.gather(1, at)).exp())
        v = -(top + total.log())
    plan = (kernel + u.unsqueeze(-1) + v.gather(1, at).view_as(kernel)).exp()
    return plan, (ground.unsqueeze(1) + v).exp()

"""The cheapest pairs of rows and columns, found on the host: one transfer there, one back, and one node in a graph."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("torso::lowest", mutates_args=())
def lowest(costs: list[Tensor]) -> list[Tensor]:
    """For each row the column it is paired with, so that the sum of what the pairs cost is the smallest there is.

    Each column is taken once at most; as many pairs are made as there are rows, or finite columns where these are
    fewer.

    Args:
        costs: several ``[B, P, M]``; a column that is infinite is no column.

    Returns:
        ``[B, P]`` int64 of each; -1 where a row has no pair.

    Source: On implementing 2D rectangular assignment algorithms, 2016 (scipy.optimize.linear_sum_assignment)
    """
    from scipy.optimize import linear_sum_assignment

    # One transfer: a GPU is waited for once, however many layers and pictures there are.
    flat = torch.cat([cost.flatten() for cost in costs]).cpu()
    pairs = torch.full((sum(cost.shape[0] * cost.shape[1] for cost in costs),), -1, dtype=torch.int64)
    start, found = 0, pairs.numpy()
    for cost, table in zip(costs, torch.split(flat, [cost.numel() for cost in costs]), strict=True):
        rows = cost.shape[1]
        for each in table.view(cost.shape).numpy():
            columns = (each[:1] < float("inf")).any(axis=0).nonzero()[0]
            taken, column = linear_sum_assignment(each[:, columns])
            found[start : start + rows][taken] = columns[column]
            start += rows
    sizes = [cost.shape[0] * cost.shape[1] for cost in costs]
    moved = pairs.to(costs[0].device)
    return [part.view(cost.shape[:2]).clone() for part, cost in zip(torch.split(moved, sizes), costs, strict=True)]


@lowest.register_fake
def _(costs: list[Tensor]) -> list[Tensor]:
    return [cost.new_empty(cost.shape[:2], dtype=torch.int64) for cost in costs]

"""What all dense heads share: the form of their output."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class HeadOutput(NamedTuple):
    """Raw outputs of a dense head at P priors, level after level, row-major, the priors of a cell together."""

    logits: Tensor  # [B, P, C]
    deltas: Tensor  # [B, P, D]
    extra: dict[str, Tensor]  # each [B, P, ...]


def flatten_levels(levels: list[Tensor], per_cell: int) -> Tensor:
    """Maps ``[B, per_cell * K, H_i, W_i]`` of all levels as one ``[B, P, K]``.

    The channels of a map are ``per_cell`` groups of ``K``, as in torchvision's heads.
    """
    rows = []
    for level in levels:
        batch, channels = level.shape[:2]
        # [B, A*K, H, W] -> [B, H, W, A*K] -> [B, H*W*A, K]; free of a copy when the map is channels-last.
        rows.append(level.permute(0, 2, 3, 1).reshape(batch, -1, channels // per_cell))
    return torch.cat(rows, dim=1)

"""Multi-scale deformable attention in plain torch: a query looks at a few learned places of every level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class DeformableAttention(nn.Module):
    """Each query reads ``points`` places a level and head near its reference, and sums them with learned weights.

    Named and shaped like the original's and transformers', so their weights load.

    Args:
        channels: channels of queries and values.
        heads: heads; they divide ``channels``.
        levels: maps that are looked at.
        points: places a query looks at, a level and head.

    Raises:
        ValueError: heads that do not divide the channels.

    Source: Deformable DETR: Deformable Transformers for End-to-End Object Detection, 2020, arXiv:2010.04159
    """

    def __init__(self, channels: int = 256, heads: int = 8, levels: int = 4, points: int = 4):
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads must divide the channels, got {heads} heads for {channels} channels")
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self._init()

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        value: Tensor,
        sizes: Sequence[tuple[int, int]],
        valid: Tensor | None = None,
    ) -> Tensor:
        """``[B, Q, channels]``: what the queries saw.

        Args:
            query: ``[B, Q, channels]``, its position already added.
            reference: where it is, 0..1 of each level's width and height: ``[B, Q, levels, 2]`` (x, y) with offsets in
                cells, or ``[B, Q, levels, 4]`` (cx, cy, w, h) with offsets in halves of the box over ``points``.
            value: ``[B, S, channels]``, the cells of all levels, level after level, row after row.
            sizes: height and width of every level.
            valid: ``[B, S]`` bool; cells that are padding read as 0.

        Raises:
            ValueError: a reference that is neither a point nor a box, or sizes that do not make up ``value``.
        """
        if reference.shape[-1] not in (2, 4) or len(sizes) != self.levels:
            raise ValueError(
                f"reference must end in 2 (x, y) or 4 (cx, cy, w, h) numbers and there must be {self.levels} sizes, "
                f"got {reference.shape[-1]} numbers and {len(sizes)} sizes"
            )
        if (total := sum(height * width for height, width in sizes)) != value.shape[1]:
            raise ValueError(f"sizes {list(sizes)} make {total} cells, but value has {value.shape[1]}")
        batch, queries, _ = query.shape
        shape = (batch, queries, self.heads, self.levels, self.points)
        value = self.value_proj(value)
        if valid is not None:
            value = value.masked_fill(~valid[..., None], 0)
        offsets = self.sampling_offsets(query).view(*shape, 2)
        weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        around = reference[:, :, None, :, None]  # [B, Q, 1, levels, 1, 2 or 4]
        if reference.shape[-1] == 2:
            cells = torch.tensor([(width, height) for height, width in sizes], dtype=query.dtype, device=query.device)
            places = around + offsets / cells[:, None]
        else:
            places = around[..., :2] + offsets * around[..., 2:] * (0.5 / self.points)
        value = value.view(batch, value.shape[1], self.heads, -1)
        out: Tensor = self.output_proj(sample(value, sizes, places, weights))
        return out

    def _init(self) -> None:
        """Heads look in different directions, point ``i`` (from 1) ``i`` cells far; all weigh the same."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        far = torch.arange(1, self.points + 1)[:, None] * direction[:, None, None]  # [heads, 1, points, 2]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(far.expand(-1, self.levels, -1, -1).flatten())
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def sample(value: Tensor, sizes: Sequence[tuple[int, int]], places: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of values read bilinearly at ``places``; outside of the map they are 0.

    Args:
        value: ``[B, S, heads, C]``, the cells of all levels.
        sizes: height and width of every level.
        places: ``[B, Q, heads, levels, points, 2]``, x and y in 0..1.
        weights: ``[B, Q, heads, levels, points]``.

    Returns:
        ``[B, Q, heads * C]``.
    """
    batch, queries, heads, levels, points = weights.shape
    # Points before queries and a sum a level: half the time of one sum over all, which reads short rows. (One sum over
    # rows of a table of cells, as `torso.boxes.roi` has it, takes twice as long: here every weight learns, too.)
    grids = (2 * places - 1).permute(3, 0, 2, 4, 1, 5).reshape(levels, batch * heads, points, queries, 2)
    shares = weights.permute(3, 0, 2, 4, 1).reshape(levels, batch * heads, 1, points, queries)
    parts = torch.split(value, [height * width for height, width in sizes], dim=1)
    total = value.new_zeros(())
    for cells, (height, width), grid, share in zip(parts, sizes, grids, shares, strict=True):
        maps = cells.permute(0, 2, 3, 1).reshape(batch * heads, -1, height, width)
        seen = functional.grid_sample(maps, grid, align_corners=False)  # [B * heads, C, points, Q]
        total = total + (seen * share).sum(2)
    return total.view(batch, -1, queries).transpose(1, 2)

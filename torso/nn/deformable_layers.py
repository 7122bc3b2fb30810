"""The layers of Deformable DETR's encoder and decoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from torso.nn.deformable import DeformableAttention
from torso.nn.frames import Frames


class DeformableEncoderLayer(nn.Module):
    """Every cell of every level looks at a few places of all levels around its own: ``[B, S, channels]`` to the same.

    Args:
        channels: of a cell.
        heads: attention heads.
        levels: maps.
        points: places a cell looks at, a level and head.
        hidden: width of the two linear layers behind.
        dropout: probability, 0..1.

    Source: Deformable DETR: Deformable Transformers for End-to-End Object Detection, 2020, arXiv:2010.04159
    """

    def __init__(
        self, channels: int, heads: int = 8, levels: int = 4, points: int = 4, hidden: int = 1024, dropout: float = 0.1
    ):
        super().__init__()
        self.look = DeformableAttention(channels, heads, levels, points)
        self.look_norm = nn.LayerNorm(channels)
        self.think = feedforward(channels, hidden, dropout)
        self.think_norm = nn.LayerNorm(channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, frames: Frames) -> Tensor:
        """Cells with their positions, and where they are on each map, ``[B, S, levels, 2]``."""
        seen = self.look(x + position, reference, x, frames.sizes, frames.valid)
        x = self.look_norm(x + self.drop(seen))
        out: Tensor = self.think_norm(x + self.drop(self.think(x)))
        return out


class DeformableDecoderLayer(nn.Module):
    """Queries look at each other, then at a few places of all levels: ``[B, Q, channels]`` to the same.

    Args:
        channels: of a query and a cell.
        heads: attention heads.
        levels: maps.
        points: places a query looks at, a level and head.
        hidden: width of the two linear layers behind.
        dropout: probability, 0..1.

    Source: Deformable DETR: Deformable Transformers for End-to-End Object Detection, 2020, arXiv:2010.04159
    """

    def __init__(
        self, channels: int, heads: int = 8, levels: int = 4, points: int = 4, hidden: int = 1024, dropout: float = 0.1
    ):
        super().__init__()
        self.meet = QueryAttention(channels, heads, dropout)
        self.meet_norm = nn.LayerNorm(channels)
        self.look = DeformableAttention(channels, heads, levels, points)
        self.look_norm = nn.LayerNorm(channels)
        self.think = feedforward(channels, hidden, dropout)
        self.think_norm = nn.LayerNorm(channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, cells: Tensor, frames: Frames) -> Tensor:
        """Queries with their positions and references ``[B, Q, levels, 2 or 4]``; cells ``[B, S, channels]``."""
        x = self.meet_norm(x + self.drop(self.meet(x, position)))
        seen = self.look(x + position, reference, cells, frames.sizes, frames.valid)
        x = self.look_norm(x + self.drop(seen))
        out: Tensor = self.think_norm(x + self.drop(self.think(x)))
        return out


class QueryAttention(nn.Module):
    """Queries look at each other; their positions count for who looks at whom, not for what is seen.

    Args:
        channels: of a query.
        heads: they divide ``channels``.
        dropout: of the weights, 0..1.

    Source: End-to-End Object Detection with Transformers, 2020, arXiv:2005.12872
    """

    def __init__(self, channels: int, heads: int = 8, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight, gain=2**-0.5)  # as the three in one layer
        nn.init.xavier_uniform_(self.out.weight)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``[B, Q, channels]`` to the same."""
        placed = x + position
        query, key, value = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, y in ((self.query, placed), (self.key, placed), (self.value, x))
        )  # [B, heads, Q, channels / heads]
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        out: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return out


def feedforward(channels: int, hidden: int, dropout: float) -> nn.Sequential:
    """Two linear layers with a rectifier between."""
    layers = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, channels))
    for place in (0, 3):
        nn.init.xavier_uniform_(layers[place].weight)  # type: ignore[arg-type]
    return layers

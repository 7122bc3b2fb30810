"""The layers of Deformable DETR's encoder and decoder."""

from __future__ import annotations

from torch import Tensor, nn

from torso.nn.deformable import DeformableAttention
from torso.nn.encoder_decoder import FeedForward
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
        self.feed = FeedForward(channels, hidden, dropout)
        self.feed_norm = nn.LayerNorm(channels)
        self.drop = nn.Dropout(dropout)
        xavier(self.feed)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, frames: Frames) -> Tensor:
        """Cells with their positions, and where they are on each map, ``[B, S, levels, 2]``."""
        seen = self.look(x + position, reference, x, frames.sizes, frames.valid)
        x = self.look_norm(x + self.drop(seen))
        out: Tensor = self.feed_norm(x + self.drop(self.feed(x)))
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
        self.meet = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.meet_norm = nn.LayerNorm(channels)
        self.look = DeformableAttention(channels, heads, levels, points)
        self.look_norm = nn.LayerNorm(channels)
        self.feed = FeedForward(channels, hidden, dropout)
        self.feed_norm = nn.LayerNorm(channels)
        self.drop = nn.Dropout(dropout)
        xavier(self.meet, self.feed)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, cells: Tensor, frames: Frames) -> Tensor:
        """Queries with their positions and references ``[B, Q, levels, 2 or 4]``; cells ``[B, S, channels]``."""
        placed = x + position
        x = self.meet_norm(x + self.drop(self.meet(placed, placed, x, need_weights=False)[0]))
        seen = self.look(x + position, reference, cells, frames.sizes, frames.valid)
        x = self.look_norm(x + self.drop(seen))
        out: Tensor = self.feed_norm(x + self.drop(self.feed(x)))
        return out


def xavier(*modules: nn.Module) -> None:
    """Draw all matrices as the paper's code does; the three of an attention are one."""
    for matrix in (parameter for module in modules for parameter in module.parameters() if parameter.ndim > 1):
        nn.init.xavier_uniform_(matrix)

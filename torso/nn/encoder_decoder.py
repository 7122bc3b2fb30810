"""The transformer's encoder and decoder for pictures: where something lies is told to queries and keys of every layer.

torch's own layers add positions to the input once, and to the values too; DETR adds them in each layer, to queries and
keys alone.
"""

from __future__ import annotations

from torch import Tensor, nn


class FeedForward(nn.Sequential):
    """Two linear layers on every token: ``[..., channels] -> [..., channels]``.

    Args:
        channels: of a token.
        hidden: between the two.
        dropout: probability of what lies between, 0..1.

    Source: Attention Is All You Need, 2017, arXiv:1706.03762, equation 2
    """

    def __init__(self, channels: int, hidden: int, dropout: float = 0.0):
        super().__init__(nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, channels))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each added to what came in: ``[B, S, channels]`` to the same.

    Args:
        channels: of a token, divisible by ``heads``.
        heads: of the attention.
        hidden: width of the feed-forward network.
        dropout: probability, 0..1, of shares of attention, between the linear layers and of what is added.
        norm_first: norms before attention and network, so that what is added is not normalised ("pre-norm"); after the
            sum otherwise, as in both papers.

    Source: Attention Is All You Need, 2017, arXiv:1706.03762; positions as DETR adds them, 2020, arXiv:2005.12872
    """

    def __init__(
        self, channels: int, heads: int = 8, hidden: int = 2048, dropout: float = 0.1, norm_first: bool = False
    ):
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.feed = FeedForward(channels, hidden, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.dropout, self.norm_first = nn.Dropout(dropout), norm_first

    def forward(self, x: Tensor, position: Tensor | None = None, padding: Tensor | None = None) -> Tensor:
        """Tokens that have seen each other.

        Args:
            x: ``[B, S, channels]``.
            position: ``[B or 1, S, channels]``, added to queries and keys.
            padding: ``[B, S]`` bool, tokens that nobody looks at; not all of a picture.
        """
        first, second = self.norms
        y = first(x) if self.norm_first else x
        x = x + self.dropout(_attend(self.attention, _with(y, position), _with(y, position), y, padding))
        x = x if self.norm_first else first(x)
        x = x + self.dropout(self.feed(second(x) if self.norm_first else x))
        return x if self.norm_first else second(x)


class DecoderLayer(nn.Module):
    """Attention among queries, then of queries to a memory, then a feed-forward network: ``[B, Q, channels]``.

    Args:
        channels: of queries and memory, divisible by ``heads``.
        heads: of the attentions.
        hidden: width of the feed-forward network.
        dropout: as in `EncoderLayer`.
        norm_first: as in `EncoderLayer`.

    Source: Attention Is All You Need, 2017, arXiv:1706.03762; positions as DETR adds them, 2020, arXiv:2005.12872
    """

    def __init__(
        self, channels: int, heads: int = 8, hidden: int = 2048, dropout: float = 0.1, norm_first: bool = False
    ):
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.look = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.feed = FeedForward(channels, hidden, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout, self.norm_first = nn.Dropout(dropout), norm_first

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        query_position: Tensor | None = None,
        position: Tensor | None = None,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Queries that have seen each other and the memory.

        Args:
            x: ``[B, Q, channels]``.
            memory: ``[B, S, channels]``.
            query_position: ``[B or 1, Q, channels]``, added to queries, and to keys among queries.
            position: ``[B or 1, S, channels]``, added to the keys of the memory.
            padding: ``[B, S]`` bool, tokens of the memory that nobody looks at; not all of a picture.
        """
        first, second, third = self.norms
        y = first(x) if self.norm_first else x
        near = _with(y, query_position)
        x = x + self.dropout(_attend(self.attention, near, near, y))
        x = x if self.norm_first else first(x)
        y = _with(second(x) if self.norm_first else x, query_position)
        x = x + self.dropout(_attend(self.look, y, _with(memory, position), memory, padding))
        x = x if self.norm_first else second(x)
        x = x + self.dropout(self.feed(third(x) if self.norm_first else x))
        return x if self.norm_first else third(x)


def _with(x: Tensor, position: Tensor | None) -> Tensor:
    return x if position is None else x + position


def _attend(
    attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None = None
) -> Tensor:
    found: Tensor = attention(query, key, value, key_padding_mask=padding, need_weights=False)[0]
    return found

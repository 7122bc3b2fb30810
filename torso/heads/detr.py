"""DETR's head: a transformer between the cells of one level and a set of learned queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from torso.nn.encoder_decoder import DecoderLayer, EncoderLayer
from torso.nn.position import SinePosition
from torso.structures import Features, QueryOutput


class DETR(nn.Module):
    """An encoder of the coarsest level and a decoder of learned queries, each of which says one class and one box.

    Classes and boxes are said after every layer of the decoder, by the same layers; the boxes are centre, width and
    height in 0..1 of the picture itself, without its padding, which nobody looks at.

    Args:
        in_channels: channels of the levels (wired); the last one is used.
        num_classes: logits a query (wired): C, or C + 1 with a background.
        channels: of cells and queries, divisible by ``heads`` and by 4.
        queries: boxes a picture, 1 or more.
        encoder_layers: 0 or more.
        decoder_layers: 1 or more.
        heads: of the attentions.
        hidden: width of the feed-forward networks.
        dropout: probability, 0..1.
        norm_first: norms before attentions and networks, not after their sums; encoder then ends with a norm.

    Raises:
        ValueError: channels that do not divide, no queries, or no decoder.

    Source: End-to-End Object Detection with Transformers, 2020, arXiv:2005.12872
    """

    of_queries: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        queries: int = 100,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.1,
        norm_first: bool = False,
    ):
        super().__init__()
        if channels % heads or channels % 4:
            raise ValueError(f"channels must divide by heads={heads} and by 4, got {channels}")
        if queries < 1 or decoder_layers < 1 or encoder_layers < 0:
            raise ValueError(
                f"detr needs queries and decoder_layers of 1 or more and encoder_layers of 0 or more, got {queries}, "
                f"{decoder_layers} and {encoder_layers}"
            )
        self.project = nn.Conv2d(in_channels[-1], channels, 1)
        self.position = SinePosition(channels)
        layer = (channels, heads, hidden, dropout, norm_first)
        self.encoder = nn.ModuleList(EncoderLayer(*layer) for _ in range(encoder_layers))
        self.encoder_norm = nn.LayerNorm(channels) if norm_first else nn.Identity()
        self.decoder = nn.ModuleList(DecoderLayer(*layer) for _ in range(decoder_layers))
        self.decoder_norm = nn.LayerNorm(channels)
        for matrix in (p for part in (self.encoder, self.decoder) for p in part.parameters() if p.ndim > 1):
            nn.init.xavier_uniform_(matrix)
        self.query = nn.Parameter(torch.randn(queries, channels))
        self.class_logits = nn.Linear(channels, num_classes)
        self.box = nn.Sequential(
            *(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU()),
            nn.Linear(channels, 4),
        )

    def forward(self, features: Features, real: Sequence[Tensor] | None, size: tuple[int, int]) -> QueryOutput:
        """Classes and boxes of all queries after every layer of the decoder.

        Args:
            features: ``[B, in_channels[i], H_i, W_i]`` a level.
            real: ``[B, H_i, W_i]`` bool a level, where the picture is and not its padding; all of it when None.
            size: height, width of the network's input in pixels.
        """
        there = None if real is None else real[-1]
        cells = self.project(features[-1])
        position = self.position(cells, there).flatten(2).transpose(1, 2)  # [B or 1, S, channels]
        padding = None if there is None else ~there.flatten(1)
        memory = cells.flatten(2).transpose(1, 2)
        for layer in self.encoder:
            memory = layer(memory, position, padding)
        memory = self.encoder_norm(memory)
        # Queries begin as nothing but their places.
        x, said = torch.zeros_like(self.query).expand(memory.shape[0], -1, -1), []
        for layer in self.decoder:
            x = layer(x, memory, self.query, position, padding)
            said.append(self.decoder_norm(x))
        every = torch.stack(said)  # [L, B, Q, channels]
        boxes = self.box(every)
        boxes = (
            boxes if boxes.dtype.itemsize >= 4 else boxes.float()
        )  # a place in 0..1 needs more digits than bfloat16's
        return QueryOutput(self.class_logits(every), boxes.sigmoid(), size)

    def reset_classes(self, num_classes: int) -> None:
        """A new layer of class logits for other classes; all else stays."""
        old = self.class_logits
        self.class_logits = nn.Linear(old.in_features, num_classes).to(old.weight)

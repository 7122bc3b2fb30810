"""Deformable DETR's head: queries that look at a few places of all levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.boxes.candidates import best, rows
from torso.nn.deformable_layers import DeformableDecoderLayer, DeformableEncoderLayer, xavier
from torso.nn.frames import Frames
from torso.nn.init import init_prior
from torso.nn.position import SinePosition, sines
from torso.structures import DenseOutput, Features, QueryOutput, as_priors

LEAST = 1e-5
"""Boxes are refined as logits; 0 and 1 count as so far from the border."""


class DeformableDETR(nn.Module):
    """An encoder of all levels and a decoder of queries, both with deformable attention; one box and class a query.

    Boxes are shares of the picture itself, without its padding. Where it is padded, places of the picture are found on
    each level by the cells it takes there (the paper's valid ratios); padding is never looked at.

    Args:
        in_channels: channels of the levels (wired).
        strides: their strides (wired).
        num_classes: logits a query, C, or C + 1 with a background (wired).
        channels: of cells and queries, a multiple of ``groups``, of ``heads`` and of 4.
        extra: coarser levels that are added by strided convolutions, 0 or more.
        queries: boxes a picture, 1 or more.
        encoder_layers: 0 or more.
        decoder_layers: 1 or more.
        heads: attention heads.
        points: places looked at, a level and head.
        hidden: width of the linear layers behind an attention.
        groups: of the group norms behind the input projections.
        dropout: probability, 0..1.
        refine: every layer of the decoder says how the box of the layer before changes (iterative bounding box
            refinement), with layers of its own for classes and boxes; without, they share one of each.
        two_stage: queries are the best cells of the encoder, by a class-agnostic layer of its own; without, they are
            learned. The paper uses it with ``refine``.
        prior_probability: the score every class starts with.

    Raises:
        ValueError: levels, channels and numbers that do not fit.

    Source: Deformable DETR: Deformable Transformers for End-to-End Object Detection, 2020, arXiv:2010.04159
    """

    of_queries: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        extra: int = 1,
        queries: int = 300,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        heads: int = 8,
        points: int = 4,
        hidden: int = 1024,
        groups: int = 32,
        dropout: float = 0.1,
        refine: bool = False,
        two_stage: bool = False,
        prior_probability: float = 0.01,
    ):
        super().__init__()
        if len(in_channels) != len(strides) or not in_channels:
            raise ValueError(f"a level has channels and a stride, got {list(in_channels)} and {list(strides)}")
        if queries < 1 or decoder_layers < 1 or encoder_layers < 0 or extra < 0:
            raise ValueError(
                f"deformable_detr needs queries and decoder_layers of 1 or more, encoder_layers and extra of 0 or more,"
                f" got {queries}, {decoder_layers}, {encoder_layers} and {extra}"
            )
        if channels % groups or channels % heads or channels % 4:
            raise ValueError(f"channels must divide by groups={groups}, heads={heads} and 4, got {channels}")
        levels = len(in_channels) + extra
        self.queries, self.refine, self.two_stage = queries, refine, two_stage
        self.prior_probability = prior_probability
        self.inside: tuple[str, ...] = ("cell_scores",) if two_stage else ()
        self.project = nn.ModuleList(_projection(c, channels, groups) for c in in_channels)
        self.coarser = nn.ModuleList(
            _projection(channels if i else in_channels[-1], channels, groups, stride=2) for i in range(extra)
        )
        self.position = SinePosition(channels, offset=-0.5)
        self.level = nn.Parameter(torch.empty(levels, channels))
        of_layer = (channels, heads, levels, points, hidden, dropout)
        self.encoder = nn.ModuleList(DeformableEncoderLayer(*of_layer) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DeformableDecoderLayer(*of_layer) for _ in range(decoder_layers))
        if two_stage:
            self.proposal = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels))
            self.proposal_logits, self.proposal_deltas = nn.Linear(channels, 1), _box_layers(channels)
            self.query: nn.Module = nn.Sequential(nn.Linear(2 * channels, 2 * channels), nn.LayerNorm(2 * channels))
        else:
            self.query = nn.Embedding(queries, 2 * channels)
            self.reference = nn.Linear(channels, 2)
        own = decoder_layers if refine else 1
        self.class_logits = nn.ModuleList(nn.Linear(channels, num_classes) for _ in range(own))
        self.box_deltas = nn.ModuleList(_box_layers(channels) for _ in range(own))
        self._init()

    def forward(
        self,
        features: Features,
        real: Sequence[Tensor] | None,
        size: tuple[int, int],
        keep: Callable[[str, Tensor], Tensor] | None = None,
    ) -> QueryOutput:
        """Classes and boxes of all queries after every layer of the decoder.

        Args:
            features: ``[B, in_channels[i], H_i, W_i]`` a level.
            real: ``[B, H_i, W_i]`` bool a level, where the picture is and not its padding; all of it when None.
            size: height, width of the network's input in pixels.
            keep: see `torso.models.inside`; ``inside`` names what is passed through it.
        """
        x, position, frames = self._cells(features, real)
        around = frames.on_levels(frames.cells())
        for layer in self.encoder:
            x = layer(x, position, around, frames)
        proposed = None
        if self.two_stage:
            proposed, queries = self._propose(x, frames, size, keep)
        else:
            queries = self._learned(frames)
        logits, boxes = self._decode(*queries, x, frames)
        return QueryOutput(logits, boxes, size, proposed=proposed)

    def reset_classes(self, num_classes: int) -> None:
        """New layers of class logits for other classes; all else stays."""
        old = self.class_logits[0].weight
        assert isinstance(old, Tensor)
        self.class_logits = nn.ModuleList(nn.Linear(old.shape[1], num_classes) for _ in self.class_logits)
        self._init_classes()
        self.class_logits.to(old)

    def _cells(self, features: Features, real: Sequence[Tensor] | None) -> tuple[Tensor, Tensor, Frames]:
        """Of all levels: cells and their positions ``[B, S, channels]``, and where the pictures lie on them."""
        maps = [layer(x) for layer, x in zip(self.project, features, strict=True)]
        x = features[-1]
        for layer in self.coarser:
            x = layer(x)
            maps.append(x)
        if real is None:
            real = [x.new_ones((x.shape[0], *x.shape[-2:]), dtype=torch.bool) for x in features]
        masks = list(real)
        for y in maps[len(masks) :]:  # a coarser cell is what its upper left finer one is
            masks.append(functional.interpolate(masks[-1][:, None].float(), size=y.shape[-2:])[:, 0] > 0.5)
        frames = Frames.of(masks, _precise(maps[0]))
        positions = [
            self.position(y, mask).flatten(2).transpose(1, 2) + level
            for y, mask, level in zip(maps, masks, self.level.unbind(), strict=True)
        ]
        return torch.cat([y.flatten(2).transpose(1, 2) for y in maps], dim=1), torch.cat(positions, dim=1), frames

    def _learned(self, frames: Frames) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, contents ``[B, Q, channels]`` and points ``[B, Q, 2]`` of the queries that are learned."""
        batch = frames.valid.shape[0]
        place, query = _halves(self.query.weight.expand(batch, -1, -1))  # type: ignore[operator]
        return place, query, self.reference(place).to(frames.start.dtype).sigmoid()

    def _propose(
        self, x: Tensor, frames: Frames, size: tuple[int, int], keep: Callable[[str, Tensor], Tensor] | None
    ) -> tuple[DenseOutput, tuple[Tensor, Tensor, Tensor]]:
        """What the encoder says at every cell; positions, contents and boxes ``[B, Q, 4]`` of the best ones."""
        centre = frames.cells()
        sides = [0.05 * 2**level for level in range(len(frames.sizes))]
        side = torch.cat([centre.new_full((h * w,), s) for (h, w), s in zip(frames.sizes, sides, strict=True)])
        guess = torch.cat([centre, side[:, None].expand_as(centre)], dim=-1)  # [B, S, 4]
        valid = frames.valid & ((guess > 0.01) & (guess < 0.99)).all(dim=-1)
        found = self.proposal(torch.where(valid[..., None], x, 0.0))
        logits = self.proposal_logits(found).to(guess.dtype)  # [B, S, 1]
        deltas = self.proposal_deltas(found).to(guess.dtype) + _logit(guess.clamp(0.01, 0.99))
        scores = logits.detach().sigmoid()
        if keep is not None:
            scores = keep("cell_scores", scores)
        scores = torch.where(valid, scores.squeeze(-1), -1.0)
        # A small picture may have fewer cells than queries; sizes must not depend on it.
        cell = best(functional.pad(scores, (0, self.queries), value=-2.0), self.queries)
        chosen = rows(deltas, cell.clamp(max=x.shape[1] - 1)).detach().sigmoid()  # [B, Q, 4]
        place, query = _halves(self.query(sines(chosen, x.shape[-1] // 2).flatten(2).to(x.dtype)))
        said = as_priors(logits, deltas.sigmoid(), size)
        return said._replace(valid=valid), (place, query, chosen)

    def _decode(
        self, place: Tensor, query: Tensor, reference: Tensor, x: Tensor, frames: Frames
    ) -> tuple[Tensor, Tensor]:
        """Class logits ``[layers, B, Q, C]`` and boxes ``[layers, B, Q, 4]``."""
        logits, boxes = [], []
        for number, layer in enumerate(self.decoder):
            query = layer(query, place, frames.on_levels(reference), x, frames)
            own = number if self.refine else 0
            logits.append(self.class_logits[own](query).to(reference.dtype))
            delta = self.box_deltas[own](query).to(reference.dtype)
            known = reference.shape[-1]
            box = torch.cat([delta[..., :known] + _logit(reference), delta[..., known:]], dim=-1).sigmoid()
            boxes.append(box)
            if self.refine:  # each layer answers for its own change
                reference = box.detach()
        return torch.stack(logits), torch.stack(boxes)

    @torch.no_grad()
    def _init(self) -> None:
        """As the paper's code: a box begins small around its point, or as its proposal."""
        nn.init.normal_(self.level)
        xavier(self.project, self.coarser)
        for conv, _ in (*self.project, *self.coarser):
            nn.init.zeros_(conv.bias)
        if self.two_stage:
            xavier(self.proposal, self.query)
        else:
            xavier(self.reference)
            nn.init.zeros_(self.reference.bias)
            first = self.box_deltas[0][-1].bias  # type: ignore[index]
            first[2:] = -2.0
        self._init_classes()

    def _init_classes(self) -> None:
        for layer in self.class_logits:
            init_prior(layer, self.prior_probability)
        if self.two_stage:
            init_prior(self.proposal_logits, self.prior_probability)


def _projection(in_channels: int, channels: int, groups: int, stride: int = 1) -> nn.Sequential:
    """A convolution, 1x1 or strided and 3x3, and a group norm."""
    side = 3 if stride > 1 else 1
    conv = nn.Conv2d(in_channels, channels, side, stride, padding=side // 2)
    return nn.Sequential(conv, nn.GroupNorm(groups, channels))


def _box_layers(channels: int) -> nn.Sequential:
    """Three linear layers to the four numbers of a box, which begin as 0."""
    last = nn.Linear(channels, 4)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU(), last)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """``[B, Q, 2 C]`` as two of ``[B, Q, C]``, each by itself: of steps of 2 C an export would take 2 for the batch."""
    first, second = x.chunk(2, dim=-1)
    return first.contiguous(), second.contiguous()


def _logit(places: Tensor) -> Tensor:
    """The inverse of the sigmoid, of places in 0..1; at the border it stays finite."""
    return (places.clamp(min=LEAST) / (1 - places).clamp(min=LEAST)).log()


def _precise(x: Tensor) -> torch.dtype:
    """Places need float32 at least."""
    return x.dtype if x.dtype.itemsize >= 4 else torch.float32

"""Heads of detectors that pair corners: what every cell of a map says about corners, and about centres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.heads.dense import one_for_all
from torso.nn.conv import Layer
from torso.nn.corner_pool import CenterPool, CornerPool
from torso.nn.init import init_prior
from torso.structures import Features

Activation = Callable[[], nn.Module]


class CornerMaps(NamedTuple):
    """Raw outputs on one map, of K kinds of points: top left and bottom right corners, then centres if it has them."""

    heat: Tensor  # [B, K, C, H, W] logits
    embeddings: Tensor  # [B, 2, H, W]: equal at the two corners of an object
    offsets: Tensor  # [B, K, 2, H, W]: where in its cell a point is, x and y in strides


class Corner(nn.Module):
    """Of both corners, after corner pooling, a heatmap of every class, an embedding, and where in its cell a corner is.

    Each level has layers of its own: the levels are the same map seen by one hourglass after another. They all learn,
    and the last one answers.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: heatmaps of a kind of point C (wired).
        channels: of the layer before each output.
        pooled: channels of what is pooled.
        norm: normalisation around the pooling.
        activation: activation layer.
        prior_probability: the score every class starts with.

    Source: CornerNet: Detecting Objects as Paired Keypoints, 2018, arXiv:1808.01244, sections 3 and 4.1
    """

    points: ClassVar[int] = 2
    cascade: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 256,
        pooled: int = 128,
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Activation, Role("activation", factory=True)] = nn.ReLU,
        prior_probability: float = 0.1,
    ):
        super().__init__()
        (given, _) = one_for_all(in_channels, [1] * len(in_channels))
        self.prior_probability = prior_probability
        self.levels = nn.ModuleList()
        for _ in in_channels:
            kinds = nn.ModuleList()
            for kind in range(self.points):
                pool = self._pool(kind, given, pooled, norm, activation)
                kinds.append(Said(pool, given, channels, num_classes, kind < 2, activation))
            self.levels.append(kinds)
        self.reset_classes(num_classes)

    def forward(self, features: Features) -> tuple[CornerMaps, ...]:
        """What each level says."""
        return tuple(self.say(level, x) for level, x in enumerate(features))

    def say(self, level: int, x: Tensor) -> CornerMaps:
        """What one level ``[B, in_channels, H, W]`` says."""
        said = [kind(x) for kind in cast("nn.ModuleList", self.levels[level])]
        heat, offsets = (torch.stack([each[i] for each in said], dim=1) for i in range(2))
        return CornerMaps(heat, torch.cat([said[0][2], said[1][2]], dim=1), offsets)

    def reset_classes(self, num_classes: int) -> None:
        """New layers of class logits for other classes; all else stays."""
        for part in self.modules():
            if isinstance(part, Said):
                part.renew(num_classes, self.prior_probability)

    def _pool(self, kind: int, channels: int, pooled: int, norm: Layer, activation: Activation) -> nn.Module:
        if kind == 2:
            return CenterPool(channels, pooled, norm, activation)
        return CornerPool(channels, "bottom_right" if kind else "top_left", pooled, self.cascade, norm, activation)


class CornerTriplets(Corner):
    """A corner head with a third kind of point, centres after centre pooling, and cascade corner pooling.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: heatmaps of a kind of point C (wired).
        channels: of the layer before each output.
        pooled: channels of what is pooled.
        norm: normalisation around the pooling.
        activation: activation layer.
        prior_probability: the score every class starts with.

    Source: CenterNet: Keypoint Triplets for Object Detection, 2019, arXiv:1904.08189, section 3
    """

    points = 3
    cascade = True


class Said(nn.Module):
    """Of one kind of point: pooled features, then a 3x3 convolution and a 1x1 for each of its outputs."""

    def __init__(
        self, pool: nn.Module, given: int, channels: int, num_classes: int, embeds: bool, activation: Activation
    ):
        super().__init__()
        self.pool = pool

        def output(count: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(given, channels, 3, padding=1), activation(), nn.Conv2d(channels, count, 1))

        self.heat, self.offset = output(num_classes), output(2)
        self.embedding = output(1) if embeds else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Heat ``[B, C, H, W]``, offsets ``[B, 2, H, W]`` and the embedding ``[B, 1, H, W]``."""
        x = self.pool(x)
        return self.heat(x), self.offset(x), None if self.embedding is None else self.embedding(x)

    def renew(self, num_classes: int, probability: float) -> None:
        """A new layer of class logits."""
        old = cast("nn.Conv2d", self.heat[-1])
        self.heat[-1] = nn.Conv2d(old.in_channels, num_classes, 1).to(old.weight)
        init_prior(self.heat[-1], probability)

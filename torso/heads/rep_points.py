"""RepPoints' head: points, then the features at these points, then better points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.heads.dense import Branches, HeadOutput, flatten_levels, one_for_all
from torso.heads.fcos import GROUPS
from torso.nn.conv import ConvNormAct, Layer, init_normal
from torso.nn.deformable_conv import DeformableConv
from torso.nn.init import init_prior
from torso.structures import Features


class RepPoints(nn.Module):
    """Two towers; the box tower says a set of points, and both are then read where these points lie.

    A first set comes of the box tower. Deformable convolutions, their taps at the points of the set, make the class
    logits of the class tower and a second set, added to the first, of the box tower. With the coder ``rep_points`` the
    deltas are this second set; its learned factors of a moment are kept here, one pair for all priors. With another
    coder the deltas are what the last layer says, and the first set only says where to look. The branch ``points``,
    which the criterion ``rep_points`` asks for, is the first set as that coder reads it, ``[B, P, D]``.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level, all equal (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for (wired).
        depth: convolutions in a tower.
        side: points along a side of the set and taps along a side of the deformable convolutions, odd; the coder's.
        norm: normalisation in the towers.
        activation: activation in the towers.
        through_taps: share of the gradient that reaches the first set by where the taps lie, 0..1.
        factor_rate: share of the gradient that reaches the factors of a moment, 0..1.
        prior_probability: the score every class starts with.

    Raises:
        ValueError: ``points`` asked for with another coder, or one of another side; levels that differ.

    Source: RepPoints: Point Set Representation for Object Detection, 2019, arXiv:1904.11490
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int = 4,
        branches: Sequence[str] = (),
        *,
        depth: int = 3,
        side: int = 3,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = GROUPS,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
        through_taps: float = 0.1,
        factor_rate: float = 0.01,
        prior_probability: float = 0.01,
    ):
        super().__init__()
        channels, self.per_cell = one_for_all(in_channels, num_priors)
        self.num_priors, self.side, self.coder_size = list(num_priors), side, coder_size
        self.through_taps, self.factor_rate, self.prior_probability = through_taps, factor_rate, prior_probability
        size = 2 * side * side
        self.of_points = coder_size in (size, size + 2)
        if "points" in branches and not self.of_points:
            raise ValueError(
                f"the head rep_points says its first points to the coder rep_points with side {side}, of {size} or "
                f"{size + 2} numbers, but the coder has {coder_size}"
            )
        conv = partial(ConvNormAct, channels, channels, norm=norm, activation=activation)
        self.class_tower = nn.Sequential(*(conv() for _ in range(depth)))
        self.box_tower = nn.Sequential(*(conv() for _ in range(depth)))
        self.activation = activation()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.first_points = nn.Conv2d(channels, self.per_cell * size, 1)
        self.class_taps = DeformableConv(channels, channels, side, bias=False)
        self.class_logits = nn.Conv2d(channels, num_classes, 1)
        self.box_taps = DeformableConv(channels, channels, side, bias=False)
        self.box_deltas = nn.Conv2d(channels, size if self.of_points else coder_size, 1)
        self.factors = nn.Parameter(torch.zeros(2)) if coder_size == size + 2 else None
        init_normal(self)
        init_prior(self.class_logits, prior_probability)
        others = [name for name in branches if name != "points"]
        self.says_points = "points" in branches
        self.branches = Branches(channels, self.per_cell, others, prior_probability=prior_probability)

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]``, deltas ``[B, P, D]`` and the branches."""
        boxes = [self.box_tower(x) for x in features]
        levels = [self._level(self.class_tower(x), box) for x, box in zip(features, boxes, strict=True)]
        logits, deltas, points = (flatten_levels(each, self.num_priors) for each in zip(*levels, strict=True))
        extra = self.branches(boxes)
        if self.of_points:
            deltas = self._with_factors(deltas)
        if self.says_points:
            extra["points"] = self._with_factors(points)
        return HeadOutput(logits, deltas, extra)

    def _level(self, classes: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, deltas and first points of a level, ``[B, per_cell * K, H, W]``."""
        batch, _, height, width = boxes.shape
        first = self.first_points(self.activation(self.first(boxes)))
        # Every prior of a cell has points of its own: they stand beside each other in the batch.
        points = first.reshape(batch * self.per_cell, -1, height, width)
        if self.per_cell > 1:
            classes, boxes = (x.repeat_interleave(self.per_cell, dim=0) for x in (classes, boxes))
        still = points.detach()
        offsets = self._offsets(still + self.through_taps * (points - still))
        logits = self.class_logits(self.activation(self.class_taps(classes, offsets)))
        deltas = self.box_deltas(self.activation(self.box_taps(boxes, offsets)))
        if self.of_points:
            deltas = deltas + still
        logits, deltas = (x.reshape(batch, -1, height, width) for x in (logits, deltas))
        return logits, deltas, first

    def _offsets(self, points: Tensor) -> Tensor:
        """Points, x and y in cells from the middle of a cell, as offsets of taps, y and x from where they would lie."""
        count, _, height, width = points.shape
        tap = torch.arange(self.side, dtype=points.dtype, device=points.device) - self.side // 2
        x, y = points.reshape(count, -1, 2, height, width).unbind(dim=2)  # [N, taps, H, W]
        y = y - tap.repeat_interleave(self.side)[:, None, None]
        x = x - tap.repeat(self.side)[:, None, None]
        return torch.stack([y, x], dim=2).reshape(count, -1, height, width)

    def _with_factors(self, points: Tensor) -> Tensor:
        if self.factors is None:
            return points
        still = self.factors.detach()
        factors = still + self.factor_rate * (self.factors - still)
        return torch.cat([points, factors.to(points.dtype).expand(*points.shape[:2], 2)], dim=-1)

    def reset_classes(self, num_classes: int) -> None:
        """A new layer of class logits for other classes; all else stays."""
        old = self.class_logits
        self.class_logits = nn.Conv2d(old.in_channels, num_classes, 1)
        init_normal(self.class_logits)
        init_prior(self.class_logits, self.prior_probability)
        self.class_logits.to(old.weight)

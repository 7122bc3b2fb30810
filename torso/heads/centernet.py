"""CenterNet's head (objects as points)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import nn

from torso.config import Role
from torso.heads.dense import Branches, HeadOutput, flatten_levels, one_for_all
from torso.nn.conv import init_normal
from torso.nn.init import init_prior
from torso.structures import Features


class CenterNet(nn.Module):
    """A 3x3 convolution and a 1x1 each for the heatmaps of classes, for where in its cell a centre is, and for sizes.

    Of the numbers that a box takes the first two come from the one branch, the others from the other.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level, all equal (wired).
        coder_size: numbers a box takes, 3 or more (wired).
        branches: what else the criterion asks for, made as sizes are (wired).
        channels: between the two layers; 64 with the paper's ResNets, 256 with DLA-34 and Hourglass.
        activation: between them.
        prior_probability: the score every class starts with.

    Source: Objects as Points, 2019, arXiv:1904.07850, section 5
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int = 4,
        branches: Sequence[str] = (),
        *,
        channels: int = 256,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
        prior_probability: float = 0.1,
    ):
        super().__init__()
        given, per_cell = one_for_all(in_channels, num_priors)
        self.num_priors, self.prior_probability = list(num_priors), prior_probability

        def tower() -> nn.Module:
            return nn.Sequential(nn.Conv2d(given, channels, 3, padding=1), activation())

        self.class_tower, self.offset_tower, self.size_tower = tower(), tower(), tower()
        self.class_logits = nn.Conv2d(channels, per_cell * num_classes, 1)
        self.offsets = nn.Conv2d(channels, per_cell * 2, 1)
        self.sizes = nn.Conv2d(channels, per_cell * (coder_size - 2), 1)
        init_normal(self)
        init_prior(self.class_logits, prior_probability)
        self.branches = Branches(channels, per_cell, branches, kernel=1)

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]``, raw box numbers ``[B, P, D]`` and the branches."""
        logits = [self.class_logits(self.class_tower(x)) for x in features]
        offsets = [self.offsets(self.offset_tower(x)) for x in features]
        seen = [self.size_tower(x) for x in features]
        sizes = [self.sizes(x) for x in seen]
        deltas = [flatten_levels(x, self.num_priors) for x in (offsets, sizes)]
        return HeadOutput(flatten_levels(logits, self.num_priors), torch.cat(deltas, dim=-1), self.branches(seen))

    def reset_classes(self, num_classes: int) -> None:
        """A new layer of class logits for other classes; all else stays."""
        old = self.class_logits
        self.class_logits = nn.Conv2d(old.in_channels, self.num_priors[0] * num_classes, 1)
        init_normal(self.class_logits)
        init_prior(self.class_logits, self.prior_probability)
        self.class_logits.to(old.weight)

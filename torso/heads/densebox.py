"""DenseBox's head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import nn

from torso.config import Role
from torso.heads.dense import Branches, HeadOutput, flatten_levels, one_for_all
from torso.nn.conv import init_normal
from torso.nn.init import init_prior
from torso.structures import Features


class DenseBox(nn.Module):
    """Two layers of 1x1 for classes and two for boxes, with dropout between them.

    The paper's classes are numbers that a squared loss pulls to 0 and 1; here, as in every head, they are logits, and
    what makes numbers of 0 to 1 of them is the loss's. Its branch of landmarks is no part of this head.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level, all equal (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for, made as the boxes are (wired).
        channels: between the two layers.
        dropout: share of their channels that is dropped while training, 0..1.
        activation: between the two layers; the paper has none there that it names.
        prior_probability: the score every class starts with.

    Source: DenseBox: Unifying Landmark Localization with End to End Object Detection, 2015, arXiv:1509.04874
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int = 4,
        branches: Sequence[str] = (),
        *,
        channels: int = 512,
        dropout: float = 0.5,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
        prior_probability: float = 0.01,
    ):
        super().__init__()
        given, per_cell = one_for_all(in_channels, num_priors)
        self.num_priors, self.prior_probability = list(num_priors), prior_probability
        self.class_tower = nn.Sequential(nn.Conv2d(given, channels, 1), activation(), nn.Dropout(dropout))
        self.box_tower = nn.Sequential(nn.Conv2d(given, channels, 1), activation(), nn.Dropout(dropout))
        self.class_logits = nn.Conv2d(channels, per_cell * num_classes, 1)
        self.box_deltas = nn.Conv2d(channels, per_cell * coder_size, 1)
        init_normal(self)
        init_prior(self.class_logits, prior_probability)
        self.branches = Branches(channels, per_cell, branches, kernel=1, prior_probability=prior_probability)

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]``, raw box numbers ``[B, P, D]`` and the branches."""
        logits = [self.class_logits(self.class_tower(x)) for x in features]
        boxes = [self.box_tower(x) for x in features]
        deltas = [self.box_deltas(x) for x in boxes]
        return HeadOutput(
            flatten_levels(logits, self.num_priors), flatten_levels(deltas, self.num_priors), self.branches(boxes)
        )

    def reset_classes(self, num_classes: int) -> None:
        """A new layer of class logits for other classes; all else stays."""
        old = self.class_logits
        self.class_logits = nn.Conv2d(old.in_channels, self.num_priors[0] * num_classes, 1)
        init_normal(self.class_logits)
        init_prior(self.class_logits, self.prior_probability)
        self.class_logits.to(old.weight)

"""The head of the region proposal network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import nn

from torso.config import Role
from torso.heads.dense import Branches, HeadOutput, flatten_levels, one_for_all
from torso.nn.conv import ConvNormAct, Layer, init_normal
from torso.nn.init import init_prior
from torso.structures import Features


class RPN(nn.Module):
    """3x3 convolutions shared by classes, boxes and levels, then a 1x1 for each of the two.

    With ``data.agnostic`` there is one class, and its score is the objectness of a proposal.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level, all equal (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for (wired).
        depth: 3x3 convolutions.
        norm: normalisation after each of them; none in the paper.
        activation: activation after each of them.
        prior_probability: the score every class starts with; 0.5 suits a loss on sampled priors.

    Source: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, 2015, arXiv:1506.01497
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int = 4,
        branches: Sequence[str] = (),
        *,
        depth: int = 1,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = None,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
        prior_probability: float = 0.5,
    ):
        super().__init__()
        channels, per_cell = one_for_all(in_channels, num_priors)
        self.num_priors = list(num_priors)
        self.prior_probability = prior_probability
        self.tower = nn.Sequential(
            *(ConvNormAct(channels, channels, norm=norm, activation=activation) for _ in range(depth))
        )
        self.class_logits = nn.Conv2d(channels, per_cell * num_classes, 1)
        self.box_deltas = nn.Conv2d(channels, per_cell * coder_size, 1)
        init_normal(self)
        init_prior(self.class_logits, prior_probability)
        self.branches = Branches(channels, per_cell, branches, kernel=1, prior_probability=prior_probability)

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]`` and deltas ``[B, P, D]``."""
        shared = [self.tower(x) for x in features]
        logits = flatten_levels([self.class_logits(x) for x in shared], self.num_priors)
        deltas = flatten_levels([self.box_deltas(x) for x in shared], self.num_priors)
        return HeadOutput(logits, deltas, self.branches(shared))

    def reset_classes(self, num_classes: int) -> None:
        """A new layer of class logits for other classes; the rest stays."""
        old = self.class_logits
        self.class_logits = nn.Conv2d(old.in_channels, self.num_priors[0] * num_classes, 1)
        init_normal(self.class_logits)
        init_prior(self.class_logits, self.prior_probability)
        self.class_logits.to(old.weight)

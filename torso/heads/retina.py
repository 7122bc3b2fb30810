"""RetinaNet's head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import nn

from torso.config import Role
from torso.heads.dense import Branches, HeadOutput, flatten_levels, one_for_all
from torso.nn.conv import ConvNormAct, Layer, init_normal
from torso.nn.init import init_prior
from torso.structures import Features


class Retina(nn.Module):
    """Two towers of 3x3 convolutions shared by all levels, one for classes, one for boxes.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level, all equal (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for, made of the box tower (wired).
        depth: convolutions in a tower.
        norm: normalisation in the towers; none in the paper.
        activation: activation in the towers.
        prior_probability: the score every class starts with, so that the many empty priors do not drown the first
            steps.

    Source: Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int = 4,
        branches: Sequence[str] = (),
        *,
        depth: int = 4,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = None,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
        prior_probability: float = 0.01,
    ):
        super().__init__()
        channels, per_cell = one_for_all(in_channels, num_priors)
        self.num_priors = list(num_priors)
        self.prior_probability = prior_probability
        self.class_tower = nn.Sequential(
            *(ConvNormAct(channels, channels, norm=norm, activation=activation) for _ in range(depth))
        )
        self.box_tower = nn.Sequential(
            *(ConvNormAct(channels, channels, norm=norm, activation=activation) for _ in range(depth))
        )
        self.class_logits = nn.Conv2d(channels, per_cell * num_classes, 3, padding=1)
        self.box_deltas = nn.Conv2d(channels, per_cell * coder_size, 3, padding=1)
        init_normal(self)
        init_prior(self.class_logits, prior_probability)
        self.branches = Branches(channels, per_cell, branches, prior_probability=prior_probability)

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]`` and deltas ``[B, P, D]``."""
        logits = [self.class_logits(self.class_tower(x)) for x in features]
        boxes = [self.box_tower(x) for x in features]
        deltas = [self.box_deltas(x) for x in boxes]
        return HeadOutput(
            flatten_levels(logits, self.num_priors), flatten_levels(deltas, self.num_priors), self.branches(boxes)
        )

    def reset_classes(self, num_classes: int) -> None:
        """A new layer of class logits for other classes; towers and boxes stay."""
        old = self.class_logits
        self.class_logits = nn.Conv2d(old.in_channels, self.num_priors[0] * num_classes, 3, padding=1)
        init_normal(self.class_logits)
        init_prior(self.class_logits, self.prior_probability)
        self.class_logits.to(old.weight)

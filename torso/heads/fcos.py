"""FCOS's head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from torch import nn

from torso.config import Role
from torso.heads.dense import Branches, HeadOutput, flatten_levels, one_for_all
from torso.nn.conv import ConvNormAct, Layer, init_normal
from torso.nn.init import init_prior
from torso.nn.norms import Group
from torso.structures import Features

GROUPS = partial(Group, group_channels=8)


class FCOS(nn.Module):
    """Two towers with group norm shared by all levels, for classes and boxes; box numbers times a scale of each level.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level, all equal (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for, such as centerness (wired).
        depth: convolutions in a tower.
        norm: normalisation in the towers: of groups of 8 channels, 32 groups of 256, as in the paper.
        activation: activation in the towers.
        scales: learn a factor of the raw box numbers on each level (the paper; torchvision has none).
        branches_on: the tower the branches are made of: ``"box"`` (the paper's second version, torchvision) or
            ``"class"`` (its first).
        prior_probability: the score every class starts with.

    Source: FCOS: Fully Convolutional One-Stage Object Detection, 2019, arXiv:1904.01355
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
        norm: Annotated[Layer | None, Role("norm", factory=True)] = GROUPS,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
        scales: bool = True,
        branches_on: Literal["box", "class"] = "box",
        prior_probability: float = 0.01,
    ):
        super().__init__()
        channels, per_cell = one_for_all(in_channels, num_priors)
        self.num_priors = list(num_priors)
        self.prior_probability, self.branches_on = prior_probability, branches_on
        # With a bias: unlike a norm of single channels, one of groups does not take it out again.
        conv = partial(ConvNormAct, channels, channels, norm=norm, activation=activation, bias=True)
        self.class_tower = nn.Sequential(*(conv() for _ in range(depth)))
        self.box_tower = nn.Sequential(*(conv() for _ in range(depth)))
        self.class_logits = nn.Conv2d(channels, per_cell * num_classes, 3, padding=1)
        self.box_deltas = nn.Conv2d(channels, per_cell * coder_size, 3, padding=1)
        init_normal(self)
        init_prior(self.class_logits, prior_probability)
        self.scales = nn.Parameter(torch.ones(len(in_channels))) if scales else None
        self.branches = Branches(channels, per_cell, branches, prior_probability=prior_probability)

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]``, raw box numbers ``[B, P, D]`` and the branches."""
        classes = [self.class_tower(x) for x in features]
        boxes = [self.box_tower(x) for x in features]
        logits = [self.class_logits(x) for x in classes]
        deltas = [self.box_deltas(x) for x in boxes]
        if self.scales is not None:
            deltas = [x * scale for x, scale in zip(deltas, self.scales.unbind(), strict=True)]
        return HeadOutput(
            flatten_levels(logits, self.num_priors),
            flatten_levels(deltas, self.num_priors),
            self.branches(boxes if self.branches_on == "box" else classes),
        )

    def reset_classes(self, num_classes: int) -> None:
        """A new layer of class logits for other classes; towers and boxes stay."""
        old = self.class_logits
        self.class_logits = nn.Conv2d(old.in_channels, self.num_priors[0] * num_classes, 3, padding=1)
        init_normal(self.class_logits)
        init_prior(self.class_logits, self.prior_probability)
        self.class_logits.to(old.weight)

"""A head with weights of its own on every level, so that the finest one learns nothing but small objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from torch import nn

from torso.config import Role
from torso.heads.dense import HeadOutput, joined_outputs
from torso.heads.retina import Retina
from torso.nn.conv import Layer
from torso.structures import Features


class SmallObjects(nn.Module):
    """One head a level, none shared: levels may differ in width, and large objects leave the finest level alone.

    Small objects want a fine level: strides 8, 16, 32 see most; ``model.backbone.levels=[2,3,4,5]`` adds one of stride
    4, at four times the cost of the next. What it gains is said by APs, APm and APl of every evaluation.

    Args:
        in_channels: channels of the levels (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for (wired).
        depth: convolutions in a tower.
        norm: normalisation in the towers.
        activation: activation in the towers.
        prior_probability: the score every class starts with.

    Source: YOLOv3: An Incremental Improvement, 2018, arXiv:1804.02767 (a head a scale); the towers are RetinaNet's.
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
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
        prior_probability: float = 0.01,
    ):
        super().__init__()
        self.num_priors = list(num_priors)
        options: dict[str, Any] = {"depth": depth, "norm": norm, "activation": activation}
        self.levels = nn.ModuleList(
            Retina(
                [channels], num_classes, [count], coder_size, branches, prior_probability=prior_probability, **options
            )
            for channels, count in zip(in_channels, num_priors, strict=True)
        )

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]`` and deltas ``[B, P, D]``, level after level."""
        return joined_outputs([head([x]) for head, x in zip(self.levels, features, strict=True)])

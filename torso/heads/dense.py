"""What all dense heads share: the form of their output, and the branches that say more than class and box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torso.nn.conv import init_normal
from torso.nn.init import init_prior

BRANCHES = {"objectness": 1, "centerness": 1, "iou": 1, "variance": 4}
"""What a criterion may ask of a head beside classes and boxes, and how many numbers a prior that is."""


class HeadOutput(NamedTuple):
    """Raw outputs of a dense head at P priors, level after level, row-major, the priors of a cell together."""

    logits: Tensor  # [B, P, C]
    deltas: Tensor  # [B, P, D]
    extra: dict[str, Tensor]  # the branches, see `torso.structures.DenseOutput`


class Branches(nn.ModuleDict):
    """The layers of the branches a criterion asks for, one convolution each on features that a head has made.

    Args:
        channels: of the features.
        num_priors: priors a cell.
        branches: names out of `BRANCHES`.
        kernel: side of the convolutions.
        prior_probability: the objectness every prior starts with.

    Raises:
        ValueError: a name that is not among them: what only some head of its own says, such as RepPoints' ``points``.
    """

    def __init__(
        self, channels: int, num_priors: int, branches: Sequence[str], kernel: int = 3, prior_probability: float = 0.01
    ):
        if unknown := [name for name in branches if name not in BRANCHES]:
            raise ValueError(f"the criterion asks for {', '.join(unknown)}, which this head does not say")
        super().__init__(
            {name: nn.Conv2d(channels, num_priors * BRANCHES[name], kernel, padding=kernel // 2) for name in branches}
        )
        self.num_priors = num_priors
        init_normal(self)
        if "objectness" in branches:
            init_prior(self["objectness"], prior_probability)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Features of all levels to ``[B, P]`` a branch (``[B, P, 4]`` for the variance)."""
        found = {}
        for name, layer in self.items():
            rows = flatten_levels([layer(x) for x in features], [self.num_priors] * len(features))
            found[name] = rows if BRANCHES[name] > 1 else rows.squeeze(-1)
        return found


def flatten_levels(levels: Sequence[Tensor], per_cell: Sequence[int]) -> Tensor:
    """Maps ``[B, per_cell[i] * K, H_i, W_i]`` of all levels as one ``[B, P, K]``.

    The channels of a map are ``per_cell`` groups of ``K``, as in torchvision's heads.
    """
    rows = []
    for level, count in zip(levels, per_cell, strict=True):
        batch, channels = level.shape[:2]
        # [B, A*K, H, W] -> [B, H, W, A*K] -> [B, H*W*A, K]; free of a copy when the map is channels-last.
        rows.append(level.permute(0, 2, 3, 1).reshape(batch, -1, channels // count))
    return torch.cat(rows, dim=1)


def joined_outputs(outputs: Sequence[HeadOutput]) -> HeadOutput:
    """The outputs of one level each as the output of all levels."""
    extra = {name: torch.cat([each.extra[name] for each in outputs], dim=1) for name in outputs[0].extra}
    return HeadOutput(
        torch.cat([each.logits for each in outputs], dim=1), torch.cat([each.deltas for each in outputs], dim=1), extra
    )


def one_for_all(in_channels: Sequence[int], num_priors: Sequence[int]) -> tuple[int, int]:
    """The channels and priors a cell of a head that all levels share.

    Raises:
        ValueError: levels differ.
    """
    if len(set(in_channels)) != 1:
        raise ValueError(
            f"a head shared by all levels needs equal channels, got {list(in_channels)}: use a neck that maps them"
        )
    if len(set(num_priors)) != 1:
        raise ValueError(
            f"a head shared by all levels needs equally many priors a cell, got {list(num_priors)}: use a head with "
            "weights of its own on every level, such as ssd"
        )
    return in_channels[0], num_priors[0]

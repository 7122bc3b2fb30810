"""ResNet by depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torso.backbones.timm import Timm


def resnet(
    depth: Literal[18, 34, 50, 101, 152] = 50,
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
) -> Timm:
    """ResNet of 18 to 152 layers; torchvision's and timm's weight files both fit.

    Args:
        depth: number of layers.
        levels: levels to return; level ``l`` (2 to 5) has stride ``2 ** l``.
        weights: path of a weight file, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes the stem and the first ``n`` stages.
        frozen_norm: keep every batch norm as it was loaded.

    Source: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385 (timm's implementation)
    """
    return Timm(f"resnet{depth}", levels, weights, frozen_stages, frozen_norm)

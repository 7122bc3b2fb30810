"""Normalisation layers, called with the number of channels: ``[B, C, H, W] -> [B, C, H, W]``."""

from __future__ import annotations

from torch import nn


class Group(nn.GroupNorm):
    """Group normalisation with groups of a fixed number of channels, so that one setting fits layers of any width.

    Args:
        num_features: channels (given by the layer that asks for the norm).
        group_channels: channels a group; the largest divisor of ``num_features`` not above it is taken.
        eps: added to the variance.

    Source: Group Normalization, 2018, arXiv:1803.08494 (16 channels a group)
    """

    def __init__(self, num_features: int, group_channels: int = 16, eps: float = 1e-5):
        size = next(size for size in range(min(group_channels, num_features), 0, -1) if num_features % size == 0)
        super().__init__(num_features // size, num_features, eps=eps)


NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "group": Group}

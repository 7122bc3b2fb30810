"""The classification head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from torso.structures import Features


class Classify(nn.Module):
    """Global average pooling of the last level, dropout, one linear layer: ``[B, C]`` logits.

    Args:
        in_channels: channels of the levels (wired); the last is used.
        num_classes: classes C (wired).
        dropout: rate before the linear layer.

    Source: Network In Network, 2013, arXiv:1312.4400 (timm's ``ClassifierHead``)
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_channels[-1], num_classes)

    def forward(self, features: Features) -> Tensor:
        """Features to logits ``[B, C]``."""
        pooled = features[-1].mean(dim=(2, 3))
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits

    def reset_classes(self, num_classes: int) -> None:
        """A new layer for other classes."""
        self.linear = nn.Linear(self.linear.in_features, num_classes).to(self.linear.weight)

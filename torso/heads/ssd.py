"""SSD's head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from torso.heads.dense import Branches, HeadOutput, flatten_levels, joined_outputs
from torso.nn.init import init_prior, init_weights
from torso.structures import Features


class SSD(nn.Module):
    """One 3x3 convolution for classes and one for boxes on every level, each with weights of its own.

    Levels may differ in channels and in priors a cell.

    Args:
        in_channels: channels of the levels (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for (wired).
        kernel: side of the convolutions.
        prior_probability: the score every class starts with, for losses of one class against the rest; equal logits,
            as a softmax wants them, when None.

    Source: SSD: Single Shot MultiBox Detector, 2015, arXiv:1512.02325
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int = 4,
        branches: Sequence[str] = (),
        *,
        kernel: int = 3,
        prior_probability: float | None = None,
    ):
        super().__init__()
        self.num_priors, self.kernel = list(num_priors), kernel
        self.prior_probability = prior_probability
        levels = list(zip(in_channels, num_priors, strict=True))
        self.class_logits = nn.ModuleList(self._logits(channels, count * num_classes) for channels, count in levels)
        self.box_deltas = nn.ModuleList(
            nn.Conv2d(channels, count * coder_size, kernel, padding=kernel // 2) for channels, count in levels
        )
        init_weights(self.box_deltas, "xavier")
        probability = 0.01 if prior_probability is None else prior_probability
        self.branches = nn.ModuleList(
            Branches(channels, count, branches, kernel, probability) for channels, count in levels
        )

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]`` and deltas ``[B, P, D]``."""
        levels = []
        for level, (x, count) in enumerate(zip(features, self.num_priors, strict=True)):
            logits = flatten_levels([self.class_logits[level](x)], [count])
            deltas = flatten_levels([self.box_deltas[level](x)], [count])
            levels.append(HeadOutput(logits, deltas, self.branches[level]([x])))
        return joined_outputs(levels)

    def reset_classes(self, num_classes: int) -> None:
        """New layers of class logits for other classes; boxes stay."""
        for level, count in enumerate(self.num_priors):
            old = self.class_logits[level]
            assert isinstance(old, nn.Conv2d)
            self.class_logits[level] = self._logits(old.in_channels, count * num_classes).to(old.weight)

    def _logits(self, in_channels: int, channels: int) -> nn.Conv2d:
        layer = nn.Conv2d(in_channels, channels, self.kernel, padding=self.kernel // 2)
        init_weights(layer, "xavier")
        if self.prior_probability is not None:
            init_prior(layer, self.prior_probability)
        return layer

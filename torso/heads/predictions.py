"""The last layers of heads whose levels have weights of their own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from torso.heads.dense import Branches, HeadOutput, flatten_levels, joined_outputs
from torso.nn.conv import init_normal
from torso.nn.init import init_prior
from torso.structures import Features


class Predictions(nn.Module):
    """On each level one 1x1 convolution for classes, one for boxes, and one a branch.

    One convolution for all of it, as in Darknet's files, is the same numbers of the same weights; apart, the classes
    can be replaced.

    Args:
        in_channels: channels of each level.
        num_classes: logits a prior C.
        num_priors: priors a cell of each level.
        coder_size: numbers a box takes.
        branches: what else is said, made of the features of boxes.
        prior_probability: the score every class, and the objectness, starts with.

    Raises:
        ValueError: not as many numbers of priors as levels.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int,
        branches: Sequence[str],
        prior_probability: float = 0.01,
    ):
        super().__init__()
        self.num_priors, self.prior_probability = list(num_priors), prior_probability
        self.class_logits, self.box_deltas, self.branches = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for channels, count in zip(in_channels, num_priors, strict=True):
            self.class_logits.append(self._classes(channels, count * num_classes))
            self.box_deltas.append(nn.Conv2d(channels, count * coder_size, 1))
            self.branches.append(Branches(channels, count, branches, 1, prior_probability))
        init_normal(self.box_deltas)

    def forward(self, of_classes: Features, of_boxes: Features) -> HeadOutput:
        """Features for classes, and those for boxes and branches, to what is said at every prior."""
        outputs = []
        for level, (x, y) in enumerate(zip(of_classes, of_boxes, strict=True)):
            count = [self.num_priors[level]]
            logits = flatten_levels([self.class_logits[level](x)], count)
            deltas = flatten_levels([self.box_deltas[level](y)], count)
            outputs.append(HeadOutput(logits, deltas, self.branches[level]([y])))
        return joined_outputs(outputs)

    def reset_classes(self, num_classes: int) -> None:
        """New layers of class logits for other classes; all else stays."""
        for level, count in enumerate(self.num_priors):
            old = self.class_logits[level]
            assert isinstance(old, nn.Conv2d)
            self.class_logits[level] = self._classes(old.in_channels, count * num_classes).to(old.weight)

    def _classes(self, channels: int, count: int) -> nn.Conv2d:
        layer = nn.Conv2d(channels, count, 1)
        init_normal(layer)
        init_prior(layer, self.prior_probability)
        return layer

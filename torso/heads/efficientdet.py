"""EfficientDet's head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from torch import nn

from torso.config import Role
from torso.heads.dense import Branches, HeadOutput, flatten_levels, one_for_all
from torso.nn.conv import Layer, init_normal
from torso.nn.init import init_prior, init_weights
from torso.structures import Features

NORM = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


class EfficientDet(nn.Module):
    """Two towers of separable convolutions that all levels share, with norms that every level has for itself.

    Args:
        in_channels: channels of the levels, all equal (wired).
        num_classes: logits a prior C (wired).
        num_priors: priors a cell of each level, all equal (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for, made of the box tower (wired).
        depth: convolutions in a tower (EfficientDet-D0 to D7: 3 3 3 4 4 4 5 5).
        separable: depthwise 3x3, then 1x1; False for full 3x3 convolutions.
        norm: normalisation after each convolution of a tower; the authors' batch norm.
        activation: activation in the towers.
        prior_probability: the score every class starts with.

    Source: EfficientDet: Scalable and Efficient Object Detection, 2019, arXiv:1911.09070
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int = 4,
        branches: Sequence[str] = (),
        *,
        depth: int = 3,
        separable: bool = True,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = NORM,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.SiLU,
        prior_probability: float = 0.01,
    ):
        super().__init__()
        channels, per_cell = one_for_all(in_channels, num_priors)
        self.num_priors = list(num_priors)
        self.prior_probability = prior_probability
        tower = partial(
            Tower, channels, depth, levels=len(in_channels), separable=separable, norm=norm, activation=activation
        )
        self.class_tower, self.box_tower = tower(), tower()
        # What a separable convolution does first is the same for any number of classes.
        self.class_depthwise = depthwise(channels) if separable else nn.Identity()
        kernel = 1 if separable else 3
        self.class_logits = nn.Conv2d(channels, per_cell * num_classes, kernel, padding=kernel // 2)
        last = nn.Conv2d(channels, per_cell * coder_size, kernel, padding=kernel // 2)
        self.box_deltas = nn.Sequential(depthwise(channels), last) if separable else nn.Sequential(last)
        for layer in (self.class_depthwise, self.box_deltas, self.class_tower, self.box_tower):
            init_weights(layer, "truncated")
        init_normal(self.class_logits)
        init_prior(self.class_logits, prior_probability)
        self.branches = Branches(channels, per_cell, branches, prior_probability=prior_probability)

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]`` and deltas ``[B, P, D]``."""
        logits = [self.class_logits(self.class_depthwise(x)) for x in self.class_tower(features)]
        boxes = self.box_tower(features)
        deltas = [self.box_deltas(x) for x in boxes]
        return HeadOutput(
            flatten_levels(logits, self.num_priors), flatten_levels(deltas, self.num_priors), self.branches(boxes)
        )

    def reset_classes(self, num_classes: int) -> None:
        """A new layer of class logits for other classes; the rest stays."""
        old = self.class_logits
        count = self.num_priors[0] * num_classes
        self.class_logits = nn.Conv2d(old.in_channels, count, old.kernel_size, padding=old.padding)  # type: ignore[arg-type]
        init_normal(self.class_logits)
        init_prior(self.class_logits, self.prior_probability)
        self.class_logits.to(old.weight)


class Tower(nn.Module):
    """Convolutions of all levels, each followed by the norm of the level and the activation.

    Args:
        channels: that come in and go out.
        depth: convolutions.
        levels: how many levels share them.
        separable: depthwise 3x3, then 1x1.
        norm: makes the norms.
        activation: makes the activation.
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        *,
        levels: int,
        separable: bool,
        norm: Layer | None,
        activation: Callable[[], nn.Module],
    ):
        super().__init__()
        bias = norm is None
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for _ in range(depth):
            if separable:
                self.convs.append(nn.Sequential(depthwise(channels), nn.Conv2d(channels, channels, 1, bias=bias)))
            else:
                self.convs.append(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=bias)))
            self.norms.append(nn.ModuleList(nn.Identity() if norm is None else norm(channels) for _ in range(levels)))
        self.activation = activation()

    def forward(self, features: Features) -> Features:
        """``[B, channels, H, W]`` a level to the same."""
        levels = list(features)
        for conv, norms in zip(self.convs, self.norms, strict=True):
            assert isinstance(norms, nn.ModuleList)
            levels = [self.activation(norm(conv(x))) for x, norm in zip(levels, norms, strict=True)]
        return levels


def depthwise(channels: int) -> nn.Conv2d:
    """A 3x3 convolution of every channel by itself."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)

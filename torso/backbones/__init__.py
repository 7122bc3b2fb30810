"""Backbones: pictures to features.

Contract: called with normalised pictures ``[B, 3, H, W]``; returns ``Features``, one ``[B, channels[i], H / strides[i],
W / strides[i]]`` a level (rounded up), finest first. ``channels`` and ``strides`` tell the truth about them, ``mean``
and ``std`` how the pictures should be normalised (0..1 units). `torso.testing.check_backbone` checks all of it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from torso.backbones.resnet import resnet
from torso.backbones.timm import Timm, TimmTrunk
from torso.backbones.tiny import Tiny

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "timm": Timm,
    "timm_trunk": TimmTrunk,
    "resnet": resnet,
    "tiny": Tiny,
}

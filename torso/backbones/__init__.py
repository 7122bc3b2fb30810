"""Backbones: pictures to features.

Contract: called with normalised pictures ``[B, 3, H, W]``; returns ``Features``, one ``[B, channels[i], H / strides[i],
W / strides[i]]`` a level (rounded up), finest first. ``channels`` and ``strides`` tell the truth about them, ``mean``
and ``std`` how the pictures should be normalised (0..1 units). `torso.testing.check_backbone` checks all of it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from torso.backbones.darknet import Darknet19
from torso.backbones.detnas import DetNAS
from torso.backbones.detnet import DetNet59
from torso.backbones.grid import Grid
from torso.backbones.hourglass import Hourglass
from torso.backbones.resnet import resnet
from torso.backbones.shufflenet import ShuffleNetV1
from torso.backbones.spinenet import SpineNet
from torso.backbones.timm import Timm, TimmTrunk
from torso.backbones.tiny import Tiny

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "timm": Timm,
    "timm_trunk": TimmTrunk,
    "resnet": resnet,
    "tiny": Tiny,
    "darknet19": Darknet19,
    "detnas": DetNAS,
    "detnet59": DetNet59,
    "grid": Grid,
    "hourglass": Hourglass,
    "shufflenet_v1": ShuffleNetV1,
    "spinenet": SpineNet,
}

"""Backbones: pictures to features.

Contract: called with normalised pictures ``[B, 3, H, W]``; returns ``Features``, one ``[B, channels[i], H / strides[i],
W / strides[i]]`` a level (rounded up), finest first. ``channels`` and ``strides`` tell the truth about them, ``mean``
and ``std`` how the pictures should be normalised (0..1 units). `torso.testing.check_backbone` checks all of it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from torso.backbones.csp_darknet import CSPDarknet
from torso.backbones.darknet import Darknet19
from torso.backbones.detnas import DetNAS
from torso.backbones.detnet import DetNet59
from torso.backbones.extraction import Extraction
from torso.backbones.families import cspdarknet53, cspresnext50, darknet53, densenet, hrnet, vgg
from torso.backbones.grid import Grid
from torso.backbones.hourglass import Hourglass
from torso.backbones.mobile import efficientnet, efficientnetv2, mobilenetv1, mobilenetv2, xception
from torso.backbones.pixels import Pixels
from torso.backbones.resnet import resnet, resnext, senet, sknet
from torso.backbones.shufflenet import ShuffleNetV1
from torso.backbones.spinenet import SpineNet
from torso.backbones.ssd_vgg import SSDVGG
from torso.backbones.swin import swin
from torso.backbones.timm import Timm, TimmTrunk
from torso.backbones.tiny import Tiny
from torso.backbones.torchvision import alexnet, shufflenet_v2, squeezenet
from torso.backbones.vit import ViT

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "timm": Timm,
    "timm_trunk": TimmTrunk,
    "resnet": resnet,
    "tiny": Tiny,
    "csp_darknet": CSPDarknet,
    "darknet19": Darknet19,
    "detnas": DetNAS,
    "detnet59": DetNet59,
    "extraction": Extraction,
    "grid": Grid,
    "hourglass": Hourglass,
    "shufflenet_v1": ShuffleNetV1,
    "spinenet": SpineNet,
    "alexnet": alexnet,
    "cspdarknet53": cspdarknet53,
    "cspresnext50": cspresnext50,
    "darknet53": darknet53,
    "densenet": densenet,
    "efficientnet": efficientnet,
    "efficientnetv2": efficientnetv2,
    "hrnet": hrnet,
    "mobilenetv1": mobilenetv1,
    "mobilenetv2": mobilenetv2,
    "pixels": Pixels,
    "resnext": resnext,
    "senet": senet,
    "shufflenet_v2": shufflenet_v2,
    "sknet": sknet,
    "squeezenet": squeezenet,
    "ssd_vgg": SSDVGG,
    "swin": swin,
    "vgg": vgg,
    "vit": ViT,
    "xception": xception,
}

"""Blocks beside torchvision's and timm's.

``PAIRS``: name -> (ours, theirs, inputs), for ``parts.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torso.nn.conv import ConvNormAct
from torso.nn.csp import CSP
from torso.nn.inverted import fused_mbconv, inverted_residual, mbconv
from torso.nn.residual import Residual, basic_block, bottleneck

Pair = tuple[Callable[[], nn.Module], Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]


def maps(channels: int, side: int) -> Callable[[], tuple[Any, ...]]:
    return lambda: (torch.randn(8, channels, side, side),)


def their_unit() -> nn.Module:
    from timm.layers import ConvNormAct as Unit

    return Unit(64, 64, 3)


def their_basic() -> nn.Module:
    from torchvision.models.resnet import BasicBlock

    return BasicBlock(64, 64)


def their_bottleneck() -> nn.Module:
    from torchvision.models.resnet import Bottleneck

    return Bottleneck(256, 64)


def their_resnext() -> nn.Module:
    from torchvision.models.resnet import Bottleneck

    return Bottleneck(256, 64, groups=32, base_width=4)


def their_inverted() -> nn.Module:
    from torchvision.models.mobilenetv2 import InvertedResidual

    return InvertedResidual(32, 32, 1, 6)


def their_mbconv() -> nn.Module:
    from torchvision.models.efficientnet import MBConv, MBConvConfig

    return MBConv(MBConvConfig(6, 3, 1, 40, 40, 1), 0.0, nn.BatchNorm2d)


def their_fused() -> nn.Module:
    from torchvision.models.efficientnet import FusedMBConv, FusedMBConvConfig

    return FusedMBConv(FusedMBConvConfig(4, 3, 1, 48, 48, 1), 0.0, nn.BatchNorm2d)


def dark(width: int) -> nn.Module:
    """Two blocks of Darknet-53."""
    paths = (nn.Sequential(ConvNormAct(width, width // 2, 1), ConvNormAct(width // 2, width)) for _ in range(2))
    return nn.Sequential(*(Residual(path) for path in paths))


def csp() -> nn.Module:
    return nn.Sequential(ConvNormAct(64, 64, 3, 2), CSP(64, 128, dark))


def their_csp() -> nn.Module:
    from timm.models.cspnet import CrossStage, DarkBlock

    layers = {"act_layer": nn.ReLU, "norm_layer": nn.BatchNorm2d, "block_fn": DarkBlock}
    return CrossStage(64, 128, 2, 1, 2, block_ratio=0.5, bottle_ratio=0.5, **layers)


PAIRS: dict[str, Pair] = {
    "block/conv_norm_act": (lambda: ConvNormAct(64, 64), their_unit, maps(64, 56)),
    "block/basic": (lambda: basic_block(64, 64), their_basic, maps(64, 56)),
    "block/bottleneck": (lambda: bottleneck(256, 256), their_bottleneck, maps(256, 56)),
    "block/resnext": (lambda: bottleneck(256, 256, width=128, groups=32), their_resnext, maps(256, 56)),
    "block/inverted_residual": (lambda: inverted_residual(32, 32), their_inverted, maps(32, 28)),
    "block/mbconv": (lambda: mbconv(40, 40), their_mbconv, maps(40, 28)),
    "block/fused_mbconv": (lambda: fused_mbconv(48, 48), their_fused, maps(48, 28)),
    "skip/csp": (csp, their_csp, maps(64, 56)),
}

"""Necks beside their closest library parts.

``PAIRS``: name -> (ours, theirs, inputs), for ``parts.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

Inputs = tuple[list[Tensor]]
Pair = tuple[Callable[[], nn.Module], Callable[[], nn.Module], Callable[[], Inputs]]

STRIDES, LITE, RESNET = [8, 16, 32], [40, 112, 320], [512, 1024, 2048]


class TheirFPN(nn.Module):
    """torchvision's, called with a list."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelP6P7

        self.neck = FeaturePyramidNetwork(RESNET, 256, extra_blocks=LastLevelP6P7(256, 256))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Levels in, levels out."""
        return list(self.neck(OrderedDict(zip("345", features, strict=True))).values())


class TheirBiFPN(nn.Module):
    """effdet's for EfficientDet-D0, which changes the list that it gets."""

    def __init__(self) -> None:
        super().__init__()
        from effdet.config import get_efficientdet_config
        from effdet.efficientdet import BiFpn

        info = [{"num_chs": c, "reduction": s} for c, s in zip(LITE, STRIDES, strict=True)]
        self.neck = BiFpn(get_efficientdet_config("efficientdet_d0"), info)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Levels in, levels out."""
        return self.neck(list(features))


class TheirSPP(nn.Module):
    """timm's bottleneck on the last level."""

    def __init__(self) -> None:
        super().__init__()
        from timm.models.cspnext import SPPBottleneck

        self.block = SPPBottleneck(RESNET[-1], RESNET[-1])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Levels in, levels out."""
        return [*features[:-1], self.block(features[-1])]


def our_fpn() -> nn.Module:
    from torso.necks import FPN

    return FPN(RESNET, STRIDES)


def our_bifpn() -> nn.Module:
    from torso.necks import BiFPN

    return BiFPN(LITE, STRIDES)


def our_spp() -> nn.Module:
    from torso.necks import SPP

    return SPP(RESNET, STRIDES, activation=nn.SiLU)


def levels(channels: list[int], side: int) -> Callable[[], Inputs]:
    return lambda: ([torch.randn(2, c, side // s, side // s) for c, s in zip(channels, STRIDES, strict=True)],)


PAIRS: dict[str, Pair] = {
    "neck/fpn": (our_fpn, TheirFPN, levels(RESNET, 320)),
    "neck/bifpn": (our_bifpn, TheirBiFPN, levels(LITE, 512)),
    "neck/spp": (our_spp, TheirSPP, levels(RESNET, 512)),
}

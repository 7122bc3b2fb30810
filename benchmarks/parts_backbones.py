"""Backbones written here and the library's closest: name -> ours, theirs, inputs, for the bench of parts.

Where no library has the network, what it shares with one that a library has is compared: DetNet's first stages are
ResNet-50's, DetNAS's plain block is ShuffleNetV2's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from torso.backbones.detnas import ShuffleBlock
from torso.backbones.detnet import DetNet59

Inputs = tuple[Tensor, ...]


def resnet50_to_stride_16() -> nn.Module:
    """torchvision's, with the levels that DetNet returns."""
    from torchvision.models import resnet50
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(resnet50(weights=None), ["layer1", "layer2", "layer3"])


def shufflenet_v2_stage() -> nn.Module:
    """The block of torchvision, shuffling after, four in a row."""
    from torchvision.models.shufflenetv2 import InvertedResidual

    return nn.Sequential(*(InvertedResidual(160, 160, 1) for _ in range(4)))


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "backbone/detnet59": (
        lambda: DetNet59(levels=(2, 3, 4), stride_in_1x1=False),
        resnet50_to_stride_16,
        lambda: (torch.randn(2, 3, 224, 224),),
    ),
    "backbone/detnas": (
        lambda: nn.Sequential(*(ShuffleBlock(160, 160, 1, 0) for _ in range(4))),
        shufflenet_v2_stage,
        lambda: (torch.randn(8, 160, 40, 40),),
    ),
}

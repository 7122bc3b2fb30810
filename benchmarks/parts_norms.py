"""Norms and drops against their closest library parts: name -> (ours, theirs, inputs), for `parts.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import DropPath as TimmDropPath
from timm.layers import FilterResponseNormTlu2d, LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import DropBlock2d, FrozenBatchNorm2d

from torso.nn.cross_norm import CrossIteration
from torso.nn.drop import DropBlock, DropPath
from torso.nn.frozen import Frozen
from torso.nn.norms import FilterResponse, Group, Layer


def maps() -> tuple[Tensor, ...]:
    """Stage 3 of a ResNet at 320 px, with gradient."""
    return (torch.randn(8, 256, 20, 20, requires_grad=True),)


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "norm/frn": (lambda: FilterResponse(256), lambda: FilterResponseNormTlu2d(256), maps),
    "norm/group": (lambda: Group(256), lambda: nn.GroupNorm(16, 256), maps),
    "norm/layer": (lambda: Layer(256), lambda: LayerNorm2d(256), maps),
    "norm/frozen": (lambda: Frozen(256), lambda: FrozenBatchNorm2d(256), maps),
    "norm/cbn (one iteration)": (lambda: CrossIteration(256, 1), lambda: nn.BatchNorm2d(256), maps),
    "drop/block": (lambda: DropBlock(0.1, 7), lambda: DropBlock2d(0.1, 7), maps),
    "drop/path": (lambda: DropPath(0.1), lambda: TimmDropPath(0.1), maps),
}

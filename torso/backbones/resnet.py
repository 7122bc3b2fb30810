"""ResNet and its relatives: grouped convolutions, squeeze-and-excitation, selective kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torso.backbones.timm import Timm


def resnet(
    depth: Literal[18, 34, 50, 101, 152] = 50,
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
    output_stride: Literal[8, 16, 32] = 32,
) -> Timm:
    """ResNet of 18 to 152 layers; torchvision's and timm's weight files both fit.

    Args:
        depth: number of layers.
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l``.
        weights: path of a weight file, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes the stem and the first ``n`` stages.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth.
        output_stride: 8 or 16 puts dilation in the place of strides: level ``l`` has stride
            ``min(2 ** l, output_stride)``.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385 (timm's implementation)
    """
    return Timm(f"resnet{depth}", levels, weights, frozen_stages, frozen_norm, drop_path, output_stride)


def resnext(
    variant: Literal["50_32x4d", "101_32x4d", "101_32x8d", "101_64x4d"] = "50_32x4d",
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
    output_stride: Literal[8, 16, 32] = 32,
) -> Timm:
    """ResNeXt: ResNet whose 3x3 convolutions have groups; torchvision's and timm's weight files both fit.

    Args:
        variant: layers, groups and channels a group of the first stage.
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l``.
        weights: path of a weight file, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes the stem and the first ``n`` stages.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth.
        output_stride: 8 or 16 puts dilation in the place of strides: level ``l`` has stride
            ``min(2 ** l, output_stride)``.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431 (timm's implementation)
    """
    return Timm(f"resnext{variant}", levels, weights, frozen_stages, frozen_norm, drop_path, output_stride)


def senet(
    depth: Literal[18, 34, 50, 101, 152, 154] = 50,
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
    output_stride: Literal[8, 16, 32] = 32,
) -> Timm:
    """SE-ResNet of 18 to 152 layers and SENet-154: every block weighs its channels by their means over the picture.

    Args:
        depth: number of layers; 154 is the network that won ImageNet in 2017 (timm's ``legacy_senet154``).
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l``.
        weights: path of a weight file of timm's model (``seresnet50``, ...), or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes the stem and the first ``n`` stages.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth; depth 154 has none.
        output_stride: 8 or 16 puts dilation in the place of strides: level ``l`` has stride
            ``min(2 ** l, output_stride)``; depth 154 has none.

    Raises:
        ModelError: a level or an option it does not have, stages that cannot be frozen, weights that do not fit.

    Source: Squeeze-and-Excitation Networks, 2017, arXiv:1709.01507 (timm's implementation)
    """
    model = "legacy_senet154" if depth == 154 else f"seresnet{depth}"
    return Timm(model, levels, weights, frozen_stages, frozen_norm, drop_path, output_stride)


def sknet(
    variant: Literal["18", "34", "50", "50_32x4d"] = "50_32x4d",
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
) -> Timm:
    """SKNet: blocks that choose, channel by channel, between two kernel sizes.

    Args:
        variant: ``"50_32x4d"`` is the paper's SKNet-50 on ResNeXt (27.5 M parameters); the others are selective kernels
            in ResNets.
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l``.
        weights: path of a weight file of timm's model (``skresnext50_32x4d``, ``skresnet18``, ...), or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes the stem and the first ``n`` stages.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: Selective Kernel Networks, 2019, arXiv:1903.06586 (timm's implementation)
    """
    model = "skresnext50_32x4d" if variant == "50_32x4d" else f"skresnet{variant}"
    return Timm(model, levels, weights, frozen_stages, frozen_norm, drop_path)

"""Families of depthwise separable convolutions: MobileNet, EfficientNet, Xception."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torso.backbones.timm import Timm


def mobilenetv1(
    width: Literal[100, 125] = 100,
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
    output_stride: Literal[8, 16, 32] = 32,
) -> Timm:
    """MobileNet V1: 13 depthwise separable convolutions.

    Args:
        width: channels in percent of the paper's.
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l``.
        weights: path of a weight file of timm's ``mobilenetv1_100`` or ``_125``, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth.
        output_stride: 8 or 16 puts dilation in the place of strides: level ``l`` has stride
            ``min(2 ** l, output_stride)``.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017, arXiv:1704.04861
        (timm's implementation)
    """
    return Timm(f"mobilenetv1_{width}", levels, weights, frozen_stages, frozen_norm, drop_path, output_stride)


def mobilenetv2(
    width: Literal[35, 50, 75, 100, 140] = 100,
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
    output_stride: Literal[8, 16, 32] = 32,
) -> Timm:
    """MobileNet V2: inverted residuals with linear bottlenecks; level 5 has 320 channels at width 100.

    Args:
        width: channels in percent of the paper's.
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l`` and is the bottleneck a stage ends with.
        weights: path of a weight file of timm's ``mobilenetv2_100`` (``_035``, ...), or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth.
        output_stride: 8 or 16 puts dilation in the place of strides: level ``l`` has stride
            ``min(2 ** l, output_stride)``.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, arXiv:1801.04381 (timm's implementation)
    """
    return Timm(f"mobilenetv2_{width:03d}", levels, weights, frozen_stages, frozen_norm, drop_path, output_stride)


def efficientnet(
    size: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"] = "b0",
    padding: Literal["symmetric", "tensorflow"] = "symmetric",
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
    output_stride: Literal[8, 16, 32] = 32,
) -> Timm:
    """EfficientNet B0 to B7: depth, width and resolution scaled together.

    Args:
        size: ``b0`` (5.289 M parameters with its classifier) to ``b7`` (66.348 M).
        padding: ``"tensorflow"`` pads strided convolutions more at the right and the bottom, and takes the epsilon of
            norms from there: what the authors' weights (timm's ``tf_efficientnet_b0``) were trained with.
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l``.
        weights: path of a weight file of timm's ``efficientnet_b0`` (or ``tf_efficientnet_b0``, ...), or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth; the paper's is 0.2.
        output_stride: 8 or 16 puts dilation in the place of strides: level ``l`` has stride
            ``min(2 ** l, output_stride)``.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019, arXiv:1905.11946 (timm's
        implementation)
    """
    model = f"{'tf_' * (padding == 'tensorflow')}efficientnet_{size}"
    return Timm(model, levels, weights, frozen_stages, frozen_norm, drop_path, output_stride)


def efficientnetv2(
    size: Literal["s", "m", "l"] = "s",
    padding: Literal["symmetric", "tensorflow"] = "symmetric",
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
    output_stride: Literal[8, 16, 32] = 32,
) -> Timm:
    """EfficientNet V2 in three sizes: plain convolutions in the first stages, depthwise ones above.

    Args:
        size: ``s`` (21.458 M parameters with its classifier), ``m`` (54.139 M) or ``l`` (118.515 M).
        padding: ``"tensorflow"`` pads strided convolutions more at the right and the bottom, and takes the epsilon of
            norms from there: what the authors' weights (timm's ``tf_efficientnetv2_s``) were trained with.
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l``.
        weights: path of a weight file of timm's ``efficientnetv2_s`` (or ``tf_efficientnetv2_s``, ...), or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth; the paper's is 0.2.
        output_stride: 8 or 16 puts dilation in the place of strides: level ``l`` has stride
            ``min(2 ** l, output_stride)``.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: EfficientNetV2: Smaller Models and Faster Training, 2021, arXiv:2104.00298 (timm's implementation)
    """
    model = f"{'tf_' * (padding == 'tensorflow')}efficientnetv2_{size}"
    return Timm(model, levels, weights, frozen_stages, frozen_norm, drop_path, output_stride)


def xception(
    depth: Literal[41, 65, 71] = 65,
    levels: Sequence[int] = (2, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
    output_stride: Literal[8, 16, 32] = 16,
) -> Timm:
    """Modified aligned Xception, the backbone of DeepLab v3+: separable convolutions instead of poolings.

    Args:
        depth: number of layers.
        levels: levels to return. Levels 1 to 4 lie inside the block that halves them next, before its strided
            convolution (DeepLab v3+ takes its low-level features there: level 2, 256 channels); 5 ends the network.
        weights: path of a weight file of timm's ``xception41``, ``xception65`` or ``xception71``, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``, and the shortcut past it.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth.
        output_stride: 8 or 16 puts dilation in the place of strides: level ``l`` has stride
            ``min(2 ** l, output_stride)``.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: Xception: Deep Learning with Depthwise Separable Convolutions, 2016, arXiv:1610.02357, modified as in
        DeepLab v3+, arXiv:1802.02611 (timm's implementation)
    """
    options: dict[str, bool | int | float | str] = {"feature_cls": "getter"}  # nothing of a block beyond its level
    return Timm(f"xception{depth}", levels, weights, frozen_stages, frozen_norm, drop_path, output_stride, options)

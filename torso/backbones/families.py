"""Convolutional families by their own arguments: each is one of timm's models in the adapter `Timm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torso.backbones.timm import Timm


def vgg(
    depth: Literal[11, 13, 16, 19] = 16,
    batch_norm: bool = False,
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
) -> Timm:
    """VGG of 11 to 19 layers, its fully connected ones left out; torchvision's and timm's weight files both fit.

    Args:
        depth: number of layers.
        batch_norm: a batch norm after every convolution.
        levels: levels to return; level ``l`` (0 to 4) is what the last convolution before pooling ``l + 1`` gives,
            level 5 the last pooling. SSD looks at level 3.
        weights: path of a weight file, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.
        frozen_norm: keep every batch norm as it was loaded.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014, arXiv:1409.1556 (timm's
        implementation)
    """
    # timm draws the fully connected layers before it leaves them out: 100 M numbers, unless they are narrow.
    options: dict[str, bool | int | float | str] = {"mlp_ratio": 2**-12}
    return Timm(f"vgg{depth}{'_bn' * batch_norm}", levels, weights, frozen_stages, frozen_norm, options=options)


def densenet(
    depth: Literal[121, 161, 169, 201] = 121,
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
) -> Timm:
    """DenseNet of 121 to 201 layers; the files of timm and (of recent) torchvision both fit.

    Args:
        depth: number of layers.
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l`` and ends with a dense block, before the
            transition halves channels and size.
        weights: path of a weight file, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.
        frozen_norm: keep every batch norm as it was loaded.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: Densely Connected Convolutional Networks, 2016, arXiv:1608.06993 (timm's implementation)
    """
    return Timm(f"densenet{depth}", levels, weights, frozen_stages, frozen_norm)


def darknet53(
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
) -> Timm:
    """Darknet-53, the backbone of YOLOv3: 52 convolutions with residuals, 40.585 M parameters.

    Args:
        levels: levels to return; level ``l`` (0 to 5) has stride ``2 ** l``.
        weights: path of a weight file of timm's ``darknet53``, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: YOLOv3: An Incremental Improvement, 2018, arXiv:1804.02767 (timm's implementation)
    """
    return Timm("darknet53", levels, weights, frozen_stages, frozen_norm, drop_path)


def cspdarknet53(
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
) -> Timm:
    """CSPDarknet-53 as in YOLOv4 (26.617 M parameters); the one of YOLOX and YOLOv5 is another network.

    Args:
        levels: levels to return; level ``l`` (0 to 5) has stride ``2 ** l``.
        weights: path of a weight file of timm's ``cspdarknet53``, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes everything up to level ``n + 1``.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020, arXiv:2004.10934 (timm's implementation)
    """
    return Timm("cspdarknet53", levels, weights, frozen_stages, frozen_norm, drop_path)


def cspresnext50(
    levels: Sequence[int] = (3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
    drop_path: float = 0.0,
    output_stride: Literal[8, 16, 32] = 32,
) -> Timm:
    """CSPResNeXt-50: half of the channels of every stage go past its blocks.

    Args:
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l``.
        weights: path of a weight file of timm's ``cspresnext50``, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes the stem and the first ``n`` stages.
        frozen_norm: keep every batch norm as it was loaded.
        drop_path: rate of stochastic depth.
        output_stride: 8 or 16 puts dilation in the place of strides: level ``l`` has stride
            ``min(2 ** l, output_stride)``.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: CSPNet: A New Backbone that can Enhance Learning Capability of CNN, 2019, arXiv:1911.11929 (timm's
        implementation)
    """
    return Timm("cspresnext50", levels, weights, frozen_stages, frozen_norm, drop_path, output_stride)


def hrnet(
    width: Literal[18, 30, 32, 40, 44, 48, 64] = 32,
    branches: Literal["increased", "raw"] = "increased",
    levels: Sequence[int] = (2, 3, 4, 5),
    weights: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
) -> Timm:
    """HRNet: four branches of strides 4 to 32 side by side, which exchange what they see.

    Args:
        width: channels of the branch of stride 4; the others have 2, 4 and 8 times as many.
        branches: ``"raw"`` returns the branches as they are (18, 36, 72, 144 channels), which is what detection and
            segmentation use in the papers; ``"increased"`` through the bottlenecks of the classifier (128, 256, 512,
            1024).
        levels: levels to return: 2 to 5, and 1, the stem.
        weights: path of a weight file of timm's model, or ``None``.
        frozen_stages: 0 trains everything; ``n`` freezes the stem and the first ``n`` stages, all their branches.
        frozen_norm: keep every batch norm as it was loaded.

    Raises:
        ModelError: a level it does not have, stages that cannot be frozen, weights that do not fit.

    Source: Deep High-Resolution Representation Learning for Visual Recognition, 2019, arXiv:1908.07919 (timm's
        implementation)
    """
    options: dict[str, bool | int | float | str] = {} if branches == "increased" else {"feature_location": ""}
    backbone = Timm(f"hrnet_w{width}", levels, weights, frozen_stages, frozen_norm, options=options)
    body = backbone.body
    for branch in {2, 3, 4, 5} - set(levels):  # what only leads to a level that nobody looks at does not learn
        body.stage4[-1].fuse_layers[branch - 2].requires_grad_(False)
        if body.incre_modules is not None:
            body.incre_modules[branch - 2].requires_grad_(False)
    return backbone

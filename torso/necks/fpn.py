"""The feature pyramid network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from torch import nn

from torso.config import Role
from torso.necks.resample import ExtraLevels, check_levels, coarser_strides, fit, init_uniform
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class FPN(nn.Module):
    """Top-down pathway with lateral 1x1 convolutions, nearest upsampling and addition, then a 3x3 on every level.

    ``[B, in_channels[i], H_i, W_i]`` a level to ``[B, channels, H_i, W_i]``, and ``extra`` coarser levels, each half
    the size of the one before.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of every level that goes out.
        extra: how many coarser levels to add (RetinaNet: 2, P6 and P7).
        extra_from: ``"output"``: strided 3x3 convolutions on the last output, ReLU between them (torchvision's
            RetinaNet); ``"input"``: the same on the backbone's last level (the paper's); ``"pool"``: subsampling, no
            weights (Faster R-CNN).
        norm: normalisation after each convolution; none by default, as in the paper.

    Raises:
        ValueError: the levels do not fit each other (`torso.necks.resample.check_levels`).

    Source: Feature Pyramid Networks for Object Detection, 2016, arXiv:1612.03144; P6 and P7 from RetinaNet,
        arXiv:1708.02002
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        extra: int = 2,
        extra_from: Literal["output", "input", "pool"] = "output",
        norm: Annotated[Layer | None, Role("norm", factory=True)] = None,
    ):
        super().__init__()
        check_levels("fpn", in_channels, strides)
        self.channels = [channels] * (len(in_channels) + extra)
        self.strides = coarser_strides(strides, extra)
        self.lateral = nn.ModuleList(ConvNormAct(c, channels, 1, norm=norm, activation=None) for c in in_channels)
        self.smooth = nn.ModuleList(ConvNormAct(channels, channels, 3, norm=norm, activation=None) for _ in in_channels)
        self.down = ExtraLevels(in_channels[-1], channels, extra, extra_from, norm)
        init_uniform(self)

    def forward(self, features: Features) -> Features:
        """One level in, one level out, and the extra ones."""
        inner = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for i in range(len(inner) - 1, 0, -1):
            inner[i - 1] = inner[i - 1] + fit(inner[i], inner[i - 1].shape[-2:])
        outputs: Features = [smooth(x) for smooth, x in zip(self.smooth, inner, strict=True)]
        levels: Features = self.down(features, outputs)
        return levels

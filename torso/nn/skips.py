"""Skips between an encoder and a decoder: concatenated (U-Net), or summed as scores (FCN)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features

Upsample = Literal["nearest", "bilinear", "transposed"]


class ConcatSkip(nn.Module):
    """A step of U-Net's decoder: the coarse map at the size of the skip, the skip beside it, two 3x3 convolutions.

    ``[B, in_channels, h, w]`` and ``[B, skip_channels, H, W]`` to ``[B, channels, H, W]``. The paper's convolutions are
    not padded, so there the skip is cropped; here they keep the size.

    Args:
        in_channels: channels of the coarse map.
        skip_channels: channels of the skip; 0 where there is none, and ``ratio`` then gives the size.
        channels: channels that go out.
        ratio: how many times larger the skip is, rounded up.
        upsample: ``"nearest"``, ``"bilinear"``, or ``"transposed"``: a learned transposed convolution that halves the
            channels (the paper's).
        norm: after each convolution; the paper has none.
        activation: after each norm.

    Source: U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015, arXiv:1505.04597
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        channels: int,
        ratio: int = 2,
        *,
        upsample: Upsample = "nearest",
        norm: Layer | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__()
        if upsample not in {"nearest", "bilinear", "transposed"}:
            raise ValueError(f"upsample is nearest, bilinear or transposed, got {upsample!r}")
        self.ratio, self.mode = ratio, upsample
        self.up: nn.Module = nn.Identity()
        if upsample == "transposed":
            half = max(in_channels // 2, 1)
            self.up, in_channels = nn.ConvTranspose2d(in_channels, half, ratio, ratio), half
        self.conv1 = ConvNormAct(in_channels + skip_channels, channels, norm=norm, activation=activation)
        self.conv2 = ConvNormAct(channels, channels, norm=norm, activation=activation)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """The coarse map and the skip to the skip's size."""
        height, width = (side * self.ratio for side in x.shape[2:]) if skip is None else skip.shape[2:]
        if self.mode == "transposed":
            x = self.up(x)[..., :height, :width]
        else:
            x = functional.interpolate(x, size=(height, width), mode=self.mode)
        output: Tensor = self.conv2(self.conv1(x if skip is None else torch.cat([x, skip], 1)))
        return output


class ScoreSkip(nn.Module):
    """FCN's fusion: every level's class scores by a 1x1 convolution, each coarser sum upsampled and added to the next.

    ``[B, in_channels[i], H_i, W_i]`` a level to ``[B, channels, H_0, W_0]``. One level is FCN-32s, pool4 and conv7
    are FCN-16s, pool3, pool4 and conv7 FCN-8s. Upsampling is a transposed convolution that begins as bilinear and is
    learned; the scores of the finer levels begin with 0, so that training starts from the coarse prediction.

    Args:
        in_channels: channels of the levels, finest first.
        strides: their strides; each a multiple of the one before.
        channels: class scores that go out.

    Source: Fully Convolutional Networks for Semantic Segmentation, 2014, arXiv:1411.4038, section 4.2
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int):
        super().__init__()
        for fine, coarse in pairwise(strides):
            if coarse % fine:
                raise ValueError(f"fcn adds scores of strides that are multiples, but {coarse} follows {fine}")
        self.score = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.up = nn.ModuleList(bilinear_upsampling(channels, b // a) for a, b in pairwise(strides))
        for layer in list(self.score)[:-1]:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Features) -> Tensor:
        """The levels to the scores at the finest."""
        scores = [score(x) for score, x in zip(self.score, features, strict=True)]
        total: Tensor = scores.pop()
        for up in reversed(self.up):
            finer = scores.pop()
            total = finer + up(total)[..., : finer.shape[2], : finer.shape[3]]
        return total


def bilinear_upsampling(channels: int, ratio: int) -> nn.ConvTranspose2d:
    """A transposed convolution ``[B, channels, H, W] -> [B, channels, ratio * H, ratio * W]`` that begins as bilinear.

    It equals bilinear interpolation (``align_corners=False``) but for the outermost ``ratio`` cells, where it reads
    zeros beyond the map.

    Source: Fully Convolutional Networks for Semantic Segmentation, 2014, arXiv:1411.4038, section 3.3
    """
    kernel = 2 * ratio - ratio % 2
    up = nn.ConvTranspose2d(channels, channels, kernel, ratio, (kernel - ratio) // 2, bias=False)
    centre = (kernel - 1) / 2
    line = 1 - (torch.arange(kernel) - centre).abs() / ratio
    with torch.no_grad():
        up.weight.zero_()
        up.weight[torch.arange(channels), torch.arange(channels)] = line[:, None] * line
    return up

"""Patches of a picture as vectors."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from torso.nn.conv import Layer


class PatchEmbedding(nn.Module):
    """Cuts a picture into squares side by side and maps each to a vector: a convolution whose stride is its kernel.

    ``[B, in_channels, H, W] -> [B, ceil(H / patch), ceil(W / patch), channels]``, channels last as the layers of a
    transformer take them; ``.flatten(1, 2)`` makes a row of tokens. A picture that does not divide is padded with
    zeros at the right and at the bottom.

    Args:
        in_channels: channels of the picture.
        channels: length of a vector.
        patch: side of a square in pixels.
        norm: makes a norm over the last dimension, such as layer norm (Swin); none by default (ViT).

    Source: An Image is Worth 16x16 Words, 2020, arXiv:2010.11929
    """

    def __init__(self, in_channels: int, channels: int, patch: int = 16, norm: Layer | None = None):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, channels, patch, patch)
        self.norm = nn.Identity() if norm is None else norm(channels)

    def forward(self, images: Tensor) -> Tensor:
        """One vector a patch."""
        height, width = images.shape[-2:]
        down, right = -height % self.patch, -width % self.patch
        if down or right:
            images = functional.pad(images, (0, right, 0, down))
        out: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))  # [B, h, w, C]
        return out

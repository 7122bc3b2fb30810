"""Where a token lies in the picture: as sines of its coordinates, or learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class SinePosition(nn.Module):
    """Sines and cosines of the coordinates of every cell, half of the channels for y, half for x; no weights.

    Cells count from 1; with ``normalize`` the last valid one of a row or column becomes ``scale``. Where pictures are
    padded the count stops at their own border, so that a picture gets the same positions however it is padded.

    Args:
        channels: channels of the encoding, divisible by 4 (the sum is made with as many features).
        temperature: largest wavelength over ``2 pi``.
        normalize: coordinates in 0..``scale`` instead of cells.
        scale: what the last cell counts as.
        offset: added to the cell's number before it is normalised: 0 as DETR, -0.5 as Deformable DETR (cell centres).

    Raises:
        ValueError: channels that do not divide by 4.

    Source: End-to-End Object Detection with Transformers, 2020, arXiv:2005.12872; Attention Is All You Need,
        2017, arXiv:1706.03762
    """

    def __init__(
        self,
        channels: int,
        temperature: float = 10000.0,
        normalize: bool = True,
        scale: float = 2 * math.pi,
        offset: float = 0.0,
    ):
        super().__init__()
        if channels % 4:
            raise ValueError(f"channels must divide by 4 (sine and cosine of y and of x), got {channels}")
        self.channels, self.temperature = channels, temperature
        self.normalize, self.scale, self.offset = normalize, scale, offset

    def forward(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Encoding ``[B, channels, H, W]`` for a map ``[B, *, H, W]``; ``[1, channels, H, W]`` without ``valid``.

        Args:
            features: only its size, device and type count.
            valid: ``[B, H, W]`` bool, where the picture is and not its padding.
        """
        height, width = features.shape[-2:]
        # Half-precision counts would be coarse: 257 is no bfloat16.
        kind = torch.float64 if features.dtype == torch.float64 else torch.float32
        if valid is None:
            y = torch.arange(1, height + 1, dtype=kind, device=features.device)[None, :, None]
            x = torch.arange(1, width + 1, dtype=kind, device=features.device)[None, None, :]
        else:
            y, x = valid.cumsum(1, dtype=kind), valid.cumsum(2, dtype=kind)  # [B, H, W]
        if self.normalize:
            y = (y + self.offset) / (y[:, -1:] + 1e-6) * self.scale
            x = (x + self.offset) / (x[:, :, -1:] + 1e-6) * self.scale
        half = self.channels // 2
        bands = self.temperature ** (torch.arange(0, half, 2, dtype=kind, device=features.device) / half)
        encoded = [_waves(at[..., None] / bands).movedim(-1, 1) for at in (y, x)]  # [B, C / 2, H or 1, W or 1]
        shape = (-1, -1, height, width)
        return torch.cat([part.expand(shape) for part in encoded], dim=1).to(features.dtype)


def sincos_position(height: int, width: int, channels: int, temperature: float = 10000.0) -> Tensor:
    """The fixed encoding of plain vision transformers and RT-DETR: ``[height * width, channels]`` float32.

    Cells count from 0; a quarter of the channels each holds sines of y, sines of x, cosines of y, cosines of x.

    Args:
        height: cells of a column.
        width: cells of a row.
        channels: divisible by 4.
        temperature: largest wavelength over ``2 pi``.

    Raises:
        ValueError: channels that do not divide by 4.

    Source: timm.layers.build_sincos2d_pos_embed; Better plain ViT baselines for ImageNet-1k, 2022, arXiv:2205.01580
    """
    if channels % 4:
        raise ValueError(f"channels must divide by 4 (sine and cosine of y and of x), got {channels}")
    bands = temperature ** -(torch.arange(channels // 4, dtype=torch.float32) / (channels // 4))
    at = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = torch.cat([axis.reshape(-1, 1) * bands for axis in at], dim=1)  # [N, C / 2]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sines(places: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines of numbers in 0..1, in turn: ``[..., N] -> [..., N, channels]``.

    Args:
        places: a part of the picture's width or height.
        channels: of each number, even.
        temperature: largest wavelength over ``2 pi``.

    Source: Deformable DETR, 2020, arXiv:2010.04159 (of its proposals)
    """
    bands = temperature ** (torch.arange(0, channels, 2, dtype=places.dtype, device=places.device) / channels)
    return _waves(places[..., None] * (2 * math.pi) / bands)


class LearnedPosition(nn.Module):
    """Class tokens in front of the patches, and a learned position added to all, resampled to the size that comes.

    ``[B, h, w, channels] -> [B, prefix + h * w, channels]``.

    Args:
        channels: length of a token.
        size: rows and columns that the table is learned for.
        prefix: learned tokens in front (the class token of ViT); each has a position, too.

    Source: An Image is Worth 16x16 Words, 2020, arXiv:2010.11929
    """

    def __init__(self, channels: int, size: tuple[int, int], prefix: int = 0):
        super().__init__()
        self.size = size
        self.table = nn.Parameter(torch.empty(1, prefix + size[0] * size[1], channels))
        self.tokens = nn.Parameter(torch.empty(1, prefix, channels)) if prefix else None
        nn.init.trunc_normal_(self.table, std=0.02)
        if self.tokens is not None:
            nn.init.normal_(self.tokens, std=1e-6)

    def forward(self, patches: Tensor) -> Tensor:
        """Tokens that know their place."""
        batch, height, width, _ = patches.shape
        prefix = 0 if self.tokens is None else self.tokens.shape[1]
        tokens = patches.flatten(1, 2)
        if self.tokens is not None:
            tokens = torch.cat([self.tokens.expand(batch, -1, -1), tokens], dim=1)
        return tokens + resample_position(self.table, (height, width), self.size, prefix)


def resample_position(table: Tensor, size: tuple[int, int], old: tuple[int, int], prefix: int = 0) -> Tensor:
    """A table of positions ``[1, prefix + h * w, C]`` for another size, bicubic with antialiasing; the prefix is kept.

    Args:
        table: learned positions.
        size: rows and columns wanted.
        old: rows and columns it has.
        prefix: rows in front that belong to no place.

    Source: timm.layers.resample_abs_pos_embed
    """
    if size == old:
        return table
    grid = table[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)  # [1, C, h, w]
    # torch has no bicubic kernel for half precision.
    kind = torch.float64 if table.dtype == torch.float64 else torch.float32
    grid = functional.interpolate(grid.to(kind), size=size, mode="bicubic", antialias=True)
    return torch.cat([table[:, :prefix], grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def _waves(angles: Tensor) -> Tensor:
    """Sine and cosine of every angle in turn: ``[..., n] -> [..., 2 n]``."""
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)

"""Which part of the network's input is the picture, and which the grey it was padded with.

It is found in the pixels, so an exported file sees what training saw, and nobody has to say it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from torso.nn.normalize import eight_bits

Stride = int | tuple[int, int]


def real_pixels(images: Tensor, fill: int = 114) -> Tensor:
    """Where the picture is: ``[B, H, W]`` bool, False in rows and columns at the border that are nothing but ``fill``.

    A picture that is all ``fill`` is all picture: attention needs something to look at. A border that was repainted (by
    a change of colours in training) is picture, too.

    Args:
        images: ``[B, 3, H, W]`` in 0..255, as the network takes them.
        fill: grey of the padding, 0..255 (letterbox: 114).

    Source: own design; the padding mask of DETR, 2020, arXiv:2005.12872
    """
    pixels = eight_bits(images) if images.dtype == torch.uint16 else images
    painted = (pixels != fill).any(dim=1)  # [B, H, W]
    rows, columns = _between(painted.any(dim=2)), _between(painted.any(dim=1))  # [B, H], [B, W]
    empty = ~rows.any(dim=1)
    return (rows[:, :, None] & columns[:, None, :]) | empty[:, None, None]


def real_cells(real: Tensor, strides: Sequence[Stride]) -> list[Tensor]:
    """The same for every level, ``[B, H_i, W_i]`` bool: cells in which at least one pixel is the picture's.

    Where pictures lie in the top left corner that is what the nearest pixel says, too (DETR).

    Args:
        real: ``[B, H, W]`` of `real_pixels`.
        strides: of the levels; (height, width) where they differ.
    """
    pixels = real.float().unsqueeze(1)
    return [functional.max_pool2d(pixels, stride, stride, ceil_mode=True).squeeze(1) > 0 for stride in strides]


def frame_of(real: Tensor) -> Tensor:
    """Where the pictures lie, ``xyxy`` pixels: ``[B, H, W]`` of `real_pixels` to ``[B, 4]`` float32."""
    sides = []
    for there in (real.any(dim=1), real.any(dim=2)):  # [B, W], [B, H]
        before = (there.cumsum(dim=1) == 0).sum(dim=1)
        sides.append((before, before + there.sum(dim=1)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1).float()


def _between(there: Tensor) -> Tensor:
    """From the first True to the last: ``[B, N] -> [B, N]``, bool."""
    so_far = there.cumsum(dim=1)
    return (so_far > 0) & (so_far - there.long() < so_far[:, -1:])

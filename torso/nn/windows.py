"""Self-attention inside windows, shifted in every other layer so that windows hear of each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias for every distance inside a window.

    ``[B, H, W, channels] -> [B, H, W, channels]`` for any size: a map that does not divide is padded with zeros at the
    right and at the bottom, then rolled (as Swin's authors and torchvision do; timm rolls first). With a shift, cells
    that rolling brought together from opposite borders do not see each other. Weights are named and shaped like timm's.

    Args:
        channels: channels that come in and go out.
        heads: heads; they divide ``channels``.
        window: side of a window in cells.
        shift: cells by which the windows are moved to the right and down, below ``window``; ``window // 2`` in every
            other layer. An axis with a single window is not shifted.
        bias: whether query, key and value have one.

    Raises:
        ValueError: heads that do not divide the channels, or a shift that is not below the window.

    Source: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, 2021, arXiv:2103.14030
    """

    def __init__(self, channels: int, heads: int, window: int = 7, shift: int = 0, bias: bool = True):
        super().__init__()
        if channels % heads or not 0 <= shift < window:
            raise ValueError(
                f"heads must divide the channels and shift lie in 0..window - 1, got {heads} heads for {channels} "
                f"channels and shift {shift} for window {window}"
            )
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(channels, 3 * channels, bias=bias)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _distances(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Every cell attends to its window."""
        batch, height, width, channels = x.shape
        w = self.window
        x = functional.pad(x, (0, 0, 0, -width % w, 0, -height % w))
        rows, columns = x.shape[1] // w, x.shape[2] // w
        down, right = (self.shift if count > 1 else 0 for count in (rows, columns))
        if down or right:
            x = x.roll((-down, -right), (1, 2))
        x = x.reshape(batch, rows, w, columns, w, channels).transpose(2, 3)
        x = x.reshape(batch, rows * columns, w * w, channels)  # [B, windows, N, C]
        x = self._attend(x, self._bias(rows, columns, down, right))
        x = x.reshape(batch, rows, columns, w, w, channels).transpose(2, 3)
        x = x.reshape(batch, rows * w, columns * w, channels)
        if down or right:
            x = x.roll((down, right), (1, 2))
        return x[:, :height, :width]

    def _attend(self, x: Tensor, bias: Tensor) -> Tensor:
        """``[B, windows, N, C]`` with a bias ``[1 or windows, heads, N, N]`` to the same shape."""
        batch, windows, cells, channels = x.shape
        parts = self.qkv(x).view(batch * windows, cells, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # [B * windows, heads, N, C / heads]
        if bias.shape[0] > 1:  # every window its own
            bias = bias.expand(batch, *bias.shape).flatten(0, 1)
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        joined: Tensor = self.proj(out.transpose(1, 2).reshape(batch, windows, cells, channels))
        return joined

    def _bias(self, rows: int, columns: int, down: int, right: int) -> Tensor:
        """What is added to the logits: the bias of the distance, and minus infinity between parts of a window."""
        cells = self.window**2
        index = self.get_buffer("relative_position_index")
        bias = self.relative_position_bias_table[index].view(cells, cells, self.heads).permute(2, 0, 1)
        if not (down or right):
            return bias[None]
        part = _parts(rows, self.window, down, bias)[:, None, :, None] * 2  # [rows, 1, w, 1]
        part = part + _parts(columns, self.window, right, bias)[None, :, None, :]
        part = part.reshape(rows * columns, cells)  # [windows, N]
        apart = (part[:, :, None] != part[:, None, :])[:, None]
        return bias.masked_fill(apart, float("-inf"))  # [windows, heads, N, N]


def _parts(count: int, window: int, shift: int, like: Tensor) -> Tensor:
    """``[count, window]``: 1 for the cells of the last window that rolling brought from the other border, else 0."""
    cell = torch.arange(count * window, device=like.device)
    return (cell >= count * window - shift).int().view(count, window)


def _distances(window: int) -> Tensor:
    """``[N * N]``: row of the bias table for each pair of cells of a window."""
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    down, right = y[:, None] - y[None] + window - 1, x[:, None] - x[None] + window - 1
    return (down * (2 * window - 1) + right).flatten()

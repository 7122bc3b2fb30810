"""Attention beside its closest library part.

``PAIRS``: name -> (ours, theirs, inputs), for ``parts.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Inputs = tuple[Any, ...]
Pair = tuple[Callable[[], nn.Module], Callable[[], nn.Module], Callable[[], Inputs]]

SIZES = [(40, 40), (20, 20), (10, 10), (5, 5)]
CELLS = sum(height * width for height, width in SIZES)


class OurDeformable(nn.Module):
    """Sizes fixed, as in a detector at one size."""

    def __init__(self) -> None:
        super().__init__()
        from torso.nn.deformable import DeformableAttention

        self.attention = DeformableAttention()

    def forward(self, query: Tensor, reference: Tensor, value: Tensor) -> Tensor:
        """One layer."""
        return self.attention(query, reference, value, SIZES)


class TheirDeformable(nn.Module):
    """transformers' layer called with the same arguments."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import DeformableDetrConfig
        from transformers.models.deformable_detr import modeling_deformable_detr as library

        self.attention = library.DeformableDetrMultiscaleDeformableAttention(
            DeformableDetrConfig(disable_custom_kernels=True), 8, 4
        )
        library.DeformableDetrPreTrainedModel._init_weights(
            library.DeformableDetrPreTrainedModel(DeformableDetrConfig()), self.attention
        )
        self.shapes = torch.tensor(SIZES)

    def forward(self, query: Tensor, reference: Tensor, value: Tensor) -> Tensor:
        """One layer."""
        return self.attention(
            query,
            encoder_hidden_states=value,
            reference_points=reference,
            spatial_shapes=self.shapes,
            spatial_shapes_list=SIZES,
        )[0]


class TheirWindows(nn.Module):
    """timm's block without its norms and its MLP."""

    def __init__(self) -> None:
        super().__init__()
        from timm.models.swin_transformer import SwinTransformerBlock

        self.block = [SwinTransformerBlock(96, (56, 56), 3, window_size=7, shift_size=3)]
        self.attn = self.block[0].attn

    def forward(self, x: Tensor) -> Tensor:
        """One layer."""
        return self.block[0]._attn(x)


def queries(count: int) -> Callable[[], Inputs]:
    return lambda: (torch.randn(2, count, 256), torch.rand(2, count, 4, 2), torch.randn(2, CELLS, 256))


def maps(channels: int, side: int) -> Callable[[], Inputs]:
    return lambda: (torch.randn(8, channels, side, side),)


def windows() -> nn.Module:
    from torso.nn.windows import WindowAttention

    return WindowAttention(96, 3, 7, 3)


def excite() -> nn.Module:
    from torso.nn.channel_attention import SqueezeExcite

    return SqueezeExcite(256, 16)


def their_excite() -> nn.Module:
    from torchvision.ops import SqueezeExcitation

    return SqueezeExcitation(256, 16)


def cbam() -> nn.Module:
    from torso.nn.spatial_attention import CBAM

    return CBAM(256)


def their_cbam() -> nn.Module:
    from timm.layers.cbam import CbamModule

    return CbamModule(256)


def selective() -> nn.Module:
    from torso.nn.selective import SelectiveKernel

    return SelectiveKernel(64, hidden=32, groups=32)


def their_selective() -> nn.Module:
    from timm.layers import SelectiveKernel

    return SelectiveKernel(64, rd_channels=32, groups=32, split_input=False)


PAIRS: dict[str, Pair] = {
    "attention/deformable, 300 queries": (OurDeformable, TheirDeformable, queries(300)),
    "attention/deformable, encoder": (OurDeformable, TheirDeformable, queries(CELLS)),
    "attention/shifted_window": (windows, TheirWindows, lambda: (torch.randn(4, 56, 56, 96),)),
    "attention/se": (excite, their_excite, maps(256, 56)),
    "attention/se, last stage": (excite, their_excite, maps(256, 14)),
    "attention/cbam": (cbam, their_cbam, maps(256, 56)),
    "attention/cbam, last stage": (cbam, their_cbam, maps(256, 14)),
    "attention/sk": (selective, their_selective, maps(64, 56)),
}

"""The cross stage partial connection, around any block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from torso.nn.conv import ConvNormAct, Layer


class CSP(nn.Module):
    """Half of the channels go through ``body``, the other half around it, and both are concatenated.

    ``[B, in_channels, H, W] -> [B, channels, H, W]``.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        body: called with ``width``, makes the blocks, which keep the size of the map.
        width: channels of each half; half of ``channels`` by default.
        body_width: channels that the blocks return where not ``width`` (dense blocks add some).
        fusion: where 1x1 convolutions (transitions) stand: ``"first"``: concatenate, then one (CSPNet's fusion first,
            timm's CrossStage3); ``"last"``: one after the blocks, then concatenate, and nothing after (fusion last);
            ``"both"``: as CSPDarknet-53 and timm's CrossStage.
        norm: makes the norms.
        activation: makes the activations.

    Raises:
        ValueError: a ``fusion`` that is none of these, or ``"last"`` with no more ``channels`` than ``width``.

    Source: CSPNet: A New Backbone that can Enhance Learning Capability of CNN, 2019, arXiv:1911.11929, figure 3
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        body: Callable[[int], nn.Module],
        *,
        width: int | None = None,
        body_width: int | None = None,
        fusion: Literal["first", "last", "both"] = "both",
        norm: Layer = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__()
        width = channels // 2 if width is None else width
        after = width if body_width is None else body_width
        if fusion not in ("first", "last", "both") or (fusion == "last" and channels <= width):
            raise ValueError(
                "fusion must be 'first', 'last' or 'both', and 'last' needs more channels than the width of a half, "
                f"got {fusion!r} with {channels} channels and width {width}"
            )
        # One convolution for both halves: cheaper than two, and equal to them.
        self.expand = ConvNormAct(in_channels, 2 * width, 1, norm=norm, activation=activation)
        self.body = body(width)
        if fusion != "first":
            reduced = channels - width if fusion == "last" else width
            self.body = nn.Sequential(self.body, ConvNormAct(after, reduced, 1, norm=norm, activation=activation))
            after = reduced
        self.fuse = (
            nn.Identity()
            if fusion == "last"
            else ConvNormAct(width + after, channels, 1, norm=norm, activation=activation)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The two halves, fused."""
        around, through = self.expand(x).chunk(2, dim=1)
        out: Tensor = self.fuse(torch.cat([around, self.body(through)], dim=1))
        return out

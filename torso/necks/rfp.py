"""The recursive feature pyramid: what the pyramid found goes back into the bottom-up path, which looks again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.necks.fpn import FPN
from torso.necks.resample import ExtraLevels, check_levels, coarser_strides
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.residual import Residual, bottleneck
from torso.structures import Features


class AtrousConnection(nn.Module):
    """A level of the pyramid on its way back: four branches side by side, a quarter of the channels each.

    ``[B, in_channels, H, W]`` to ``[B, 4 * max(in_channels // 4, 1), H, W]``: 1x1, 3x3 with dilation 3 and with
    dilation 6, and 1x1 of the mean of the map, each with a ReLU. Unlike `torso.necks.aspp.AtrousPyramid` there is no
    norm and no projection.

    Args:
        in_channels: channels of the pyramid's levels.
        rates: dilations of the three convolutions; 1 is a 1x1 convolution.

    Source: DetectoRS, 2020, arXiv:2006.02334, section 3.3 (ASPP as the connecting module)
    """

    def __init__(self, in_channels: int, rates: Sequence[int] = (1, 3, 6)):
        super().__init__()
        quarter = max(in_channels // 4, 1)
        self.channels = (len(rates) + 1) * quarter
        self.branches = nn.ModuleList(
            ConvNormAct(in_channels, quarter, 1 if rate == 1 else 3, norm=None, dilation=rate) for rate in rates
        )
        self.whole = ConvNormAct(in_channels, quarter, 1, norm=None)

    def forward(self, x: Tensor) -> Tensor:
        """One map to one of its size."""
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return torch.cat([*(branch(x) for branch in self.branches), whole], 1)


class FedBlock(nn.Module):
    """A residual block whose sum gets the feedback too, through a 1x1 convolution that begins with zeros.

    Args:
        block: the block, ``activation(path(x) + shortcut(x))``.
        feedback: channels of the feedback.
        channels: channels that the block gives.

    Source: DetectoRS, 2020, arXiv:2006.02334, figure 3
    """

    def __init__(self, block: Residual, feedback: int, channels: int):
        super().__init__()
        self.block = block
        self.feed = nn.Conv2d(feedback, channels, 1)
        nn.init.zeros_(self.feed.weight)
        assert self.feed.bias is not None
        nn.init.zeros_(self.feed.bias)

    def forward(self, x: Tensor, feedback: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` and feedback of the size that goes out."""
        block = self.block
        total: Tensor = block.activation(block.path(x) + block.shortcut(x) + self.feed(feedback))
        return total


class Stage(nn.Module):
    """Bottleneck blocks from one level to the next coarser one; the first takes the feedback of the latter.

    ``[B, in_channels, h, w]`` and ``[B, feedback, H, W]`` to ``[B, channels, H, W]``.

    Args:
        in_channels: channels of the finer level.
        channels: channels of the coarser level.
        stride: how many times coarser it is.
        blocks: how many blocks.
        feedback: channels of the feedback.
        norm: makes the norms.
        activation: makes the activations.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        blocks: int,
        feedback: int,
        norm: Layer,
        activation: Callable[[], nn.Module],
    ):
        super().__init__()
        width = max(channels // 4, 1)
        first, *others = (
            bottleneck(
                channels if i else in_channels,
                channels,
                1 if i else stride,
                norm=norm,
                activation=activation,
                width=width,
            )
            for i in range(blocks)
        )
        assert isinstance(first, Residual)
        self.first = FedBlock(first, feedback, channels)
        self.others = nn.Sequential(*others)

    def forward(self, x: Tensor, feedback: Tensor) -> Tensor:
        """One level and the feedback to the next level."""
        output: Tensor = self.others(self.first(x, feedback))
        return output


class RFP(nn.Module):
    """Recursive feature pyramid: pyramid, feedback through ASPP, bottom-up path again, pyramid again, fusion.

    ``R(f)`` of every level but the finest (`AtrousConnection`) enters the first block of its stage; the pyramid and
    ``R`` are shared by all steps; the levels of two steps are mixed by a learned gate, ``sigmoid(g) * new + (1 -
    sigmoid(g)) * old``.

    A neck has the backbone's levels, not the backbone. So the bottom-up path of the further steps is the neck's own: it
    starts from the finest level and repeats the stages after it as bottleneck blocks with weights of their own, the
    paper's unshared form. With ResNet-50's levels from stride 4 on and ``blocks=(4, 6, 3)`` they are its stages 3 to 5
    exactly, and its weights may be copied in; the stem and stage 2, which get no feedback in the paper, are not walked
    again. For other backbones the path is a ResNet of their channels.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of every level that goes out.
        steps: how often the bottom-up path is walked, the backbone's own included; 1 is FPN.
        blocks: blocks of the neck's own stages, finest first: one number for all, or one each.
        extra: how many coarser levels to add to the result.
        extra_from: what they are made from (`FPN`).
        norm: normalisation in the neck's own stages.
        activation: activation in the neck's own stages.

    Raises:
        ValueError: the levels do not fit each other, there is one only, or numbers of steps or blocks are wrong.

    Source: DetectoRS: Detecting Objects with Recursive Feature Pyramid and Switchable Atrous Convolution, 2020,
        arXiv:2006.02334
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        steps: int = 2,
        blocks: int | Sequence[int] = 1,
        extra: int = 2,
        extra_from: Literal["output", "input", "pool"] = "output",
        *,
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        ratios = check_levels("rfp", in_channels, strides, least=2)
        depths = [blocks] * len(ratios) if isinstance(blocks, int) else list(blocks)
        if steps < 1 or len(depths) != len(ratios) or min(depths) < 1:
            raise ValueError(
                f"rfp needs steps >= 1 and blocks >= 1 for each of {len(ratios)} stages, got {steps} and {depths}"
            )
        self.pyramid = FPN(in_channels, strides, channels, extra=0)
        self.connect = AtrousConnection(channels) if steps > 1 else nn.Identity()
        feedback = getattr(self.connect, "channels", 0)
        # The stages of step 2, then those of step 3, ...
        self.stages = nn.ModuleList(
            Stage(fine, coarse, ratio, depth, feedback, norm, activation)
            for _ in range(steps - 1)
            for fine, coarse, ratio, depth in zip(in_channels, in_channels[1:], ratios, depths, strict=False)
        )
        self.gate = nn.Conv2d(channels, 1, 1) if steps > 1 else nn.Identity()
        for value in self.gate.parameters():
            nn.init.zeros_(value)
        self.down = ExtraLevels(in_channels[-1], channels, extra, extra_from)
        self.channels = [channels] * (len(in_channels) + extra)
        self.strides = coarser_strides(strides, extra)

    def forward(self, features: Features) -> Features:
        """One level in, one level out, and the extra ones."""
        levels: Features = self.pyramid(features)
        seen = features
        count = len(features) - 1
        for begin in range(0, len(self.stages), count):
            seen = [features[0]]
            for stage, level in zip(self.stages[begin : begin + count], levels[1:], strict=True):
                seen.append(stage(seen[-1], self.connect(level)))
            levels = [self._mixed(new, old) for new, old in zip(self.pyramid(seen), levels, strict=True)]
        output: Features = self.down(seen, levels)
        return output

    def _mixed(self, new: Tensor, old: Tensor) -> Tensor:
        return torch.lerp(old, new, self.gate(new).sigmoid())

"""The CSPDarknet of YOLOv5 and YOLOX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

from torch import Tensor, nn
from torch.nn import functional

from torso.backbones.levels import chosen
from torso.config import Role
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.csp import CSP
from torso.nn.init import init_weights
from torso.nn.pyramid_pool import PyramidPool
from torso.structures import Features


class CSPDarknet(nn.Module):
    """A stem of stride 2, then four stages of a strided convolution and a cross stage partial block of bottlenecks.

    Depth and width are multiples of the large model's: (0.33, 0.25) nano, (0.33, 0.375) YOLOX-tiny, (0.33, 0.5) S,
    (0.67, 0.75) M, (1, 1) L, (1.33, 1.25) X. Strides of 2 round up, so pictures may have any size.

    Args:
        depth: multiple of the bottlenecks a stage, above 0; at least one is left.
        width: multiple of the channels, above 0.
        blocks: bottlenecks of the four stages at depth 1: (3, 9, 9, 3) in YOLOX, (3, 6, 9, 3) in YOLOv5.
        stem: ``"focus"``: the four pixels of each 2x2 square become channels, then 3x3 (YOLOX); ``"convolution"``: 6x6
            of stride 2, which can say the same and more simply (YOLOv5 from 6.0 on).
        pooling: where in the last stage pyramid pooling (windows of 5, 9, 13 cells) stands: ``"before"`` its block,
            which then has no shortcuts (YOLOX), or ``"after"`` it (YOLOv5).
        levels: levels to return; level ``l`` (1 to 5) has stride ``2 ** l``.
        norm: normalisation layer.
        activation: activation layer.

    Raises:
        ModelError: a level it does not have.
        ValueError: a multiple that is not above 0, or not four stages.

    Source: YOLOX: Exceeding YOLO Series in 2021, 2021, arXiv:2107.08430; YOLOv5, 2020, from public descriptions; cross
        stage partial blocks: CSPNet, 2019, arXiv:1911.11929
    """

    mean = (0.0, 0.0, 0.0)  # pictures in 0..1 as they are
    std = (1.0, 1.0, 1.0)

    def __init__(
        self,
        depth: float = 0.33,
        width: float = 0.5,
        *,
        blocks: Sequence[int] = (3, 9, 9, 3),
        stem: Literal["focus", "convolution"] = "focus",
        pooling: Literal["before", "after"] = "before",
        levels: Sequence[int] = (3, 4, 5),
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.SiLU,
    ):
        super().__init__()
        if depth <= 0 or width <= 0 or len(blocks) != 4:
            raise ValueError(f"expected depth and width above 0 and four blocks, got {depth}, {width}, {list(blocks)}")
        self.levels = chosen(levels, range(1, 6), "csp_darknet")
        widths = [round(64 * width) * 2**level for level in range(5)]
        self.channels = [widths[level - 1] for level in self.levels]
        self.strides = [2**level for level in self.levels]
        conv = partial(ConvNormAct, norm=norm, activation=activation)
        self.stages = nn.ModuleList([Stem(widths[0], stem == "focus", norm, activation)])
        for stage in range(1, self.levels[-1]):
            before, after = widths[stage - 1 : stage + 1]
            last = stage == 4
            count = max(round(blocks[stage - 1] * depth), 1)
            body = partial(_bottlenecks, count=count, shortcut=not (last and pooling == "before"), conv=conv)
            layers = [
                conv(before, after, 3, 2),
                CSP(after, after, body, fusion="first", norm=norm, activation=activation),
            ]
            if last:
                layers.insert(1 if pooling == "before" else 2, Pooling(after, conv))
            self.stages.append(nn.Sequential(*layers))
        init_weights(self, "kaiming", fan="fan_in")

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        features = []
        for level, stage in enumerate(self.stages, start=1):
            images = stage(images)
            if level in self.levels:
                features.append(images)
        return features


class Stem(nn.Module):
    """The first convolution: ``[B, 3, H, W] -> [B, channels, H / 2, W / 2]``, rounded up.

    An odd last row or column is completed with zeros.

    Args:
        channels: channels that go out.
        focus: squares of 2x2 pixels to channels, then 3x3; else 6x6 of stride 2, which sees the same pixels.
        norm: normalisation layer.
        activation: activation layer.
    """

    def __init__(self, channels: int, focus: bool, norm: Layer, activation: Callable[[], nn.Module]):
        super().__init__()
        first = nn.PixelUnshuffle(2) if focus else nn.Identity()
        conv = nn.Conv2d(12, channels, 3, 1, 1, bias=False) if focus else nn.Conv2d(3, channels, 6, 2, 2, bias=False)
        self.layers = nn.Sequential(first, conv, norm(channels), activation())

    def forward(self, x: Tensor) -> Tensor:
        """A map of half the size."""
        height, width = x.shape[-2:]
        out: Tensor = self.layers(functional.pad(x, (0, width % 2, 0, height % 2)))
        return out


class Pooling(nn.Sequential):
    """1x1 to half the channels, their maxima over windows of 5, 9 and 13 cells beside them, and 1x1 back.

    Args:
        channels: channels that come in and go out.
        conv: makes the convolutions.
    """

    def __init__(self, channels: int, conv: Callable[..., nn.Module]):
        half = channels // 2
        super().__init__(conv(channels, half, 1), PyramidPool((5, 9, 13)), conv(4 * half, channels, 1))


class Bottleneck(nn.Module):
    """1x1 and 3x3 convolution of equal channels, and what came in added where there is a shortcut."""

    def __init__(self, channels: int, shortcut: bool, conv: Callable[..., nn.Module]):
        super().__init__()
        self.layers = nn.Sequential(conv(channels, channels, 1), conv(channels, channels, 3))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """``[B, channels, H, W]``, as it came."""
        out: Tensor = self.layers(x)
        return x + out if self.shortcut else out


def _bottlenecks(channels: int, count: int, shortcut: bool, conv: Callable[..., nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(channels, shortcut, conv) for _ in range(count)))

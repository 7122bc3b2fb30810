"""DetNAS: backbones that were searched for detection, block by block, and the supernet they were searched in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from torso.backbones.levels import chosen
from torso.backbones.shufflenet import init_shuffle
from torso.config import ModelError, Role
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features

Activation = Callable[[], nn.Module]
Size = Literal["300M", "1.3G", "3.8G"]
Searched = Literal["coco_fpn", "coco_retinanet", "voc_fpn", "voc_retinanet"]

KERNELS = (3, 5, 7, 3)  # of the four choices; the last is the Xception block, three depthwise convolutions deep
REPEATS: dict[str, tuple[int, ...]] = {"300M": (4, 4, 8, 4), "1.3G": (8, 8, 16, 8), "3.8G": (8, 8, 16, 8)}
CHANNELS: dict[str, tuple[int, ...]] = {  # of the stem and of the four stages
    "300M": (16, 64, 160, 320, 640),
    "1.3G": (48, 96, 240, 480, 960),
    "3.8G": (72, 172, 432, 864, 1728),
}
_LARGE = "0031210203123320211320222131033313333333"
SEARCHED: dict[tuple[str, str], str] = {
    ("coco_fpn", "300M"): "21202112331300313132",
    ("coco_retinanet", "300M"): "23113213311133203333",
    ("voc_fpn", "300M"): "21031303201133333331",
    ("voc_retinanet", "300M"): "13002333233332202311",
    ("coco_fpn", "1.3G"): _LARGE,
    ("coco_fpn", "3.8G"): _LARGE,
}


class DetNAS(nn.Module):
    """Stem and four stages of ShuffleNetV2 blocks, each of one of four kinds, as an evolutionary search left them.

    The kinds are 0, 1, 2: ShuffleNetV2's block with a depthwise 3x3, 5x5 or 7x7; 3: an Xception block, three depthwise
    3x3. The networks are those that the authors publish: searched on COCO or VOC, with an FPN or a RetinaNet around
    them. 300M, 1.3G and 3.8G (multiply-adds at 224 px) have 20, 40 and 40 blocks; the larger two are one search.

    Args:
        size: which search space.
        searched: which published network; only ``coco_fpn`` is there in all sizes.
        choices: kinds of the blocks, in order, instead of a published network (20 or 40 of 0 to 3).
        levels: levels to return; level ``l`` (2 to 5) has stride ``2 ** l``.
        norm: normalisation layer.
        activation: activation layer.

    Raises:
        ModelError: a network nobody published, choices that are not one of 0 to 3 for each block, a level it lacks.

    Source: DetNAS: Backbone Search for Object Detection, 2019, arXiv:1903.10979 (architectures from the authors' code)
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        size: Size = "300M",
        searched: Searched = "coco_fpn",
        choices: Sequence[int] | None = None,
        levels: Sequence[int] = (2, 3, 4, 5),
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Activation, Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        if choices is None and (searched, size) not in SEARCHED:
            raise ModelError(f"no network was published for searched={searched} of {size}: give its choices")
        self.choices = checked(
            list(map(int, SEARCHED[searched, size])) if choices is None else list(choices), sum(REPEATS[size])
        )
        self.levels = chosen(levels, range(2, 6), "detnas")
        self.channels = [CHANNELS[size][level - 1] for level in self.levels]
        self.strides = [2**level for level in self.levels]
        stem = CHANNELS[size][0]
        self.stem = ConvNormAct(3, stem, 3, 2, norm=norm, activation=activation)
        self.blocks = nn.ModuleList()
        for (before, after, stride), choice in zip(blocks(size, self.levels[-1]), self.choices, strict=False):
            self.blocks.append(ShuffleBlock(before, after, stride, choice, norm, activation))
        self.ends = stage_ends(size, self.levels)
        init_shuffle(self)

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        images = self.stem(images)
        features = []
        for place, block in enumerate(self.blocks):
            images = block(images)
            if place in self.ends:
                features.append(images)
        return features


class ShuffleBlock(nn.Module):
    """ShuffleNetV2's block of a chosen kind: one half of the channels passes by, the other is worked on.

    The halves are the even and the odd channels: what ShuffleNetV2's shuffle after the block before comes to. With
    stride 2 nothing is split: a depthwise and a 1x1 convolution halve the size of what passes by.

    Args:
        in_channels: channels that come in; even.
        channels: channels that go out; as many as come in where the stride is 1.
        stride: 1 or 2.
        choice: 0, 1, 2: 1x1, depthwise 3x3, 5x5 or 7x7, 1x1; 3: three times depthwise 3x3 and 1x1.
        norm: normalisation layer.
        activation: activation layer.

    Source: DetNAS, 2019, arXiv:1903.10979, section 3.2; ShuffleNet V2, 2018, arXiv:1807.11164
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        choice: int,
        norm: Layer = nn.BatchNorm2d,
        activation: Activation = nn.ReLU,
    ):
        super().__init__()
        kernel, width = KERNELS[choice], channels // 2
        before, added = (in_channels, channels - in_channels) if stride == 2 else (in_channels // 2, width)
        if choice == 3:
            layers: list[nn.Module] = []
            for number, (x, y) in enumerate(((before, width), (width, width), (width, added))):
                layers += separable(x, y, 3, 1 if number else stride, norm, activation)
        else:
            layers = [
                ConvNormAct(before, width, 1, norm=norm, activation=activation),
                *separable(width, added, kernel, stride, norm, activation),
            ]
        self.path = nn.Sequential(*layers)
        self.passing = (
            nn.Sequential(*separable(in_channels, in_channels, kernel, 2, norm, activation)) if stride == 2 else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` to ``[B, channels, ceil(H / stride), ceil(W / stride)]``."""
        if self.passing is None:
            return torch.cat([x[:, ::2], self.path(x[:, 1::2])], dim=1)
        return torch.cat([self.passing(x), self.path(x)], dim=1)


def separable(
    in_channels: int, channels: int, kernel: int, stride: int, norm: Layer, activation: Activation
) -> list[nn.Module]:
    """Depthwise convolution and norm, 1x1 convolution, norm and activation."""
    return [
        ConvNormAct(in_channels, in_channels, kernel, stride, norm=norm, activation=None, groups=in_channels),
        ConvNormAct(in_channels, channels, 1, norm=norm, activation=activation),
    ]


def blocks(size: str, last: int) -> list[tuple[int, int, int]]:
    """Channels in, channels out and stride of every block up to level ``last``."""
    before, *widths = CHANNELS[size]
    found = []
    for width, repeat in zip(widths[: last - 1], REPEATS[size], strict=False):
        for place in range(repeat):
            found.append((before, width, 1 if place else 2))
            before = width
    return found


def stage_ends(size: str, levels: Sequence[int]) -> list[int]:
    """Places of the blocks that the levels end with."""
    return [sum(REPEATS[size][: level - 1]) - 1 for level in levels]


def checked(choices: Sequence[int], count: int) -> list[int]:
    """The choices, if there is one of 0 to 3 for each of ``count`` blocks."""
    if len(choices) != count or not set(choices) <= set(range(len(KERNELS))):
        raise ModelError(f"choices must be {count} numbers of 0 to 3, one a block, got {list(choices)}")
    return list(choices)

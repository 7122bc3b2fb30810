"""SpineNet: blocks of all scales in a learned order, each fed by two others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from torso.backbones.levels import chosen
from torso.config import Role
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.init import init_weights
from torso.nn.residual import basic_block, bottleneck
from torso.structures import Features

Activation = Callable[[], nn.Module]
NORM = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
Depth = Literal["49S", "49", "96", "143"]


class Spec(NamedTuple):
    """A block of the graph: its level, bottleneck or basic, the two blocks it hears, whether its level goes out."""

    level: int
    is_bottleneck: bool
    parents: tuple[int, int]
    is_output: bool = False


STEM = (Spec(2, True, (-1, -1)), Spec(2, True, (0, 0)))  # blocks 0 and 1 come in a row, without resampling
PERMUTED = (  # blocks 2 to 17, as the search left them
    Spec(2, True, (0, 1)),
    Spec(4, False, (0, 1)),
    Spec(3, True, (2, 3)),
    Spec(4, True, (2, 4)),
    Spec(6, False, (3, 5)),
    Spec(4, True, (3, 5)),
    Spec(5, False, (6, 7)),
    Spec(7, False, (6, 8)),
    Spec(5, True, (8, 9)),
    Spec(5, True, (8, 10)),
    Spec(4, True, (5, 10), True),
    Spec(3, True, (4, 10), True),
    Spec(5, True, (7, 12), True),
    Spec(7, True, (5, 14), True),
    Spec(6, True, (12, 14), True),
    Spec(2, True, (2, 13), True),
)
BLOCKS = (*STEM, *PERMUTED)
WIDTHS = {2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}


class Scaling(NamedTuple):
    """How a member of the family differs from SpineNet-49."""

    width: float  # factor of the channels inside
    alpha: float  # share of the channels that resampling works with
    repeats: int
    channels: int  # of the levels that go out


FAMILY: dict[str, Scaling] = {
    "49S": Scaling(0.65, 0.5, 1, 128),
    "49": Scaling(1.0, 0.5, 1, 256),
    "96": Scaling(1.0, 0.5, 2, 256),
    "143": Scaling(1.0, 1.0, 3, 256),
}


class SpineNet(nn.Module):
    """A stem, then 16 blocks between stride 4 and stride 128 in the order and with the connections of a search.

    Every block sums two earlier ones, resampled to its size: smaller by a strided 3x3 convolution and 3x3 max poolings,
    larger by nearest neighbours. The last block of each level goes out through a 1x1 convolution, all levels with equal
    channels, so that a detector needs no pyramid on top.

    Pictures may have any size: a level is the size of the picture over its stride, rounded up, and upsampling goes to
    exactly that. Only where 128 divides both sides does a cell of every level cover the same pixels everywhere.

    Args:
        depth: the family's member: ``"49S"`` (0.65 of the channels), ``"49"``, ``"96"`` (each block twice) or ``"143"``
            (thrice).
        levels: levels to return, 2 to 7; level ``l`` has stride ``2 ** l``. Blocks no level depends on are not built.
        norm: normalisation layer; the default has the paper's momentum and epsilon.
        activation: activation layer; the authors' best detectors have ``silu``.

    Raises:
        ModelError: a level it does not have.

    Source: SpineNet: Learning Scale-Permuted Backbone for Recognition and Localization, 2019, arXiv:1912.05027
        (connections and weight initialisation from the authors' code)
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        depth: Depth = "49",
        levels: Sequence[int] = (3, 4, 5, 6, 7),
        norm: Annotated[Layer, Role("norm", factory=True)] = NORM,
        activation: Annotated[Activation, Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        scaling = FAMILY[depth]
        self.levels = chosen(levels, range(2, 8), "spinenet")
        self.channels = [scaling.channels] * len(self.levels)
        self.strides = [2**level for level in self.levels]
        self.parents = wiring()
        self.outputs = [max(i for i, spec in enumerate(BLOCKS) if spec.level == level) for level in self.levels]
        self.stem = nn.Sequential(
            ConvNormAct(3, 64, 7, 2, norm=norm, activation=activation), nn.MaxPool2d(3, 2, padding=1)
        )
        self.activation = activation()
        self.resampling, self.blocks, self.ends = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for place in needed(self.outputs, self.parents):
            before = (64 if place == 0 else width(0, scaling)) if place < 2 else width(place, scaling)
            self.blocks[str(place)] = group(before, place, scaling, norm, activation)
            for parent in BLOCKS[place].parents if place >= 2 else ():
                self.resampling[f"{parent}-{place}"] = Resample(parent, place, scaling, norm, activation)
        for place in self.outputs:
            self.ends[str(place)] = ConvNormAct(
                width(place, scaling), scaling.channels, 1, norm=norm, activation=activation
            )
        init_weights(self, "truncated")

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to the chosen levels."""
        height, wide = images.shape[-2:]
        x = self.stem(images)
        built: dict[int, Tensor] = {}
        for name, block in self.blocks.items():
            place = int(name)
            if place >= 2:
                cell = 2 ** BLOCKS[place].level
                size = (-(-height // cell), -(-wide // cell))
                first, second, *loose = self.parents[place]
                x = self.resampling[f"{first}-{place}"](built[first], size)
                x = x + self.resampling[f"{second}-{place}"](built[second], size)
                for other in loose:
                    x = x + built[other]
                x = self.activation(x)
            x = built[place] = block(x)
        return [end(built[int(name)]) for name, end in self.ends.items()]


class Resample(nn.Module):
    """A block's output in the size and channels of another: 1x1 to few channels, resize, 1x1 to the target's."""

    def __init__(self, source: int, target: int, scaling: Scaling, norm: Layer, activation: Activation):
        super().__init__()
        few = int(inner(source, scaling) * scaling.alpha)
        steps = BLOCKS[target].level - BLOCKS[source].level
        layers: list[nn.Module] = [ConvNormAct(width(source, scaling), few, 1, norm=norm, activation=activation)]
        if steps > 0:
            layers.append(ConvNormAct(few, few, 3, 2, norm=norm, activation=activation))
            layers += [nn.MaxPool2d(3, 2, padding=1) for _ in range(steps - 1)]
        self.reduce = nn.Sequential(*layers)
        self.expand = ConvNormAct(few, width(target, scaling), 1, norm=norm, activation=None)
        self.is_up = steps < 0

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """``[B, C, H, W]`` to ``[B, channels of the target, *size]``."""
        x = self.reduce(x)
        if self.is_up:
            x = functional.interpolate(x, size=size)  # nearest neighbours
        out: Tensor = self.expand(x)
        return out


def group(in_channels: int, place: int, scaling: Scaling, norm: Layer, activation: Activation) -> nn.Sequential:
    """A block of the graph: one residual block, or two or three in a row."""
    make = bottleneck if BLOCKS[place].is_bottleneck else basic_block
    channels = width(place, scaling)
    layers = nn.Sequential()
    for number in range(scaling.repeats):
        layers.append(make(channels if number else in_channels, channels, norm=norm, activation=activation))
    return layers


def inner(place: int, scaling: Scaling) -> int:
    """Channels of the 3x3 convolutions in a block."""
    return int(WIDTHS[BLOCKS[place].level] * scaling.width)


def width(place: int, scaling: Scaling) -> int:
    """Channels that a block gives out: a bottleneck gives four times its inner ones."""
    return inner(place, scaling) * (4 if BLOCKS[place].is_bottleneck else 1)


def wiring() -> list[list[int]]:
    """The blocks each block sums: the two it resamples, then, for an output, those nobody has used yet of its shape."""
    used = [False] * len(BLOCKS)
    parents: list[list[int]] = [[], [0]]
    for place, spec in enumerate(PERMUTED, start=len(STEM)):
        heard = list(spec.parents)
        for other in spec.parents:
            used[other] = True
        if spec.is_output:
            for other in range(place):
                alike = BLOCKS[other].level == spec.level and BLOCKS[other].is_bottleneck == spec.is_bottleneck
                if alike and not used[other]:
                    heard.append(other)
                    used[other] = True
        parents.append(heard)
    return parents


def needed(outputs: Sequence[int], parents: Sequence[Sequence[int]]) -> list[int]:
    """The blocks that the outputs depend on, in order."""
    found, waiting = set(outputs), list(outputs)
    while waiting:
        fresh = set(parents[waiting.pop()]) - found
        found |= fresh
        waiting += fresh
    return sorted(found)

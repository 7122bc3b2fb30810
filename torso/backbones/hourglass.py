"""Hourglass networks: down to a few cells and back up to stride 4, adding what was seen on the way down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from torch import Tensor, nn
from torch.nn import functional

from torso.config import ModelError, Role
from torso.nn.conv import ConvNormAct, Layer
from torso.nn.residual import Residual, basic_block
from torso.structures import Features

Activation = Callable[[], nn.Module]
Unit = Literal["basic", "preact"]


class Hourglass(nn.Module):
    """A stem to stride 4 and one or more hourglasses in a row, each giving features of stride 4.

    As it stands it is CornerNet's Hourglass-104: two hourglasses, two 3x3 convolutions a unit, five halvings by strided
    convolutions. ``unit="preact", widths=(256,) * 5, repeats=(1,) * 5, stacks=1`` is a single stack of Newell's: units
    are pre-activated bottlenecks, halvings are max poolings. The predictions that Newell feeds back between two stacks
    belong to a head and are not here; the features are.

    Args:
        stacks: hourglasses in a row.
        widths: channels at stride 4 and after each halving.
        repeats: units at each size; the last is the bottom of the hourglass.
        unit: ``"basic"`` (CornerNet) or ``"preact"`` (Newell).
        returned: ``"last"``: one level; ``"all"``: a level for every stack, all of stride 4, for losses in between.
        channels: channels that go out.
        norm: normalisation layer.
        activation: activation layer.

    Raises:
        ModelError: no stack, no halving, or not one repeat for each width.

    Source: Stacked Hourglass Networks for Human Pose Estimation, 2016, arXiv:1603.06937; CornerNet, 2018,
        arXiv:1808.01244 (section 5; weights as torch's default convolution, which its authors' code keeps)
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        stacks: int = 2,
        widths: Sequence[int] = (256, 256, 384, 384, 384, 512),
        repeats: Sequence[int] = (2, 2, 2, 2, 2, 4),
        unit: Unit = "basic",
        returned: Literal["last", "all"] = "last",
        channels: int = 256,
        norm: Annotated[Layer, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Activation, Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        if stacks < 1 or len(widths) < 2 or len(widths) != len(repeats):
            raise ModelError(
                "an hourglass has at least one stack, at least two widths (one halving) and as many repeats, got "
                f"stacks={stacks}, widths={list(widths)}, repeats={list(repeats)}"
            )
        self.returned = returned
        outputs = stacks if returned == "all" else 1
        self.channels, self.strides = [channels] * outputs, [4] * outputs
        width = widths[0]
        self.stem = stem(width, unit, norm, activation)
        self.glasses, self.outs = nn.ModuleList(), nn.ModuleList()
        for _ in range(stacks):
            glass: list[nn.Module] = [Glass(widths, repeats, unit, norm, activation)]
            if unit == "preact":  # Newell: units after the hourglass, then a 1x1
                glass.append(units(unit, width, width, repeats[0], norm=norm, activation=activation))
            self.glasses.append(nn.Sequential(*glass))
            kernel = 1 if unit == "preact" else 3
            self.outs.append(ConvNormAct(width, channels, kernel, norm=norm, activation=activation))
        self.merges = nn.ModuleList(Merge(width, channels, unit, norm, activation) for _ in range(stacks - 1))

    def forward(self, images: Tensor) -> Features:
        """Normalised pictures ``[B, 3, H, W]`` to ``[B, channels, ceil(H / 4), ceil(W / 4)]``, one or one a stack."""
        x = self.stem(images)
        features: Features = []
        for place, (glass, out) in enumerate(zip(self.glasses, self.outs, strict=True)):
            if place:
                x = self.merges[place - 1](x, features[-1])
            features.append(out(glass(x)))
        return features if self.returned == "all" else features[-1:]


class Glass(nn.Module):
    """One hourglass: units beside; a halving, a smaller hourglass, units and nearest upsampling; their sum."""

    def __init__(self, widths: Sequence[int], repeats: Sequence[int], unit: Unit, norm: Layer, activation: Activation):
        super().__init__()
        (width, below, *_), (repeat, deeper, *_) = widths, repeats
        self.beside = units(unit, width, width, repeat, norm=norm, activation=activation)
        self.down = (
            units("basic", width, below, repeat, 2, norm=norm, activation=activation)
            if unit == "basic"
            else nn.Sequential(
                nn.MaxPool2d(2, ceil_mode=True), units(unit, width, below, repeat, norm=norm, activation=activation)
            )
        )
        self.inside: nn.Module = (
            Glass(widths[1:], repeats[1:], unit, norm, activation)
            if len(widths) > 2
            else units(unit, below, below, deeper, norm=norm, activation=activation)
        )
        self.up = units(unit, below, width, repeat, norm=norm, activation=activation, change_last=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, width, H, W]`` to the same."""
        low = self.up(self.inside(self.down(x)))
        beside: Tensor = self.beside(x)
        return beside + functional.interpolate(low, size=beside.shape[-2:])  # nearest; exact also for odd sizes


class Merge(nn.Module):
    """What the next hourglass gets of what the last one got and what it gave.

    CornerNet: both through a 1x1 and a norm, summed, activated, and a unit. Newell: the one plus a 1x1 of the other.
    """

    def __init__(self, width: int, channels: int, unit: Unit, norm: Layer, activation: Activation):
        super().__init__()
        self.before: nn.Module = nn.Identity()
        self.after: nn.Module = nn.Conv2d(channels, width, 1)
        self.unit: nn.Module = nn.Identity()
        if unit == "basic":
            self.before = ConvNormAct(width, width, 1, norm=norm, activation=None)
            self.after = ConvNormAct(channels, width, 1, norm=norm, activation=None)
            self.unit = nn.Sequential(activation(), basic_block(width, width, norm=norm, activation=activation))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """``[B, width, H, W]`` and ``[B, channels, H, W]`` to ``[B, width, H, W]``."""
        out: Tensor = self.unit(self.before(before) + self.after(after))
        return out


def stem(width: int, unit: Unit, norm: Layer, activation: Activation) -> nn.Sequential:
    """Pictures to stride 4: a strided 7x7, then a strided unit (CornerNet), or units and a max pooling (Newell)."""
    if unit == "basic":
        first = ConvNormAct(3, width // 2, 7, 2, norm=norm, activation=activation)
        return nn.Sequential(first, basic_block(width // 2, width, 2, norm=norm, activation=activation))
    narrow, half = max(width // 4, 1), max(width // 2, 1)
    return nn.Sequential(
        ConvNormAct(3, narrow, 7, 2, norm=norm, activation=activation),
        preact(narrow, half, norm=norm, activation=activation),
        nn.MaxPool2d(2, ceil_mode=True),
        preact(half, half, norm=norm, activation=activation),
        preact(half, width, norm=norm, activation=activation),
    )


def units(
    unit: Unit,
    in_channels: int,
    channels: int,
    repeat: int,
    stride: int = 1,
    *,
    norm: Layer,
    activation: Activation,
    change_last: bool = False,
) -> nn.Sequential:
    """Units in a row; the first changes size and channels, or the last where ``change_last`` says so."""
    layers = nn.Sequential()
    for place in range(repeat):
        changing = place == (repeat - 1 if change_last else 0)
        before = in_channels if changing or change_last else channels
        after = in_channels if change_last and not changing else channels
        if unit == "basic":
            layers.append(basic_block(before, after, stride if changing else 1, norm=norm, activation=activation))
        else:
            layers.append(preact(before, after, norm=norm, activation=activation))
    return layers


def preact(in_channels: int, channels: int, *, norm: Layer, activation: Activation) -> Residual:
    """Norm and activation before each of 1x1 to half of ``channels``, 3x3 and 1x1 (figure 4 of Newell's)."""
    width = max(channels // 2, 1)
    path = nn.Sequential(
        ConvNormAct(in_channels, width, 1, norm=norm, activation=activation, order="nac"),
        ConvNormAct(width, width, 3, norm=norm, activation=activation, order="nac"),
        ConvNormAct(width, channels, 1, norm=norm, activation=activation, order="nac"),
    )
    beside = None if in_channels == channels else nn.Conv2d(in_channels, channels, 1)
    return Residual(path, beside)

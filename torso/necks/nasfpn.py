"""The feature pyramid that a search found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from torso.config import Role
from torso.necks.resample import check_levels, coarser_strides, fit
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features


class Merge(NamedTuple):
    """A merging cell: two maps become one at a level."""

    name: str
    operation: Literal["sum", "attention"]
    level: str  # the level whose size it has
    first: str  # with attention, the map whose maximum weighs the second one
    second: str
    third: str | None = None  # a level that nothing else uses is added to the cell of its level


# Figure 6 of the paper. P3 to P7 are the levels that come in; a name that is given again is that level from then on.
MERGES = (
    Merge("middle", "attention", "P4", "P4", "P6"),
    Merge("middle", "sum", "P4", "middle", "P4"),
    Merge("P3", "sum", "P3", "middle", "P3"),
    Merge("P4", "sum", "P4", "P3", "middle"),
    Merge("P5", "attention", "P5", "P3", "P4", "P5"),
    Merge("P7", "attention", "P7", "middle", "P5", "P7"),
    Merge("P6", "attention", "P6", "P5", "P7"),
)
LEVELS = ("P3", "P4", "P5", "P6", "P7")


class NASFPN(nn.Module):
    """Stacked pyramids of seven merging cells on five levels, of the structure that the authors' search found.

    ``[B, in_channels[i], H_i, W_i]`` a level to ``[B, channels, H_i, W_i]``; fewer than five levels are filled up with
    coarser ones by max pooling of stride 2. A cell brings two maps to the size of its level, by max pooling or nearest
    neighbour, joins them by their sum or by attention (``first + sigmoid(max(first)) * second``), and ends with
    activation, 3x3 convolution and norm. mmdet pools the average for attention; here it is the maximum, as in the
    authors' code.

    Args:
        in_channels: channels of the levels that come in (wired).
        strides: their strides (wired).
        channels: channels of every level that goes out (paper: 256 or 384).
        repeats: how many pyramids are stacked (paper: 3 to 7).
        norm: normalisation after every convolution.
        activation: activation before the convolution of a cell.

    Raises:
        ValueError: the levels do not fit each other, or are more than five.

    Source: NAS-FPN: Learning Scalable Feature Pyramid Architecture for Object Detection, 2019, arXiv:1904.07392
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        repeats: int = 7,
        norm: Annotated[Layer | None, Role("norm", factory=True)] = nn.BatchNorm2d,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = nn.ReLU,
    ):
        super().__init__()
        check_levels("nasfpn", in_channels, strides, most=len(LEVELS))
        if repeats < 1:
            raise ValueError(f"nasfpn needs repeats >= 1, got {repeats}")
        self.strides = coarser_strides(strides, len(LEVELS) - len(strides))
        self.channels = [channels] * len(LEVELS)
        self.lateral = nn.ModuleList(ConvNormAct(c, channels, 1, norm=norm, activation=None) for c in in_channels)
        self.cells = nn.ModuleList(
            nn.ModuleList(
                ConvNormAct(channels, channels, 3, norm=norm, activation=activation, order="acn") for _ in MERGES
            )
            for _ in range(repeats)
        )
        self.of = dict(zip(LEVELS, self.strides, strict=True)) | {"middle": self.strides[1]}

    def forward(self, features: Features) -> Features:
        """The backbone's levels to five."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        while len(levels) < len(LEVELS):
            levels.append(functional.max_pool2d(levels[-1], 2, ceil_mode=True))
        maps = dict(zip(LEVELS, levels, strict=True))
        for pyramid in self.cells:
            for merge, conv in zip(MERGES, pyramid.children(), strict=True):
                size = maps[merge.level].shape[-2:]
                first, second = (self._resample(maps[x], x, merge.level, size) for x in (merge.first, merge.second))
                x = first + (
                    second * first.amax((2, 3), keepdim=True).sigmoid() if merge.operation == "attention" else second
                )
                maps[merge.name] = conv(x if merge.third is None else x + maps[merge.third])
        return [maps[name] for name in LEVELS]

    def _resample(self, x: Tensor, name: str, level: str, size: Sequence[int]) -> Tensor:
        ratio = self.of[level] // self.of[name]
        return fit(functional.max_pool2d(x, ratio, ceil_mode=True) if ratio > 1 else x, size)

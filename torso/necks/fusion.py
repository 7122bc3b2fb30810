"""Levels joined by learned weights: the weighted sum, a node, and cells of nodes (EfficientDet's family of necks)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from torso.necks.resample import Resample, check_levels, coarser_strides
from torso.nn.conv import ConvNormAct, Layer
from torso.structures import Features

Fusion = Literal["fast", "softmax", "sum"]
Nodes = list[tuple[int, list[int]]]
"""A cell's nodes in order: (level, inputs). Input ``i`` is level ``i`` of what comes in, or node ``i - levels``."""


class WeightedFusion(nn.Module):
    """Multi-input weighted residual connection (MiWRC): a sum of maps, each times a learned number.

    Args:
        inputs: how many maps are summed.
        method: ``"fast"``: weights ``relu(w) / (sum(relu(w)) + eps)``; ``"softmax"``: ``softmax(w)``; ``"sum"``: all 1,
            nothing is learned.
        eps: keeps fast weights finite where all are 0.

    Source: EfficientDet: Scalable and Efficient Object Detection, 2019, arXiv:1911.09070, section 3.3
    """

    def __init__(self, inputs: int, method: Fusion = "fast", eps: float = 1e-4):
        super().__init__()
        if method not in {"fast", "softmax", "sum"}:
            raise ValueError(f"fusion is fast, softmax or sum, got {method!r}")
        self.inputs, self.method, self.eps = inputs, method, eps
        self.weight = None if method == "sum" else nn.Parameter(torch.ones(inputs))

    def weights(self) -> list[Tensor | None]:
        """A number for each input; None where it is 1."""
        if self.weight is None:
            return [None] * self.inputs
        if self.method == "softmax":
            return list(self.weight.softmax(0).unbind())
        positive = self.weight.relu()
        return list((positive / (positive.sum() + self.eps)).unbind())

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of one shape to one of that shape."""
        return add([x if w is None else x * w for x, w in zip(maps, self.weights(), strict=True)])


class FusionNode(nn.Module):
    """Inputs brought to one level, their weighted sum, activation, 3x3 convolution, norm.

    Args:
        in_channels: channels of each input.
        strides: stride of each input.
        target: stride of the node's level.
        channels: channels that go out.
        fusion: how inputs are weighted (`WeightedFusion`).
        separable: depthwise 3x3, then 1x1, instead of a full 3x3 convolution.
        norm: after the convolution, and after those that match channels.
        activation: before the convolution.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        target: int,
        channels: int,
        *,
        fusion: Fusion,
        separable: bool,
        norm: Layer | None,
        activation: Callable[[], nn.Module],
    ):
        super().__init__()
        self.fuse = WeightedFusion(len(in_channels), fusion)
        self.resample = nn.ModuleList(
            Resample(c, channels, stride, target, norm) for c, stride in zip(in_channels, strides, strict=True)
        )
        self.activation = activation()
        self.depthwise = (
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False) if separable else nn.Identity()
        )
        self.conv = ConvNormAct(channels, channels, 1 if separable else 3, norm=norm, activation=None)

    def forward(self, inputs: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The inputs in order, to ``[B, channels, *size]``."""
        weights = self.fuse.weights()
        total = add([r(x, size, w) for r, x, w in zip(self.resample, inputs, weights, strict=True)])
        output: Tensor = self.conv(self.depthwise(self.activation(total)))
        return output


class FusionPyramid(nn.Module):
    """Cells of fusion nodes, one after another, on a backbone's levels and coarser ones pooled from the last.

    Args:
        in_channels: channels of the levels that come in.
        strides: their strides.
        channels: channels of every level that goes out.
        extra: coarser levels; the first has a 1x1 convolution before its pooling where channels differ.
        nodes: the nodes of a cell for a number of levels. The last node of each level is what it becomes.
        repeats: how many cells.
        fusion: how inputs are weighted (`WeightedFusion`).
        separable: depthwise separable convolutions in the nodes.
        norm: normalisation layer.
        activation: activation layer.
    """

    def __init__(
        self,
        name: str,
        in_channels: Sequence[int],
        strides: Sequence[int],
        *,
        channels: int,
        extra: int,
        nodes: Callable[[int], Nodes],
        repeats: int,
        fusion: Fusion,
        separable: bool,
        norm: Layer | None,
        activation: Callable[[], nn.Module],
    ):
        super().__init__()
        check_levels(name, in_channels, strides)
        levels = len(strides) + extra
        if extra < 0 or repeats < 1:
            raise ValueError(f"{name} needs extra >= 0 and repeats >= 1, got {extra} and {repeats}")
        if levels < 2:
            raise ValueError(f"{name} joins at least 2 levels, but the backbone gives 1 and extra is 0")
        self.strides = coarser_strides(strides, extra)
        before = [*in_channels, *([channels] * extra)]
        self.coarser = nn.ModuleList(
            Resample(in_channels[-1] if i == 0 else channels, channels, stride, 2 * stride, norm)
            for i, stride in enumerate(self.strides[len(strides) - 1 : -1])
        )
        graph = nodes(levels)
        self.cells = nn.ModuleList(
            nn.ModuleList(_nodes(graph, widths, self.strides, channels, fusion, separable, norm, activation))
            for widths in [before, *([[channels] * levels] * (repeats - 1))]
        )
        self.graph = graph

    def forward(self, features: Features) -> Features:
        """The backbone's levels to all levels."""
        levels = list(features)
        for resample in self.coarser:
            height, width = levels[-1].shape[-2:]
            levels.append(resample(levels[-1], ((height + 1) // 2, (width + 1) // 2)))
        sizes = [x.shape[-2:] for x in levels]
        for cell in self.cells:
            maps = list(levels)
            for node, (level, inputs) in zip(cell.children(), self.graph, strict=True):
                maps.append(node([maps[i] for i in inputs], sizes[level]))
                levels[level] = maps[-1]
        return levels


def _nodes(
    graph: Nodes,
    widths: list[int],
    strides: list[int],
    channels: int,
    fusion: Fusion,
    separable: bool,
    norm: Layer | None,
    activation: Callable[[], nn.Module],
) -> list[FusionNode]:
    """The nodes of a cell whose levels come in with the channels ``widths``."""
    widths = widths + [channels] * len(graph)
    places = [*range(len(strides)), *(level for level, _ in graph)]
    return [
        FusionNode(
            [widths[i] for i in inputs],
            [strides[places[i]] for i in inputs],
            strides[level],
            channels,
            fusion=fusion,
            separable=separable,
            norm=norm,
            activation=activation,
        )
        for level, inputs in graph
    ]


def add(maps: Sequence[Tensor]) -> Tensor:
    """The sum of maps of one shape."""
    total = maps[0]
    for x in maps[1:]:
        total = total + x
    return total

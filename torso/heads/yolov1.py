"""YOLOv1's head: all of the picture says what is in each cell of one fixed grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.config import Role
from torso.heads.dense import BRANCHES, HeadOutput, joined_outputs
from torso.nn.activations import LEAKY
from torso.nn.init import init_prior
from torso.structures import Features


class YOLOv1(nn.Module):
    """Two layers from a map of S x S cells to what each cell says; its classes are the same for all of its slots.

    With ``grid`` they are fully connected, from all cells to all cells, and the map must have that size: 448 px
    pictures at stride 64 give the paper's ``[7, 7]``. With ``local`` the first layer is locally connected: a 3x3
    convolution with weights of its own in every cell, as in Darknet's ``yolov1.cfg``. Without ``grid`` both layers are
    1x1 convolutions, for maps of any size and any number of levels (the toy grids).

    Args:
        in_channels: channels of the levels; one level with ``grid`` (wired).
        num_classes: logits a cell C (wired).
        num_priors: slots a cell of each level: 2 in the paper (wired).
        coder_size: numbers a box takes (wired).
        branches: what else the criterion asks for (wired).
        grid: height and width of the map in cells, or None for a convolutional form.
        first: the first layer with ``grid``.
        hidden: numbers the first layer makes: in all (4096 in the paper), or in each cell where it is ``local`` (256)
            or there is no ``grid``.
        dropout: share of them dropped, 0..1.
        activation: activation after the first layer; Darknet's leaky ReLU of slope 0.1 by default.
        prior_probability: the score every class, and the objectness, starts with.

    Raises:
        ValueError: ``grid`` with several levels, or without cells; a map of another size (when called).

    Source: You Only Look Once: Unified, Real-Time Object Detection, 2015, arXiv:1506.02640
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_priors: Sequence[int],
        coder_size: int = 4,
        branches: Sequence[str] = (),
        *,
        grid: tuple[int, int] | None = None,
        first: Literal["connected", "local"] = "connected",
        hidden: int = 256,
        dropout: float = 0.5,
        activation: Annotated[Callable[[], nn.Module], Role("activation", factory=True)] = LEAKY,
        prior_probability: float = 0.5,
    ):
        super().__init__()
        self.num_priors = list(num_priors)
        if grid is not None and (len(in_channels) != 1 or min(grid) < 1):
            raise ValueError(
                f"a grid of {list(grid)} cells needs sides of at least 1 and a single level, got {len(in_channels)} "
                "levels: choose one of the backbone's, or leave out model.head.grid"
            )
        sides = None if grid is None else (grid[0], grid[1])
        sizes = {"box": coder_size, **{name: BRANCHES[name] for name in branches}}
        self.cells = nn.ModuleList()
        for channels, slots in zip(in_channels, num_priors, strict=True):
            layers, features = _first(channels, hidden, sides, first == "local")
            layers += [activation(), nn.Dropout(dropout)] + [nn.Flatten()] * (sides is not None)
            start = nn.Sequential(*layers)
            self.cells.append(_Cells(start, features, num_classes, slots, sizes, sides, prior_probability))

    def forward(self, features: Features) -> HeadOutput:
        """Features to logits ``[B, P, C]``, deltas ``[B, P, D]`` and the branches."""
        return joined_outputs([cells(x) for cells, x in zip(self.cells, features, strict=True)])

    def reset_classes(self, num_classes: int) -> None:
        """New layers of class logits for other classes; all else stays."""
        for cells in self.cells:
            assert isinstance(cells, _Cells)
            cells.reset_classes(num_classes)


class _Cells(nn.Module):
    """The head on one level."""

    def __init__(
        self,
        first: nn.Module,
        features: int,
        num_classes: int,
        slots: int,
        sizes: dict[str, int],
        grid: tuple[int, int] | None,
        prior_probability: float,
    ):
        super().__init__()
        self.first, self.features = first, features
        self.slots, self.sizes, self.grid, self.prior_probability = slots, sizes, grid, prior_probability
        self.class_logits = self._classes(num_classes)
        self.slot_values = nn.ModuleDict({name: self._last(slots * size) for name, size in sizes.items()})
        if "objectness" in sizes:
            init_prior(self.slot_values["objectness"], prior_probability)

    def forward(self, x: Tensor) -> HeadOutput:
        """``[B, channels, H, W]`` to what each slot of each cell says."""
        height, width = x.shape[-2:]
        if self.grid is not None and (height, width) != self.grid:
            raise ValueError(
                f"this head is made for a grid of {self.grid[0]} x {self.grid[1]} cells, but the picture gives "
                f"{height} x {width}: change data.size, or model.head.grid"
            )
        x = self.first(x)
        classes = self._of_cells(self.class_logits, x, 1).expand(-1, -1, self.slots, -1)  # [B, H * W, slots, C]
        values = {name: self._of_cells(layer, x, self.slots).flatten(1, 2) for name, layer in self.slot_values.items()}
        deltas = values.pop("box")
        extra = {name: rows if self.sizes[name] > 1 else rows.squeeze(-1) for name, rows in values.items()}
        return HeadOutput(classes.flatten(1, 2), deltas, extra)

    def _of_cells(self, layer: nn.Module, x: Tensor, slots: int) -> Tensor:
        """``[B, H * W, slots, K]``, cells row by row."""
        rows = layer(x)
        if self.grid is None:
            rows = rows.permute(0, 2, 3, 1).flatten(1, 2)  # [B, H * W, slots * K]
            return rows.reshape(*rows.shape[:2], slots, -1)  # type: ignore[no-any-return]
        return rows.reshape(rows.shape[0], self.grid[0] * self.grid[1], slots, -1)  # type: ignore[no-any-return]

    def _last(self, count: int) -> nn.Conv2d | nn.Linear:
        """The second layer, for ``count`` numbers a cell."""
        layer: nn.Conv2d | nn.Linear
        if self.grid is None:
            layer = nn.Conv2d(self.features, count, 1)
        else:
            layer = nn.Linear(self.features, count * self.grid[0] * self.grid[1])
        nn.init.normal_(layer.weight, std=0.01)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
        return layer

    def _classes(self, num_classes: int) -> nn.Conv2d | nn.Linear:
        layer = self._last(num_classes)
        init_prior(layer, self.prior_probability)
        return layer

    def reset_classes(self, num_classes: int) -> None:
        """A new layer of class logits; all else stays."""
        self.class_logits = self._classes(num_classes).to(self.class_logits.weight)


class LocallyConnected(nn.Module):
    """A 3x3 convolution whose weights differ from cell to cell: ``[B, in_channels, H, W] -> [B, channels, H, W]``.

    Args:
        in_channels: channels that come in.
        channels: channels that go out.
        grid: height and width of the map.

    Source: You Only Look Once, 2015, arXiv:1506.02640 (Darknet's ``[local]``)
    """

    def __init__(self, in_channels: int, channels: int, grid: tuple[int, int]):
        super().__init__()
        self.grid = grid
        cells, taps = grid[0] * grid[1], in_channels * 9
        self.weight = nn.Parameter(torch.empty(cells, taps, channels))
        self.bias = nn.Parameter(torch.zeros(channels, *grid))
        nn.init.normal_(self.weight, std=(2 / taps) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """A map of that size."""
        columns = functional.unfold(x, 3, padding=1).permute(2, 0, 1)  # [H * W, B, in_channels * 9]
        out = torch.bmm(columns, self.weight).permute(1, 2, 0)  # [B, channels, H * W]
        return out.reshape(-1, *self.bias.shape) + self.bias


def _first(channels: int, hidden: int, grid: tuple[int, int] | None, local: bool) -> tuple[list[nn.Module], int]:
    """The first layer, and how many numbers the second one sees."""
    if grid is None:
        return [nn.Conv2d(channels, hidden, 1)], hidden
    cells = grid[0] * grid[1]
    if local:
        return [LocallyConnected(channels, hidden, grid)], hidden * cells
    return [nn.Flatten(), nn.Linear(channels * cells, hidden)], hidden

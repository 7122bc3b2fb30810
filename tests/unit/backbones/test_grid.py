"""The tiny grid CNN: cells, channels, and what a cell sees."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.unit.backbones.cost import on_meta, parameters, shapes
from torso.backbones.grid import Grid


@pytest.mark.part("backbone/grid")
@pytest.mark.parametrize(("stride", "cells"), [(8, 28), (16, 14), (32, 7), (64, 4)])
def test_it_ends_in_one_grid(stride: int, cells: int) -> None:
    grid = on_meta(lambda: Grid(stride, channels=96))
    assert shapes(grid, 224, 224) == [[2, 96, cells, cells]]
    assert (grid.channels, grid.strides) == ([96], [stride])


@pytest.mark.part("backbone/grid")
@pytest.mark.parametrize(("stride", "depth", "pixels"), [(32, 1, 158), (32, 0, 94), (8, 2, 54)])
def test_a_cell_sees_more_than_itself(stride: int, depth: int, pixels: int) -> None:
    """Receptive field: 2 j a convolution, j a pooling, where j is the stride so far."""
    torch.manual_seed(0)
    grid = Grid(stride, width=4, channels=4, depth=depth).double().eval()
    seen = torch.zeros(416, dtype=torch.bool)
    for _ in range(3):  # a max pooling hides most pixels: look at several pictures
        x = torch.randn(1, 3, 416, 416, dtype=torch.float64, requires_grad=True)
        middle = 416 // stride // 2
        (out,) = grid(x)
        seen |= torch.autograd.grad(out[0, :, middle, middle].sum(), x)[0].abs().sum((0, 1, 2)) > 0
    found = seen.nonzero().flatten()
    assert pixels - 4 * stride // 8 <= int(found.max() - found.min()) + 1 <= pixels


def test_channels_double_up_to_the_most() -> None:
    grid = on_meta(lambda: Grid(32, width=16, channels=100, depth=2))
    widths = [layer.out_channels for layer in grid.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [16, 32, 64, 100, 100, 100, 100]
    assert parameters(on_meta(Grid)) < 450_000


@pytest.mark.parametrize("wrong", [{"width": 0}, {"channels": 0}, {"depth": -1}])
def test_sizes_that_are_none_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 and depth at least 0"):
        Grid(**wrong)

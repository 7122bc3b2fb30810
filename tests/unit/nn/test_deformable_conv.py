"""Deformable convolution against torchvision's, against a loop over cells and taps, and as an exported program."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from torso.nn.deformable_conv import DeformableConv

pytestmark = pytest.mark.part("head/rep_points")


def bilinear(plane: list[list[float]], y: float, x: float) -> float:
    """The value between four cells; 0 where a cell is outside."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < len(plane) and 0 <= column < len(plane[0]):
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row][column]
    return total


def test_equals_a_loop_over_cells_and_taps():
    generator = torch.Generator().manual_seed(0)
    layer = DeformableConv(2, 3).double()
    x = torch.randn(1, 2, 4, 5, generator=generator, dtype=torch.float64)
    offsets = torch.randn(1, 18, 4, 5, generator=generator, dtype=torch.float64) * 1.5
    found = layer(x, offsets).detach()
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    for out in range(3):
        for row in range(4):
            for column in range(5):
                total = bias[out]
                for tap in range(9):
                    y = row + tap // 3 - 1 + float(offsets[0, 2 * tap, row, column])
                    at = column + tap % 3 - 1 + float(offsets[0, 2 * tap + 1, row, column])
                    for channel in range(2):
                        total += weight[out][channel][tap // 3][tap % 3] * bilinear(x[0, channel].tolist(), y, at)
                assert abs(float(found[0, out, row, column]) - total) < 1e-12


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (1, 1)])
def test_equals_torchvisions_with_gradients(kernel, stride, masked):
    generator = torch.Generator().manual_seed(kernel + stride)
    layer = DeformableConv(4, 6, kernel, stride).double()
    high, wide = -(-7 // stride), -(-10 // stride)
    shape = (2, 2 * kernel**2, high, wide)
    x = torch.randn(2, 4, 7, 10, generator=generator, dtype=torch.float64, requires_grad=True)
    offsets = (torch.randn(shape, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    mask = torch.rand(2, kernel**2, high, wide, generator=generator, dtype=torch.float64) if masked else None
    mine = layer(x, offsets, mask)
    theirs = deform_conv2d(x, offsets, layer.weight, layer.bias, stride, kernel // 2, mask=mask)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    pull = torch.randn(mine.shape, generator=generator, dtype=torch.float64)
    inputs = [x, offsets, layer.weight, layer.bias]
    for a, b in zip(torch.autograd.grad(mine, inputs, pull), torch.autograd.grad(theirs, inputs, pull), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_without_offsets_it_is_a_convolution():
    layer = DeformableConv(3, 4).double()
    x = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x, x.new_zeros(1, 18, 6, 6)), plain)


def test_in_bfloat16_taps_lie_where_they_should():
    """200 cells to the right bfloat16 knows whole cells only: the offset of half a cell must not be lost."""
    layer = DeformableConv(1, 1, 1, bias=False)
    layer.weight.data.fill_(1)
    ramp = torch.arange(200.0).repeat(1, 1, 1, 1)
    half = torch.zeros(1, 2, 1, 200)
    half[:, 1] = 0.5
    seen = layer.to(torch.bfloat16)((ramp % 2).bfloat16(), half.bfloat16())
    assert seen[0, 0, 0, :-1].eq(0.5).all(), "between 0 and 1 everywhere"


def test_exports_for_any_size():
    layer = DeformableConv(2, 3).eval()
    size = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(layer, (torch.rand(1, 2, 8, 9), torch.rand(1, 18, 8, 9)), dynamic_shapes=(size, size))
    x, offsets = torch.rand(1, 2, 11, 6), torch.randn(1, 18, 11, 6)
    torch.testing.assert_close(program.module()(x, offsets), layer(x, offsets))


def test_an_even_kernel_is_told():
    with pytest.raises(ValueError, match="kernel with a middle, got kernel=2"):
        DeformableConv(1, 1, 2)

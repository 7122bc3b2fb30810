"""Deep layer aggregation upwards: which maps join, how they are enlarged, and where offsets begin."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from torso import testing
from torso.necks import DLAUp
from torso.necks.dla_up import MovedConv, _up


@pytest.mark.part("neck/dla_up")
@pytest.mark.parametrize("deformable", [False, True])
def test_levels_become_one_of_the_finest_stride(deformable: bool) -> None:
    testing.check_neck(lambda channels, strides: DLAUp(channels, strides, deformable))
    neck = DLAUp([8, 16, 24, 32], [4, 8, 16, 32], deformable)
    assert (neck.channels, neck.strides) == ([8], [4])


@pytest.mark.part("neck/dla_up")
def test_maps_join_in_the_order_of_the_figure() -> None:
    """Three levels: 16 joins 8, then that and 8 join 4, then the rounds join; each join is a sum and a layer."""
    torch.manual_seed(0)
    neck = DLAUp([4, 6, 8], [4, 8, 16]).eval()
    fine, middle, coarse = torch.rand(1, 4, 8, 8), torch.rand(1, 6, 4, 4), torch.rand(1, 8, 2, 2)

    def join(part: nn.Module, which: int, x: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        return part.nodes[which](part.ups[which](part.projections[which](x)) + beside)

    first = join(neck.rounds[0], 0, coarse, middle)
    second = join(neck.rounds[1], 0, middle, fine)
    second = join(neck.rounds[1], 1, first, second)
    expected = join(neck.last, 0, first, second)
    (found,) = neck([fine, middle, coarse])
    torch.testing.assert_close(found, expected)


@pytest.mark.part("neck/dla_up")
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_maps_are_enlarged_bilinearly_at_first(factor: int) -> None:
    x = torch.rand(1, 3, 6, 5)
    found = _up(3, factor)(x)
    expected = functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(factor, -factor), slice(factor, -factor))  # at the border torch repeats what is not there
    torch.testing.assert_close(found[inner], expected[inner])


@pytest.mark.part("neck/dla_up")
def test_taps_begin_where_those_of_a_convolution_are_at_half_weight() -> None:
    torch.manual_seed(0)
    layer = MovedConv(4, 5, norm=lambda _: nn.Identity(), activation=nn.Identity)
    x = torch.rand(2, 4, 6, 7)
    plain = functional.conv2d(x, layer.conv.weight / 2, layer.conv.bias, padding=1)
    torch.testing.assert_close(layer(x), plain)


@pytest.mark.part("neck/dla_up")
def test_one_level_joins_nothing() -> None:
    with pytest.raises(ValueError, match="at least 2 levels"):
        DLAUp([8], [4])

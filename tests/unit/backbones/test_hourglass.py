"""Hourglasses against CornerNet's and Newell's: layers, parameters, and what merges with what."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.backbones.cost import on_meta, parameters, shapes
from torso.backbones.hourglass import Hourglass
from torso.config import ModelError

SMALL = partial(Hourglass, widths=(8, 12, 16), repeats=(2, 1, 3), channels=6)
NEWELL = partial(Hourglass, widths=(256,) * 5, repeats=(1,) * 5, unit="preact")


def residual(before: int, after: int, shrinks: bool = False) -> int:
    """Parameters of CornerNet's unit: two 3x3 and norms, and a 1x1 and norm where the size or channels change."""
    own = 9 * before * after + 9 * after * after + 4 * after
    return own + (before * after + 2 * after if shrinks or before != after else 0)


def glass(widths: list[int], repeats: list[int]) -> int:
    """Parameters of one hourglass of such units."""
    (width, below), repeat = widths[:2], repeats[0]
    beside = repeat * residual(width, width)
    down = residual(width, below, shrinks=True) + (repeat - 1) * residual(below, below)
    up = (repeat - 1) * residual(below, below) + residual(below, width)
    inside = glass(widths[1:], repeats[1:]) if len(widths) > 2 else repeats[1] * residual(below, below)
    return beside + down + up + inside


@pytest.mark.part("backbone/hourglass")
@pytest.mark.parametrize(("stacks", "layers"), [(1, 52), (2, 104)])
def test_it_has_as_many_layers_as_its_name_says(stacks: int, layers: int) -> None:
    """Convolutions on the longest path: no shortcuts, nothing beside."""
    net = on_meta(lambda: Hourglass(stacks))
    beside = ("shortcut", "beside", "merges.0.before")
    path = [
        name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and not any(word in name for word in beside)
    ]
    assert len(path) == layers


@pytest.mark.part("backbone/hourglass")
def test_hourglass_104_has_the_parameters_of_cornernets_code() -> None:
    stem = 49 * 3 * 128 + 256 + residual(128, 256, shrinks=True)
    one = glass([256, 256, 384, 384, 384, 512], [2, 2, 2, 2, 2, 4]) + 9 * 256 * 256 + 512
    merge = 2 * (256 * 256 + 512) + residual(256, 256)
    assert parameters(on_meta(Hourglass)) == stem + 2 * one + merge == 187_700_352


@pytest.mark.part("backbone/hourglass")
@pytest.mark.parametrize(("stacks", "millions"), [(2, 6.73), (8, 25.59)])
def test_newells_has_the_parameters_that_are_published(stacks: int, millions: float) -> None:
    """Of the common port, which has 16 heat maps a stack, feeds them back, and has a wider second unit in its stem."""

    def preact(before: int, after: int) -> int:
        inner = after // 2
        own = 2 * (before + 2 * inner) + before * inner + 9 * inner**2 + inner * after + 2 * inner + after
        return own + (before * after + after if before != after else 0)

    heads = stacks * (256 * 16 + 16) + (stacks - 1) * (16 * 256 + 256)
    wider = preact(128, 256) + preact(256, 256) - preact(128, 128) - preact(128, 256)
    bias_of_7x7_and_1x1 = 64 + stacks * 256  # a norm follows: here there is none
    total = parameters(on_meta(lambda: NEWELL(stacks))) + heads + wider + bias_of_7x7_and_1x1
    assert total / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.part("backbone/hourglass")
@pytest.mark.parametrize("make", [Hourglass, partial(NEWELL, 2)])
def test_features_of_every_stack_are_there_on_request(make: partial[Hourglass]) -> None:
    """CornerNet's 511 px give 128 x 128 cells, as in its figure 4."""
    last, every = on_meta(make), on_meta(partial(make, returned="all"))
    assert shapes(last, 511, 511) == [[2, 256, 128, 128]]
    assert shapes(every, 511, 511) == [[2, 256, 128, 128]] * 2
    assert every.strides == [4, 4]


def test_the_last_features_are_the_same_alone() -> None:
    torch.manual_seed(0)
    last = SMALL(stacks=3).eval()
    every = SMALL(stacks=3, returned="all").eval()
    every.load_state_dict(last.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(last(x)[0], every(x)[-1])
    assert len(every(x)) == 3


@pytest.mark.part("backbone/hourglass")
def test_an_hourglass_is_the_sum_of_its_ways() -> None:
    """Written out for two halvings: beside at full size, plus upsampled: beside at half size and the bottom."""
    torch.manual_seed(0)
    net = SMALL(stacks=2, returned="all").double().eval()
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)

    def run(whole: nn.Module, x: Tensor) -> Tensor:
        inner = whole.inside
        half = whole.down(x)
        bottom = inner.up(inner.inside(inner.down(half)))
        low = whole.up(inner.beside(half) + bottom.repeat_interleave(2, 2).repeat_interleave(2, 3))
        return whole.beside(x) + low.repeat_interleave(2, 2).repeat_interleave(2, 3)

    start = net.stem(x)
    first = net.outs[0](run(net.glasses[0][0], start))
    merge = net.merges[0]
    again = merge.unit[1](functional.relu(merge.before(start) + merge.after(first)))
    second = net.outs[1](run(net.glasses[1][0], again))
    for a, b in zip(net(x), (first, second), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_newell_unit_activates_before_it_convolves() -> None:
    torch.manual_seed(0)
    net = Hourglass(1, (8, 8), (1, 1), "preact").eval()
    unit = net.glasses[0][1][0]
    with torch.no_grad():
        unit.path[-1][-1].weight.zero_()
        unit.path[-1][-1].bias.zero_()
        x = torch.randn(1, 8, 4, 4)
        assert torch.equal(unit(x), x)  # nothing after the sum


@pytest.mark.parametrize(
    "wrong", [{"stacks": 0}, {"widths": (8,), "repeats": (1,)}, {"widths": (8, 8), "repeats": (1, 1, 1)}]
)
def test_what_is_no_hourglass_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="an hourglass has at least one stack"):
        Hourglass(**wrong)

"""What a set of points spans, point by point in plain loops, and that a box's own grid spans the box."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torso.boxes.rep_points import RepPoints

pytestmark = pytest.mark.part("coder/rep_points")
KINDS = ("moment", "minmax", "partial_minmax")


def spanned(numbers: list[float], transform: str, side: int) -> list[float]:
    """Left, top, right and bottom of a set of points, written out."""
    count = side * side
    xs, ys = numbers[0 : 2 * count : 2], numbers[1 : 2 * count : 2]
    if transform == "partial_minmax":
        corners = [0, side - 1, count - side, count - 1]
        xs, ys = [xs[i] for i in corners], [ys[i] for i in corners]
    if transform != "moment":
        return [min(xs), min(ys), max(xs), max(ys)]
    e = 2.718281828459045
    half_x = statistics.stdev(xs) * e ** numbers[-2]
    half_y = statistics.stdev(ys) * e ** numbers[-1]
    x, y = statistics.fmean(xs), statistics.fmean(ys)
    return [x - half_x, y - half_y, x + half_x, y + half_y]


@pytest.mark.parametrize("transform", KINDS)
@pytest.mark.parametrize("side", [2, 3, 4])
def test_points_span_what_the_loop_says(transform, side):
    coder = RepPoints(side, transform)
    generator = torch.Generator().manual_seed(side)
    for step_x, step_y in ((8.0, 8.0), (16.0, 4.0)):
        numbers = torch.randn(coder.size, generator=generator, dtype=torch.float64)
        found = coder.decode(
            numbers,
            torch.tensor([10.0, 20, 18, 28], dtype=torch.float64),
            torch.tensor([step_x, step_y], dtype=torch.float64),
        )
        left, top, right, bottom = spanned(numbers.tolist(), transform, side)
        expected = [14 + left * step_x, 24 + top * step_y, 14 + right * step_x, 24 + bottom * step_y]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(2, 4),
    st.lists(st.floats(-300, 300), min_size=4, max_size=4),
    st.floats(0.5, 400),
    st.floats(0.5, 400),
)
def test_a_grid_of_points_spans_its_box(transform, side, place, width, height):
    box = torch.tensor([place[0], place[1], place[0] + width, place[1] + height], dtype=torch.float64)
    prior = torch.tensor([place[2], place[3], place[2] + 8, place[3] + 16], dtype=torch.float64)
    steps = torch.tensor([8.0, 16.0], dtype=torch.float64)
    coder = RepPoints(side, transform)
    code = coder.encode(box, prior, steps)
    assert code.shape == (coder.size,)
    torch.testing.assert_close(coder.decode(code, prior, steps), box, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("transform", KINDS)
def test_a_set_that_moves_or_grows_moves_or_grows_its_box(transform):
    """The box of s * points + t is s * box + t (in strides of 1, around a prior at 0)."""
    coder = RepPoints(transform=transform)
    points = torch.randn(5, 18, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    more = torch.randn(5, coder.size - 18, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    prior, steps = torch.zeros(5, 4, dtype=torch.float64), torch.ones(5, 2, dtype=torch.float64)
    before = coder.decode(torch.cat([points, more], 1), prior, steps)
    after = coder.decode(torch.cat([3 * points + torch.tensor([2.0, -7.0]).double().repeat(9), more], 1), prior, steps)
    torch.testing.assert_close(after, 3 * before + torch.tensor([2.0, -7, 2, -7]).double())


@pytest.mark.parametrize("transform", KINDS)
def test_points_on_one_spot_and_wild_factors_stay_finite(transform):
    coder = RepPoints(transform=transform)
    numbers = torch.zeros(2, coder.size)
    numbers[1, 18:] = 1e4
    numbers.requires_grad_()
    boxes = coder.decode(numbers, torch.zeros(2, 4), torch.ones(2, 2))
    assert boxes.isfinite().all()
    boxes.square().sum().backward()
    assert numbers.grad is not None
    assert numbers.grad.isfinite().all()


def test_only_a_moment_has_numbers_beside_the_points():
    assert [RepPoints(transform=kind).size for kind in KINDS] == [20, 18, 18]


def test_wrong_use_is_told_in_a_sentence():
    with pytest.raises(ValueError, match="at least 2 points along a side, got side=1"):
        RepPoints(1)
    with pytest.raises(ValueError, match="minmax or partial_minmax, got 'hull'"):
        RepPoints(transform="hull")
    for call in (RepPoints().encode, RepPoints().decode):
        with pytest.raises(ValueError, match=r"strides .* are needed"):
            call(torch.zeros(1, 20), torch.zeros(1, 4))

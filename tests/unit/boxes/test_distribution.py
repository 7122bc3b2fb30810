"""The coder of side distributions against expectations written out, and its code against the coder of plain sides."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torso.boxes.distribution import Distribution

pytestmark = pytest.mark.part("coder/distribution")
NUMBER = st.floats(-20, 20, allow_nan=False)


def expectation(logits: list[float]) -> float:
    """The mean bin of a softmax, term by term."""
    top = max(logits)
    total = sum(math.exp(x - top) for x in logits)
    return sum(bin_ * math.exp(x - top) / total for bin_, x in enumerate(logits))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.data())
def test_a_side_is_the_expectation_of_its_bins_in_strides_from_the_centre(bins, data):
    count = 4 * (bins + 1)
    logits = data.draw(st.lists(NUMBER, min_size=count, max_size=count))
    left, top = data.draw(st.tuples(NUMBER, NUMBER))
    step_x, step_y = data.draw(st.sampled_from([(8.0, 8.0), (16.0, 4.0)]))
    prior = torch.tensor([left, top, left + 10, top + 6], dtype=torch.float64)
    steps = torch.tensor([step_x, step_y], dtype=torch.float64)
    found = Distribution(bins).decode(torch.tensor(logits, dtype=torch.float64), prior, steps)
    sides = [expectation(logits[i * (bins + 1) : (i + 1) * (bins + 1)]) for i in range(4)]
    x, y = left + 5, top + 3
    expected = [x - sides[0] * step_x, y - sides[1] * step_y, x + sides[2] * step_x, y + sides[3] * step_y]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 15.9), min_size=4, max_size=4), st.sampled_from([(8.0, 8.0), (32.0, 16.0)]))
def test_the_code_of_a_box_are_its_sides_and_their_two_bins_give_it_back(sides, step):
    """A distribution over the two bins around a side, weighted by nearness, has it as its expectation."""
    coder = Distribution(16)
    steps = torch.tensor(step, dtype=torch.float64)
    wanted = torch.tensor(sides, dtype=torch.float64)
    prior = torch.tensor([90.0, 90, 110, 110], dtype=torch.float64)
    box = torch.cat([100 - wanted[:2] * steps, 100 + wanted[2:] * steps])
    code = coder.encode(box, prior, steps)
    torch.testing.assert_close(code, wanted, rtol=1e-9, atol=1e-9)
    near = torch.full((4, 17), -math.inf, dtype=torch.float64)
    for side, where in enumerate(code.tolist()):
        below = int(where)
        near[side, below], near[side, below + 1] = math.log(below + 1 - where), math.log(max(where - below, 1e-300))
    torch.testing.assert_close(coder.decode(near.flatten(), prior, steps), box, rtol=1e-6, atol=1e-6)


def test_codes_stay_between_the_bins():
    coder, steps = Distribution(8), torch.tensor([10.0, 10.0])
    prior = torch.tensor([-10.0, -10, 10, 10])
    code = coder.encode(torch.tensor([-500.0, 3, 60, 79.99]), prior, steps)
    torch.testing.assert_close(code, torch.tensor([7.99, 0, 6, 7.99]))
    assert coder.size == 36


def test_decoded_corners_keep_their_order_and_gradients_are_finite():
    logits = (torch.randn(2, 7, 68, generator=torch.Generator().manual_seed(0)) * 200).requires_grad_()
    boxes = Distribution().decode(logits, torch.zeros(7, 4), torch.ones(7, 2))
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    boxes.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_wrong_use_is_told_in_a_sentence():
    with pytest.raises(ValueError, match="at least one bin beside 0, got bins=0"):
        Distribution(0)
    for call in (Distribution().encode, Distribution().decode):
        with pytest.raises(ValueError, match=r"strides .* are needed"):
            call(torch.zeros(1, 68), torch.zeros(1, 4))

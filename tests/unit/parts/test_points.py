"""Priors without anchors, and boxes as distances from a point."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from torso.boxes.coders import LTRB
from torso.boxes.priors import Points

close = torch.testing.assert_close


@pytest.mark.part("prior/points")
def test_points_sit_in_the_middle_of_their_cells() -> None:
    boxes, strides = Points([8, (4, 16)], scale=2.0)([(1, 2), (2, 1)])
    expected = [[-4, -4, 12, 12], [4, -4, 20, 12], [-8, -2, 24, 6], [-8, 2, 24, 10]]
    assert boxes.tolist() == expected
    assert strides.tolist() == [[8, 8], [8, 8], [16, 4], [16, 4]]
    at_corners, _ = Points([8], offset=0.0)([(1, 2)])
    assert at_corners.tolist() == [[-4, -4, 4, 4], [4, -4, 12, 4]]


@pytest.mark.part("prior/points")
def test_points_need_a_scale() -> None:
    with pytest.raises(ValueError, match="scale above 0, got 0"):
        Points([8], scale=0)


def box_around(point: Tensor) -> Tensor:
    """Boxes [N, 4] that hold their point [N, 2]."""
    generator = torch.Generator().manual_seed(0)
    low, high = torch.rand(2, len(point), 2, generator=generator, dtype=point.dtype) * 40 + 0.01
    return torch.cat([point - low, point + high], dim=-1)


@pytest.mark.part("coder/ltrb")
@pytest.mark.parametrize("activation", ["exp", "relu", "softplus", "none"])
@pytest.mark.parametrize(("unit", "sides"), [("stride", (16, 8)), ("prior", (20, 30)), ("pixel", (1, 1))])
def test_distances_are_what_the_paper_says_and_lead_back(activation: str, unit: str, sides: tuple[int, int]) -> None:
    point = torch.rand(50, 2, dtype=torch.float64) * 100
    half = torch.tensor([10.0, 15.0], dtype=torch.float64)
    priors, strides = (
        torch.cat([point - half, point + half], dim=-1),
        torch.tensor([[16.0, 8.0]]).double().expand(50, 2),
    )
    boxes = box_around(point)
    coder = LTRB(unit=unit, activation=activation)
    raw = coder.encode(boxes, priors, strides)
    forward = {"exp": torch.exp, "relu": torch.relu, "softplus": functional.softplus, "none": lambda x: x}[activation]
    for i in range(50):
        x, y = point[i].tolist()
        left, top, right, bottom = boxes[i].tolist()
        expected = [(x - left) / sides[0], (y - top) / sides[1], (right - x) / sides[0], (bottom - y) / sides[1]]
        close(forward(raw[i]), torch.tensor(expected, dtype=torch.float64))
    close(coder.decode(raw, priors, strides), boxes)


@pytest.mark.part("coder/ltrb")
@given(st.lists(st.floats(-200, 200), min_size=6, max_size=6))
def test_without_activation_any_box_comes_back(numbers: list[float]) -> None:
    x, y, *box = numbers
    prior = torch.tensor([[x - 8, y - 8, x + 8, y + 8]], dtype=torch.float64)
    boxes = torch.tensor([box], dtype=torch.float64)
    coder, strides = LTRB(activation="none"), torch.full((1, 2), 16.0, dtype=torch.float64)
    close(coder.decode(coder.encode(boxes, prior, strides), prior, strides), boxes)


@pytest.mark.part("coder/ltrb")
@pytest.mark.parametrize("activation", ["exp", "relu", "softplus"])
def test_a_box_beside_its_point_and_a_wild_number_stay_finite(activation: str) -> None:
    prior, strides = torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[16.0, 16.0]])
    coder = LTRB(activation=activation)
    raw = coder.encode(torch.tensor([[20.0, 20, 30, 30]]), prior, strides)
    assert raw.isfinite().all()
    cut = coder.decode(raw, prior, strides)  # no side is before the point
    close(cut, torch.tensor([[8.0, 8, 30, 30]]), atol=1e-4, rtol=0)
    wild = torch.full((1, 4), 1e4, requires_grad=True)
    boxes = coder.decode(wild, prior, strides)
    boxes.sum().backward()
    assert boxes.isfinite().all()
    assert wild.grad is not None
    assert wild.grad.isfinite().all()


@pytest.mark.part("coder/ltrb")
def test_torchvisions_coder_says_the_same() -> None:
    from torchvision.models.detection._utils import BoxLinearCoder

    point = torch.rand(50, 2, dtype=torch.float64) * 100
    priors = torch.cat([point - 8, point + 8], dim=-1)
    boxes = box_around(point)
    ours, theirs = LTRB(unit="prior", activation="none"), BoxLinearCoder(normalize_by_size=True)
    raw = ours.encode(boxes, priors)
    close(raw, theirs.encode(priors, boxes))
    close(ours.decode(raw * 1.5, priors), theirs.decode(raw * 1.5, priors))


@pytest.mark.part("coder/ltrb")
def test_a_wrong_word_is_told() -> None:
    with pytest.raises(ValueError, match="a unit stride, prior or pixel"):
        LTRB(unit="cell")
    with pytest.raises(ValueError, match="ltrb measures in strides"):
        LTRB().decode(torch.zeros(1, 4), torch.zeros(1, 4))

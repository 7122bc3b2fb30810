"""Overlap and the ways to write a box: laws that hold for all boxes, values by hand, and boxes without area."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torso.boxes import convert
from torso.boxes.overlap import giou, iou, pairwise_iou
from torso.losses import GIoU

number = st.floats(-500, 500, allow_nan=False, width=32)
side = st.floats(0, 300, allow_nan=False, width=32)
box = st.tuples(number, number, side, side).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
boxes = st.lists(st.tuples(box, box), min_size=1, max_size=5).map(
    lambda pairs: torch.tensor(pairs, dtype=torch.float64).unbind(1)
)
quick = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.part("metric/iou")
@given(boxes)
@quick
def test_laws_of_overlap(pair: tuple[Tensor, Tensor]):
    first, second = pair
    for overlap, lowest in ((iou, 0), (giou, -1)):
        value = overlap(first, second)
        assert value.isfinite().all()
        assert (value >= lowest - 1e-12).all()
        assert (value <= 1 + 1e-12).all()
        torch.testing.assert_close(value, overlap(second, first))
        has_area = convert.area(first) > 0
        torch.testing.assert_close(overlap(first, first), has_area.double(), atol=1e-6, rtol=0)
        # A smaller number of digits is left after a shift, and where a side is nearly nothing.
        solid = (convert.area(first) > 1e-3) & (convert.area(second) > 1e-3)
        torch.testing.assert_close(overlap(first * 3, second * 3)[solid], value[solid], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(overlap(first + 7, second + 7)[solid], value[solid], rtol=1e-6, atol=1e-6)
    assert (giou(first, second) <= iou(first, second) + 1e-12).all()
    table = pairwise_iou(first, second)
    torch.testing.assert_close(table.diagonal(), iou(first, second))
    torch.testing.assert_close(table, pairwise_iou(second, first).T)


@pytest.mark.part("metric/iou", "loss/giou")
@given(boxes)
@quick
def test_gradients_are_finite_everywhere(pair: tuple[Tensor, Tensor]):
    for dtype in (torch.float32, torch.float64):
        for overlap in (iou, giou, lambda a, b: pairwise_iou(a, b).sum()):
            first, second = (x.detach().to(dtype).requires_grad_() for x in pair)
            overlap(first, second).sum().backward()
            assert first.grad.isfinite().all()
            assert second.grad.isfinite().all()


POINT, LINE, SQUARE = [5.0, 5, 5, 5], [5.0, 5, 5, 9], [0.0, 0, 10, 10]


@pytest.mark.part("metric/iou", "loss/giou")
@pytest.mark.parametrize(
    ("first", "second", "expected_iou", "expected_giou"),
    [
        ([10, 10, 30, 30], [20, 20, 40, 40], 1 / 7, 1 / 7 - 200 / 900),
        ([0, 0, 10, 10], [0, 0, 10, 10], 1, 1),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0, 0),  # touching
        ([0, 0, 10, 10], [10, 10, 20, 20], 0, -0.5),  # touching at a corner
        ([0, 0, 1, 1], [9, 0, 10, 1], 0, -0.8),  # disjoint
        ([0, 0, 10, 10], [2, 2, 4, 4], 0.04, 0.04),  # inside
        (POINT, POINT, 0, 0),
        (LINE, LINE, 0, 0),
        (POINT, SQUARE, 0, 0),
        (POINT, [9, 9, 9, 9], 0, -1),
    ],
)
def test_values_by_hand(first, second, expected_iou, expected_giou):
    for dtype in (torch.float32, torch.float64):
        a, b = torch.tensor([first], dtype=dtype, requires_grad=True), torch.tensor([second], dtype=dtype)
        with torch.no_grad():
            assert float(iou(a, b)) == pytest.approx(expected_iou, rel=1e-6)
            assert float(pairwise_iou(a, b)) == pytest.approx(expected_iou, rel=1e-6)
            assert float(giou(a, b)) == pytest.approx(expected_giou, rel=1e-6)
            assert float(GIoU()(a, b)) == pytest.approx(1 - expected_giou, rel=1e-6)
        (iou(a, b) + giou(a, b) + pairwise_iou(a, b)[0]).sum().backward()
        assert a.grad.isfinite().all()


@pytest.mark.part("metric/iou")
def test_boxes_too_small_for_an_epsilon():
    """IoU has no unit: a millionth of a pixel overlaps itself as a whole one does."""
    small = torch.tensor([[0, 0, 1e-6, 1e-6]])
    assert float(iou(small, small)) == 1
    assert float(giou(small, small)) == 1
    assert float(pairwise_iou(small, small / 2)) == pytest.approx(0.25)


@pytest.mark.part("loss/giou")
def test_disjoint_boxes_are_drawn_together():
    guess = torch.tensor([[20.0, 0, 30, 10]], requires_grad=True)
    GIoU()(guess, torch.tensor([[0.0, 0, 10, 10]])).sum().backward()
    assert guess.grad[0, 0] > 0, "going down the gradient moves the left edge to the left"


@pytest.mark.part("metric/iou")
def test_leading_dimensions_broadcast():
    first, second = torch.rand(2, 1, 4, 4).cumsum(-1), torch.rand(3, 5, 4).cumsum(-1)
    table = pairwise_iou(first, second)
    assert table.shape == (2, 3, 4, 5)
    torch.testing.assert_close(table[1, 2], pairwise_iou(first[1, 0], second[2]))
    assert pairwise_iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)


@pytest.mark.part("box/convert")
@given(boxes)
@quick
def test_conversions_undo_each_other(pair: tuple[Tensor, Tensor]):
    xyxy = pair[0]
    for there, back in (
        (convert.xyxy_to_cxcywh, convert.cxcywh_to_xyxy),
        (convert.xyxy_to_xywh, convert.xywh_to_xyxy),
    ):
        torch.testing.assert_close(back(there(xyxy)), xyxy, rtol=0, atol=1e-9)
        torch.testing.assert_close(there(xyxy)[..., 2:].prod(-1), convert.area(xyxy), rtol=0, atol=1e-9)
    cut = convert.clip(xyxy, height=40, width=60)
    assert (cut >= 0).all()
    assert (cut[..., 0::2] <= 60).all()
    assert (cut[..., 1::2] <= 40).all()
    assert torch.equal(convert.clip(cut, 40, 60), cut)


@pytest.mark.part("box/convert")
def test_conversions_by_hand():
    voc = torch.tensor([69.0, 172, 270, 330], dtype=torch.float64)
    assert convert.xyxy_to_cxcywh(voc).tolist() == [169.5, 251, 201, 158]
    yolo = convert.xyxy_to_cxcywh(voc) / torch.tensor([500.0, 375, 500, 375])
    torch.testing.assert_close(yolo, torch.tensor([0.339, 0.669333, 0.402, 0.421333]).double(), rtol=0, atol=5e-7)
    assert convert.xyxy_to_xywh(voc).tolist() == [69, 172, 201, 158]
    assert float(convert.area(torch.tensor([5.0, 5, 2, 9]))) == 0, "a side below 0 has no area"
    assert convert.clip(torch.tensor([-5.0, -5, 50, 50]), height=30, width=40).tolist() == [0, 0, 40, 30]

"""Losses of decoded boxes: values by hand, laws of all boxes, and boxes that do not touch or have no area."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.unit.parts.test_overlap import boxes
from torso.boxes import convert
from torso.boxes.overlap import ciou, diou, iou, pairwise_diou
from torso.losses import BoundedIoU, CIoU, DIoU, GIoU, IoU

quick = settings(max_examples=60, deadline=None, derandomize=True)
LOSSES = (IoU(), IoU("linear"), IoU("square"), BoundedIoU(eps=1e-9), GIoU(), DIoU(), CIoU())
GUESS = torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 22]], dtype=torch.float64)
TRUTH = torch.tensor([[1.0, 1, 9, 12], [4, 6, 19, 20]], dtype=torch.float64)


@pytest.mark.part("loss/iou", "loss/bounded_iou", "loss/giou", "loss/diou", "loss/ciou")
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (IoU(), 0.39676),
        (BoundedIoU(), 0.088389),
        (GIoU(), 0.347524),
        (DIoU(), 0.331100),
        (CIoU(), 0.331254),
    ],
)
def test_the_gold_boxes(loss, expected):
    assert float(loss(GUESS, TRUTH, reduction="mean")) == pytest.approx(expected, abs=5e-6 if expected > 0.39 else 5e-7)


@pytest.mark.part("loss/iou")
def test_the_three_forms_of_iou():
    # IoU 1/7, by hand
    guess, truth = torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([[20.0, 20, 40, 40]])
    assert float(IoU("log")(guess, truth)) == pytest.approx(math.log(7))
    assert float(IoU("linear")(guess, truth)) == pytest.approx(6 / 7)
    assert float(IoU("square")(guess, truth)) == pytest.approx(48 / 49)
    with pytest.raises(ValueError, match="form is 'log', 'linear' or 'square', got 'cubic'"):
        IoU("cubic")


@pytest.mark.part("loss/iou")
def test_boxes_that_do_not_touch_cost_a_constant():
    apart, truth = torch.tensor([[0.0, 0, 5, 5]], requires_grad=True), torch.tensor([[20.0, 20, 40, 40]])
    for loss, cost in ((IoU("log", eps=1e-3), -math.log(1e-3)), (IoU("linear"), 1), (IoU("square"), 1)):
        value = loss(apart, truth)
        assert float(value.detach()) == pytest.approx(cost)
        assert not torch.autograd.grad(value.sum(), apart)[0].any()


@pytest.mark.part("loss/diou", "loss/ciou", "loss/giou")
def test_boxes_that_do_not_touch_are_drawn_together():
    truth = torch.tensor([[0.0, 0, 10, 10]])
    for loss in (GIoU(), DIoU(), CIoU()):
        apart = torch.tensor([[20.0, 0, 30, 10]], requires_grad=True)
        loss(apart, truth).sum().backward()
        assert apart.grad[0, 0] + apart.grad[0, 2] > 0, "down the gradient is to the left"


@pytest.mark.part("loss/diou", "loss/ciou", "loss/iou", "loss/bounded_iou")
@given(boxes)
@quick
def test_laws_of_all_boxes(pair: tuple[Tensor, Tensor]):
    first, second = pair
    solid = (convert.area(first) > 1e-3) & (convert.area(second) > 1e-3)
    for loss in LOSSES:
        cost = loss(first, second)
        assert cost.isfinite().all()
        assert (cost >= -1e-12).all()
        if not isinstance(loss, BoundedIoU):  # it measures in sizes of the truth
            torch.testing.assert_close(loss(second, first), cost)
        same = loss(first, first)[convert.area(first) > 1e-3]
        torch.testing.assert_close(same, torch.zeros_like(same), atol=1e-9, rtol=0)
        torch.testing.assert_close(loss(first * 3, second * 3)[solid], cost[solid], rtol=1e-6, atol=1e-7)
    assert (diou(first, second) <= iou(first, second)).all()
    assert (ciou(first, second) <= diou(first, second)).all()
    assert (DIoU()(first, second) <= 2 + 1e-12).all()
    assert (CIoU()(first, second) <= 3 + 1e-12).all()
    table = pairwise_diou(first, second)
    torch.testing.assert_close(table.diagonal(), diou(first, second))
    torch.testing.assert_close(table, pairwise_diou(second, first).T)


@pytest.mark.part("loss/diou", "loss/ciou", "loss/iou", "loss/bounded_iou")
@given(boxes)
@quick
def test_gradients_are_finite_everywhere(pair: tuple[Tensor, Tensor]):
    points = [
        torch.tensor([[5.0, 5, 5, 5], [0, 0, 1e-25, 1e-25], [0, 0, 1e-20, 1e-20], [5, 5, 2, 2]], dtype=torch.float64)
    ] * 2
    for dtype in (torch.float32, torch.float64):
        for first, second in (pair, points, (points[0][:, None], points[1])):
            for loss in LOSSES:
                guess, truth = (x.detach().to(dtype).requires_grad_() for x in (first, second))
                loss(guess, truth).sum().backward()
                assert guess.grad.isfinite().all()
                assert truth.grad.isfinite().all()


@pytest.mark.part("loss/ciou")
def test_ciou_by_hand():
    """20 x 10 within 40 x 40 of one centre: IoU 1/8, no distance, angles atan 2 and atan 1."""
    guess = torch.tensor([[10.0, 15, 30, 25]], dtype=torch.float64, requires_grad=True)
    truth = torch.tensor([[0.0, 0, 40, 40]], dtype=torch.float64)
    unlike = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    factor = unlike / (1 - 1 / 8 + unlike)
    cost = CIoU()(guess, truth)
    assert float(cost.detach()) == pytest.approx(1 - 1 / 8 + factor * unlike, rel=1e-12)
    cost.sum().backward()
    # d/dw of 1 - IoU is -h / 1600; of v: 8 / pi^2 (atan w/h - atan 1) h / (w^2 + h^2), times the constant factor
    slope = -10 / 1600 + factor * 8 / math.pi**2 * (math.atan(2) - math.atan(1)) * 10 / 500
    assert float(guess.grad[0, 2] - guess.grad[0, 0]) / 2 == pytest.approx(slope, rel=1e-9)


@pytest.mark.part("loss/ciou", "loss/diou")
def test_shapes_count_for_ciou_only():
    guess, truth = torch.tensor([[0.0, 10, 40, 30]]), torch.tensor([[10.0, 0, 30, 40]])
    assert float(DIoU()(guess, truth)) == pytest.approx(1 - float(iou(guess, truth)))
    assert float(CIoU()(guess, truth)) > float(DIoU()(guess, truth)) + 0.03
    square = torch.tensor([[0.0, 0, 20, 20]])
    torch.testing.assert_close(CIoU()(square, 2 * square + 3), DIoU()(square, 2 * square + 3))


@pytest.mark.part("loss/bounded_iou")
def test_bounded_iou_is_the_overlap_of_boxes_that_differ_in_one_number():
    """Of centres, at twice their distance: the paper's (w - 2 |d|) / (w + 2 |d|)."""
    truth = torch.tensor([20.0, 30, 10, 16], dtype=torch.float64)  # centre and size
    for i, moved in ((0, 2.0), (0, 6.0), (1, -3.0), (2, 4.0), (2, -3.0), (3, -4.0), (3, 24.0)):
        guess, compared = truth.clone(), truth.clone()
        guess[i] += moved
        compared[i] += 2 * moved if i < 2 else moved
        one, other, same = (convert.cxcywh_to_xyxy(x)[None] for x in (guess, compared, truth))
        lacking = 1 - float(iou(other, same))
        smooth = lacking - 0.1 if lacking > 0.2 else lacking**2 / 0.4
        assert float(BoundedIoU(eps=1e-12)(one, same)) == pytest.approx(smooth / 4)

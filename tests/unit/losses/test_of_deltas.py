"""Losses of raw regression against the formulas of their papers."""

from __future__ import annotations

import math

import pytest
import torch

from torso import testing
from torso.boxes.coders import CODERS
from torso.criteria import DenseCriterion
from torso.losses import LOSSES, MSE, BalancedL1, Focal, KLBox, SmoothL1, YOLOv3


def slope_at(loss, difference: float) -> float:
    x = torch.tensor([[difference]], dtype=torch.float64, requires_grad=True)
    loss(x, torch.zeros_like(x)).sum().backward()
    return float(x.grad)


@pytest.mark.part("loss/balanced_l1")
@pytest.mark.parametrize("beta", [1.0, 0.25, 3.0])
def test_the_gradient_of_balanced_l1_is_the_papers_and_has_no_jump(beta):
    alpha, gamma = 0.5, 1.5
    loss = BalancedL1(alpha, gamma, beta)
    b = math.exp(gamma / alpha) - 1  # alpha ln(b + 1) = gamma
    for share in (0.0, 0.1, 0.5, 0.999):
        expected = alpha * math.log(b * share + 1)
        assert slope_at(loss, share * beta) == pytest.approx(expected)
        assert slope_at(loss, -share * beta) == pytest.approx(-expected)
    assert slope_at(loss, beta * (1 - 1e-9)) == pytest.approx(gamma, rel=1e-7)
    assert slope_at(loss, beta * (1 + 1e-9)) == pytest.approx(gamma)
    assert slope_at(loss, beta * 50) == pytest.approx(gamma)


@pytest.mark.part("loss/balanced_l1")
def test_balanced_l1_is_the_integral_of_its_gradient():
    """Equation 8 at the paper's numbers: the inner formula, and gamma |d| + C with C such that they meet."""
    alpha, gamma = 0.5, 1.5
    b = math.exp(3) - 1
    loss = BalancedL1()
    zero = torch.zeros(1, 1, dtype=torch.float64)
    for d in (0.0, 0.2, 0.99, 1.0):
        expected = alpha / b * (b * d + 1) * math.log(b * d + 1) - alpha * d
        assert float(loss(zero + d, zero)) == pytest.approx(expected)
    constant = gamma / b - alpha
    for d in (1.0, 1.01, 7.0):
        assert float(loss(zero + d, zero)) == pytest.approx(gamma * d + constant)
    row = torch.tensor([[0.2, -0.3, 2.0, 0.0]], dtype=torch.float64)
    parts = sum(float(loss(row[:, i : i + 1], zero)) for i in range(4))
    assert float(loss(row, torch.zeros_like(row))) == pytest.approx(parts), "summed over the deltas"


@pytest.mark.part("loss/kl_box")
def test_kl_box_at_a_variance_of_1_is_smooth_l1():
    guess, target = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    sure = torch.cat([guess, torch.zeros_like(guess)], dim=-1)
    torch.testing.assert_close(KLBox()(sure, target), SmoothL1(1.0)(guess, target))


@pytest.mark.part("loss/kl_box")
@pytest.mark.parametrize(("d", "a"), [(0.3, 0.7), (-0.9, -2.0), (1.0, 0.5), (2.5, 1.5), (-4.0, -1.0)])
def test_kl_box_by_hand(d, a):
    """Equations 9 and 10, and where the variance is best: twice the cost of the difference."""
    cost = math.exp(-a) * (d * d / 2 if abs(d) <= 1 else abs(d) - 0.5) + a / 2
    x = torch.tensor([[d, a]], dtype=torch.float64, requires_grad=True)
    value = KLBox()(x, torch.zeros(1, 1, dtype=torch.float64))
    assert float(value.detach()) == pytest.approx(cost)
    best = math.log(d * d if abs(d) <= 1 else 2 * abs(d) - 1)
    x = torch.tensor([[d, best]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(KLBox()(x, torch.zeros(1, 1, dtype=torch.float64)).sum(), x)
    assert float(slope[0, 1]) == pytest.approx(0, abs=1e-12)


@pytest.mark.part("loss/kl_box")
def test_a_variance_of_nearly_nothing_still_learns():
    x = torch.tensor([[3.0, -200.0]], requires_grad=True)
    cost = KLBox()(x, torch.zeros(1, 1))
    cost.sum().backward()
    assert cost.isfinite().all()
    assert x.grad.isfinite().all()
    assert x.grad[0, 1] < 0, "down the gradient the variance grows"


@pytest.mark.part("loss/kl_box")
def test_the_dense_criterion_learns_uncertain_boxes():
    output, targets = testing.dense_case(10)
    variance = torch.zeros_like(output.deltas, requires_grad=True)
    output = output._replace(extra={"variance": variance})
    criterion = DenseCriterion(testing.MaxIoU(), Focal(), KLBox(), CODERS["delta"]())
    assert criterion.branches == ["variance"]
    loss = criterion(output, targets)["box"]
    plain = DenseCriterion(testing.MaxIoU(), Focal(), SmoothL1(1.0), CODERS["delta"]())(output, targets)["box"]
    torch.testing.assert_close(loss, plain)
    loss.backward()
    assert variance.grad.any()


@pytest.mark.part("loss/mse")
def test_squares_by_hand():
    guess, target = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 1.0]])
    assert float(MSE()(guess, target)) == pytest.approx(0.25 + 9)
    assert MSE("scores").takes == "scores"
    scores = MSE("scores")(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(scores, torch.tensor([[0.25, 0.75**2]]))
    with pytest.raises(ValueError, match="takes is 'deltas' or 'scores', got 'boxes'"):
        MSE("boxes")


@pytest.mark.part("loss/yolov3")
def test_yolov3_has_the_gradient_of_its_code():
    """ "Ground truth less prediction" (section 2.1), past the sigmoid of x and y, for all four numbers."""
    generator = torch.Generator().manual_seed(0)
    guess, target = torch.randn(2, 9, 4, generator=generator, dtype=torch.float64) * 2
    x = guess.clone().requires_grad_()
    YOLOv3()(x, target).sum().backward()
    expected = torch.cat([guess[:, :2].sigmoid() - target[:, :2].sigmoid(), guess[:, 2:] - target[:, 2:]], dim=1)
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.part("loss/yolov3")
def test_yolov3_by_hand():
    half = math.log(3)  # sigmoid 3/4
    guess = torch.tensor([[0.0, half, 0.5, -1.0]], dtype=torch.float64)
    target = torch.tensor([[half, 0.0, 0.0, 1.0]], dtype=torch.float64)
    first = -math.log(0.5)  # whatever the target
    second = -0.5 * math.log(0.75) - 0.5 * math.log(0.25)
    assert float(YOLOv3()(guess, target)) == pytest.approx(first + second + 0.125 + 2)


@pytest.mark.part("loss/balanced_l1", "loss/ghm_r", "loss/mse", "loss/yolov3")
@pytest.mark.part("loss/iou", "loss/bounded_iou", "loss/diou", "loss/ciou", "loss/kl_box")
@pytest.mark.parametrize(
    "name", sorted(n for n, p in LOSSES.items() if n != "reduction" and p().takes in ("deltas", "boxes", "uncertain"))
)
@pytest.mark.parametrize("count", [0, 1, 300])
def test_every_box_loss_goes_into_the_dense_criterion(name, count):
    output, targets = testing.dense_case(count)
    deltas = output.deltas.requires_grad_()
    coder = CODERS["delta"]()
    variance = torch.zeros_like(deltas)
    output = output._replace(boxes=coder.decode(deltas, output.priors), extra={"variance": variance})
    loss = DenseCriterion(testing.MaxIoU(), Focal(), LOSSES[name](), coder)(output, targets)["box"]
    assert loss.isfinite()
    loss.backward()
    assert deltas.grad.isfinite().all()
    assert bool(deltas.grad.any()) == (count > 0)

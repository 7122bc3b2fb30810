"""What a comparison with another library does not show: extremes, gradients, reduction."""

from __future__ import annotations

import math

import pytest
import torch

from torso.losses import L1, CrossEntropy, Focal, GIoU, SmoothL1
from torso.losses.reduction import reduced

EXTREMES = torch.tensor([-800.0, -50, -20, 0, 20, 50, 800])


@pytest.mark.part("loss/focal")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_focal_is_finite_for_wild_logits(gamma, target, dtype):
    x = EXTREMES.clone().to(dtype).requires_grad_()
    loss = Focal(gamma=gamma)(x, torch.full_like(x, target))
    loss.sum().backward()
    loss = loss.detach()
    assert loss.isfinite().all()
    assert (loss >= -1e-6).all()
    assert x.grad.isfinite().all()
    if target == 1:
        assert loss[-1] == 0
        assert float(loss[0]) == pytest.approx(0.25 * 800)
    if target == 0:
        assert loss[0] == 0
        assert float(loss[-1]) == pytest.approx(0.75 * 800)


@pytest.mark.part("loss/focal")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("alpha", [0.25, -1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_focal_gradient_is_the_slope(gamma, alpha, compiled):
    torch.manual_seed(0)
    x = (torch.randn(4, 3, dtype=torch.float64) * 3).requires_grad_()
    hard, soft = (torch.rand(4, 3) > 0.5).double(), torch.rand(4, 3, dtype=torch.float64)
    loss = Focal(alpha, gamma)
    if compiled:
        torch._dynamo.reset()
        loss = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for target in (hard, soft):
        assert torch.autograd.gradcheck(lambda x, t=target: loss(x, t), (x,), rtol=1e-6, atol=1e-9)


@pytest.mark.part("loss/focal")
def test_focal_has_no_second_derivative_and_says_so():
    x = torch.randn(3, requires_grad=True)
    (slope,) = torch.autograd.grad(Focal()(x, torch.ones(3)).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        slope.sum().backward()


@pytest.mark.part("loss/focal")
def test_focal_by_hand():
    """The paper's example: at gamma 2 an example scored 0.9 counts a hundredth of cross entropy."""
    x = torch.tensor([math.log(9)], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(Focal(-1, 2)(x, one), -0.01 * torch.log(0.9 * one))
    torch.testing.assert_close(Focal(0.25, 2)(-x, 0 * one), -0.75 * 0.01 * torch.log(0.9 * one))


@pytest.mark.part("loss/focal")
def test_focal_without_gradient_keeps_nothing():
    with torch.no_grad():
        loss = Focal()(torch.randn(3, requires_grad=True), torch.ones(3))
    assert loss.grad_fn is None


@pytest.mark.part("loss/giou")
def test_giou_of_the_gold_boxes():
    guess = torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 22]], dtype=torch.float64)
    truth = torch.tensor([[1.0, 1, 9, 12], [4, 6, 19, 20]], dtype=torch.float64)
    assert float(GIoU()(guess, truth, reduction="mean")) == pytest.approx(0.347524, abs=5e-7)


@pytest.mark.part("loss/cross_entropy")
def test_a_class_of_255_counts_neither_way():
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1, 255, 3, 255])
    loss = CrossEntropy()(logits, target)
    assert loss[[1, 3]].tolist() == [0, 0]
    mean = CrossEntropy()(logits, target, reduction="mean")
    torch.testing.assert_close(mean, loss[[0, 2]].mean())
    mean.backward()
    assert not logits.grad[[1, 3]].any()
    assert logits.grad[[0, 2]].all()
    nothing = CrossEntropy()(logits, torch.full((4,), 255), reduction="mean")
    assert float(nothing.detach()) == 0, "torch says NaN here"


@pytest.mark.part("loss/l1", "loss/smooth_l1")
def test_losses_of_deltas_are_sums_over_the_deltas():
    guess = torch.tensor([[0.0, 1, 2, 0.05]], dtype=torch.float64)
    zero = torch.zeros_like(guess)
    assert float(L1()(guess, zero)) == pytest.approx(3.05)
    # beta 0.1: the last is 0.5 * 0.05^2 / 0.1, the others less 0.05
    assert float(SmoothL1(0.1)(guess, zero)) == pytest.approx(0.95 + 1.95 + 0.0125)


@pytest.mark.part("loss/l1")
def test_reduction():
    loss = torch.arange(6.0).reshape(2, 3)
    weight = torch.tensor([[1.0], [0.5]])
    assert torch.equal(reduced(loss, None, "none"), loss)
    assert float(reduced(loss, weight, "sum")) == 3 + 6
    assert float(reduced(loss, weight, "mean")) == 9 / 6
    assert float(reduced(loss, weight, "mean", 4)) == 9 / 4
    assert float(reduced(loss, weight, "mean", torch.tensor(2))) == 9 / 2
    for reduction in ("sum", "none"):
        with pytest.raises(ValueError, match=f"avg_factor divides a mean, but reduction is '{reduction}'"):
            reduced(loss, None, reduction, 3)
        with pytest.raises(ValueError, match="avg_factor divides a mean"):
            Focal()(loss, loss, reduction=reduction, avg_factor=2.0)
    with pytest.raises(ValueError, match="reduction is 'none', 'sum' or 'mean', got 'max'"):
        reduced(loss, None, "max")

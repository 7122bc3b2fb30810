"""Losses of soft scores and of distributions: values by hand, where they are least, extremes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torso import testing
from torso.boxes.coders import CODERS
from torso.criteria import DenseCriterion
from torso.losses import (
    L1,
    BinaryCrossEntropy,
    DistributionFocal,
    Focal,
    GeneralizedFocal,
    QualityFocal,
    Varifocal,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def soft(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.part("loss/binary_cross_entropy")
def test_a_target_below_0_counts_neither_way():
    x = normal(3, 4).requires_grad_()
    target = soft(3, 4).round()
    there = torch.ones(3, 4, dtype=torch.bool)
    there[0, 1] = there[2] = False
    ignored = torch.where(there, target, -1)
    loss = BinaryCrossEntropy(label_smoothing=0.1, pos_weight=2.0)
    cost = loss(x, ignored)
    assert not cost[~there].any()
    torch.testing.assert_close(cost[there], loss(x, target)[there])
    mean = loss(x, ignored, reduction="mean")
    torch.testing.assert_close(mean, cost[there].mean())
    mean.backward()
    assert torch.equal(x.grad != 0, there)
    assert float(loss(x.detach(), torch.full_like(target, -1), reduction="mean")) == 0


@pytest.mark.part("loss/binary_cross_entropy")
def test_smoothing_draws_targets_to_one_half():
    x = normal(3, 4)
    for hard, drawn in ((1.0, 0.95), (0.0, 0.05), (0.5, 0.5)):
        target, expected = torch.full_like(x, hard), torch.full_like(x, drawn)
        torch.testing.assert_close(BinaryCrossEntropy(0.1)(x, target), BinaryCrossEntropy()(x, expected))


@pytest.mark.part("loss/quality_focal")
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("hard", [False, True])
def test_quality_focal_gradient_is_the_slope(beta, hard):
    x = (normal(4, 3) * 3).requires_grad_()
    target = soft(4, 3).round() if hard else soft(4, 3)
    assert torch.autograd.gradcheck(lambda x: QualityFocal(beta)(x, target), (x,), rtol=1e-6, atol=1e-9)


@pytest.mark.part("loss/quality_focal")
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_quality_focal_is_the_formula(beta):
    """Equation 5, element after element."""
    x, target = normal(5, 4) * 3, soft(5, 4)
    for logit, y, cost in zip(x.flatten(), target.flatten(), QualityFocal(beta)(x, target).flatten(), strict=True):
        s = 1 / (1 + math.exp(-logit))
        expected = -(abs(y - s) ** beta) * ((1 - y) * math.log(1 - s) + y * math.log(s))
        assert float(cost) == pytest.approx(float(expected))


@pytest.mark.part("loss/quality_focal")
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.0])
def test_quality_focal_of_hard_targets_is_focal(gamma):
    x, target = normal(5, 4) * 3, soft(5, 4).round()
    torch.testing.assert_close(QualityFocal(gamma)(x, target), Focal(alpha=-1, gamma=gamma)(x, target))


@pytest.mark.part("loss/quality_focal")
@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_quality_focal_is_finite_for_wild_logits(beta, target):
    x = torch.tensor([-800.0, -50, -20, 0, 20, 50, 800, math.log(3 / 7)]).requires_grad_()
    loss = QualityFocal(beta)(x, torch.full_like(x, target))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert (loss >= -1e-6).all()
    assert x.grad.isfinite().all()
    if target == 0.3 and beta:
        assert float(loss[-1].detach()) == pytest.approx(0, abs=1e-3 if beta < 1 else 1e-9), (
            "0 where the score is right"
        )


@pytest.mark.part("loss/quality_focal")
def test_quality_focal_has_no_second_derivative_and_says_so():
    x = torch.randn(3, requires_grad=True)
    (slope,) = torch.autograd.grad(QualityFocal()(x, torch.ones(3)).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        slope.sum().backward()


def distribution(chances: list[float]) -> Tensor:
    """Logits of four sides with these chances, ``[1, 4 * bins]``."""
    return torch.tensor(chances, dtype=torch.float64).log().repeat(4)[None]


@pytest.mark.part("loss/distribution_focal")
def test_distribution_focal_by_hand():
    """Equation 6: y = 1.3 lies between the bins 1 and 2."""
    logits = distribution([0.1, 0.5, 0.3, 0.1])
    sides = torch.tensor([[1.3, 0.0, 3.0, 2.0]], dtype=torch.float64)
    expected = -(0.7 * math.log(0.5) + 0.3 * math.log(0.3)) - math.log(0.1) - math.log(0.1) - math.log(0.3)
    assert float(DistributionFocal()(logits, sides)) == pytest.approx(expected)
    wide = torch.tensor([[1.3, -5.0, 9.0, 2.0]], dtype=torch.float64)
    assert float(DistributionFocal()(logits, wide)) == pytest.approx(expected), "sides are cut to the bins there are"


@pytest.mark.part("loss/distribution_focal")
@pytest.mark.parametrize("y", [0.0, 0.25, 2.5, 6.9, 7.0])
def test_distribution_focal_is_least_at_the_two_neighbouring_bins(y):
    """The optimum of the paper: the bins below and above share all, in proportion, and the mean is the truth."""
    logits = torch.zeros(1, 8, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")
    side = torch.tensor([[y]], dtype=torch.float64)

    def cost() -> float:
        optimizer.zero_grad()
        value = DistributionFocal()(logits, side).sum()
        value.backward()
        return value

    optimizer.step(cost)
    chances = logits.detach().softmax(-1)[0]
    low = min(int(y), 6)
    expected = torch.zeros(8, dtype=torch.float64)
    expected[low], expected[low + 1] = 1 - (y - low), y - low
    torch.testing.assert_close(chances, expected, atol=1e-3, rtol=0)
    assert float((chances * torch.arange(8)).sum()) == pytest.approx(y, abs=1e-2)


@pytest.mark.part("loss/generalized_focal")
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_generalized_focal_is_one_formula_for_both(beta):
    """Equation 8, in plain Python: scores between 0 and 1, sides between two bins."""

    def formula(y: float, left: float, right: float, p_left: float, p_right: float) -> float:
        cross = (right - y) * math.log(p_left) + (y - left) * math.log(p_right)
        return -(abs(y - (left * p_left + right * p_right)) ** beta) * cross

    scores = GeneralizedFocal(beta=beta)
    x, target = normal(6), soft(6)
    for logit, y in zip(x, target, strict=True):
        s = float(logit.sigmoid())
        assert float(scores(logit, y)) == pytest.approx(formula(float(y), 0, 1, 1 - s, s))
    sides = GeneralizedFocal("distribution", beta)
    assert (scores.takes, sides.takes) == ("scores", "distribution")
    chances = [0.1, 0.5, 0.3, 0.1]
    y = torch.tensor([[1.3, 0.2, 2.9, 1.75]], dtype=torch.float64)
    expected = sum(formula(float(v), int(v), int(v) + 1, chances[int(v)], chances[int(v) + 1]) for v in y[0])
    assert float(sides(distribution(chances), y)) == pytest.approx(expected)


@pytest.mark.part("loss/generalized_focal")
def test_generalized_focal_has_the_papers_two_losses_by_default():
    x, target = normal(3, 4), soft(3, 4)
    torch.testing.assert_close(GeneralizedFocal()(x, target), QualityFocal()(x, target))
    x, sides = normal(3, 32), soft(3, 4) * 7
    torch.testing.assert_close(GeneralizedFocal("distribution")(x, sides), DistributionFocal()(x, sides))
    with pytest.raises(ValueError, match="takes is 'scores' or 'distribution', got 'boxes'"):
        GeneralizedFocal("boxes")


@pytest.mark.part("loss/varifocal")
def test_varifocal_by_hand():
    """Equation 2: positives by their quality, negatives turned down."""
    x = torch.tensor([math.log(3), math.log(3), 0.0], dtype=torch.float64)  # scores 3/4, 3/4, 1/2
    target = torch.tensor([0.6, 0.0, 1.0], dtype=torch.float64)
    positive = -0.6 * (0.6 * math.log(0.75) + 0.4 * math.log(0.25))
    negative = -0.75 * 0.75**2 * math.log(0.25)
    torch.testing.assert_close(
        Varifocal()(x, target), torch.tensor([positive, negative, -math.log(0.5)], dtype=torch.float64)
    )


@pytest.mark.part("loss/quality_focal", "loss/generalized_focal", "loss/varifocal", "loss/binary_cross_entropy")
@pytest.mark.parametrize("loss", [QualityFocal(), GeneralizedFocal(), Varifocal(), BinaryCrossEntropy()])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_soft_scores_go_into_the_dense_criterion(loss, count):
    output, targets = testing.dense_case(count)
    logits = output.logits.requires_grad_()
    criterion = DenseCriterion(testing.MaxIoU(), loss, L1(), CODERS["delta"](), class_target="iou")
    cost = criterion(output, targets)["class"]
    cost.backward()
    assert cost.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.any()

"""Losses of one class among many."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torso import testing
from torso.boxes.coders import CODERS
from torso.criteria import ClassifyCriterion, DenseCriterion
from torso.losses import L1, CrossEntropy, Focal, KLDivergence, LabelSmoothing, SoftmaxFocal
from torso.structures import Targets


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.part("loss/label_smoothing")
def test_label_smoothing_gives_every_class_a_little():
    x, target = normal(6, 5, 3), torch.randint(0, 5, (6, 3), generator=torch.Generator().manual_seed(0))
    truth = torch.full((6, 5, 3), 0.2 / 5, dtype=torch.float64)
    truth.scatter_add_(1, target[:, None], torch.full((6, 1, 3), 0.8, dtype=torch.float64))
    expected = -(truth * x.log_softmax(1)).sum(1)
    torch.testing.assert_close(LabelSmoothing(0.2)(x, target), expected)
    torch.testing.assert_close(LabelSmoothing(0)(x, target), CrossEntropy()(x, target))
    target[2, 1] = 255
    assert LabelSmoothing()(x, target)[2, 1] == 0


@pytest.mark.part("loss/softmax_focal")
def test_softmax_focal_by_hand():
    """The paper's example: at gamma 2 an example scored 0.9 counts a hundredth of cross entropy."""
    x = torch.tensor([[0.9, 0.06, 0.04]], dtype=torch.float64).log()
    assert float(SoftmaxFocal()(x, torch.tensor([0]))) == pytest.approx(-0.01 * math.log(0.9))
    assert float(SoftmaxFocal(alpha=0.25)(x, torch.tensor([0]))) == pytest.approx(-0.25 * 0.01 * math.log(0.9))
    background = -0.75 * 0.96**2 * math.log(0.04)
    assert float(SoftmaxFocal(alpha=0.25)(x, torch.tensor([2]))) == pytest.approx(background)
    shares = torch.tensor([[0.5, 0, 0.5]], dtype=torch.float64)
    mixed = (float(SoftmaxFocal()(x, torch.tensor([0]))) + float(SoftmaxFocal()(x, torch.tensor([2])))) / 2
    assert float(SoftmaxFocal()(x, shares)) == pytest.approx(mixed)


@pytest.mark.part("loss/softmax_focal")
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_softmax_focal_of_two_classes_is_the_sigmoid_one(gamma):
    """A softmax of two is a sigmoid of their difference."""
    x, target = normal(20, 2) * 3, torch.arange(20) % 2
    margin = x[:, 1] - x[:, 0]
    for alpha in (-1.0, 0.25):
        # The last class is the background here, and what is not positive there.
        ours = SoftmaxFocal(gamma, alpha)(x, target)
        torch.testing.assert_close(ours, Focal(alpha, gamma)(-margin, (target == 0).double()))
    torch.testing.assert_close(SoftmaxFocal(0)(x, target), CrossEntropy()(x, target))


@pytest.mark.part("loss/softmax_focal", "loss/kl_divergence")
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_extremes_are_finite(gamma):
    x = torch.tensor([[900.0, 0, -900], [-900, 0, 900], [0, 0, 0]])
    for loss in (SoftmaxFocal(gamma), KLDivergence(), KLDivergence(4.0)):
        for target in (0, 1, 2):
            logits = x.clone().requires_grad_()
            cost = loss(logits, torch.full((3,), target))
            cost.sum().backward()
            assert cost.isfinite().all()
            assert logits.grad.isfinite().all()


SOFTENED = {
    1.0: [0.0900, 0.2447, 0.6652],
    2.0: [0.1863, 0.3072, 0.5065],
    0.5: [0.0159, 0.1173, 0.8668],
}


@pytest.mark.part("loss/kl_divergence")
@pytest.mark.parametrize("temperature", sorted(SOFTENED))
def test_temperature_softens_prediction_and_truth(temperature):
    """At the logits 1, 2, 3 the gradient is T (softened prediction - softened truth)."""
    x = torch.tensor([[1.0, 2, 3]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[3.0, 2, 1]], dtype=torch.float64)
    KLDivergence(temperature)(x, teacher.softmax(1)).sum().backward()
    soft = torch.tensor([SOFTENED[temperature]], dtype=torch.float64)
    torch.testing.assert_close(x.grad, temperature * (soft - soft.flip(1)), atol=2.1e-4, rtol=0)
    alike = KLDivergence(temperature)(teacher, teacher.softmax(1))
    torch.testing.assert_close(alike, torch.zeros_like(alike), atol=1e-12, rtol=0)


@pytest.mark.part("loss/kl_divergence")
def test_kl_divergence_of_a_class_is_cross_entropy():
    x, target = normal(6, 5, 3), torch.randint(0, 5, (6, 3), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(KLDivergence()(x, target), CrossEntropy()(x, target))
    target[2, 1] = 255
    for loss in (KLDivergence(2.0), SoftmaxFocal()):
        cost = loss(x, target)
        assert cost[2, 1] == 0
        there = target != 255
        torch.testing.assert_close(loss(x, target, reduction="mean"), cost[there].mean())


@pytest.mark.part("loss/kl_divergence")
def test_kl_divergence_is_never_negative_and_lacks_the_truths_entropy():
    x, truth = normal(50, 5) * 2, (normal(50, 5, seed=1) * 2).softmax(1)
    truth[0] = torch.tensor([0.5, 0.5, 0, 0, 0])
    entropy = -torch.xlogy(truth, truth).sum(1)
    cost = KLDivergence()(x, truth)
    assert (cost >= 0).all()
    torch.testing.assert_close(cost, CrossEntropy()(x, truth) - entropy)


@pytest.mark.part("loss/label_smoothing", "loss/softmax_focal", "loss/kl_divergence")
@pytest.mark.parametrize("loss", [LabelSmoothing(), SoftmaxFocal(), KLDivergence()])
def test_each_can_be_the_loss_of_a_classifier(loss):
    logits = normal(4, 3).requires_grad_()
    cost = ClassifyCriterion(loss)(logits, Targets.of_classes(torch.tensor([0, 1, 2, 1])))["class"]
    cost.backward()
    assert cost.ndim == 0
    assert logits.grad.all()


@pytest.mark.part("loss/label_smoothing", "loss/softmax_focal", "loss/kl_divergence")
@pytest.mark.parametrize("part", [LabelSmoothing, SoftmaxFocal, KLDivergence])
def test_each_can_be_the_softmax_of_a_detector(part):
    output, targets = testing.dense_case(10)
    logits = torch.randn(2, 80, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    output = output._replace(logits=logits, background=True)
    criterion = DenseCriterion(testing.MaxIoU(), part(), L1(), CODERS["delta"]())
    assert criterion.background
    cost = criterion(output, targets)["class"]
    cost.backward()
    assert cost.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.any()
    clash = DenseCriterion(testing.MaxIoU(), part(ignore_index=2), L1(), CODERS["delta"]())
    with pytest.raises(ValueError, match="class 2 of 4 would not be learned"):
        clash(output, targets)

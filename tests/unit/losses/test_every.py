"""What holds for every loss: the contract, true gradients, one graph, half precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from torso import testing
from torso.config import RecipeError
from torso.losses import LOSSES, MSE, GeneralizedFocal, IoU, YOLOv1, reduced
from torso.recipes.recipe import Recipe

OTHERS: dict[str, Callable[[], nn.Module]] = {
    "generalized_focal of distributions": partial(GeneralizedFocal, "distribution"),
    "generalized_focal of distributions, turned down": partial(GeneralizedFocal, "distribution", beta=1.5),
    "iou linear": partial(IoU, "linear"),
    "iou square": partial(IoU, "square"),
    "mse of scores": partial(MSE, "scores"),
    "yolov1 of certain slots": partial(YOLOv1, confidence="one"),
}
EVERY: dict[str, Callable[[], nn.Module]] = {n: part for n, part in LOSSES.items() if part is not reduced} | OTHERS


def case_of(loss: nn.Module, seed: int = 0) -> tuple[Tensor, Tensor]:
    """What it compares; boxes and cells overlap, so that nothing is flat."""
    generator = torch.Generator().manual_seed(seed)
    guess, target = testing._loss_case(loss.takes, generator)
    if loss.takes == "boxes":
        target = guess + torch.randn(guess.shape, generator=generator, dtype=guess.dtype)
    return guess, target


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_options_keep_the_contract(name: str) -> None:
    testing.check_loss(OTHERS[name]())


@pytest.mark.parametrize("name", sorted(EVERY))
def test_the_gradient_is_the_slope(name: str) -> None:
    loss = EVERY[name]()
    guess, target = case_of(loss)
    if name == "ciou":  # a factor of it is a constant to the gradient, see test_of_overlap
        return
    if "yolov1" in name and loss.confidence == "iou":  # so is the overlap that its confidence should be
        loss = YOLOv1(confidence="one")
    guess = guess.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (guess,), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_loss_is_one_graph(name: str) -> None:
    loss = EVERY[name]()
    guess, target = case_of(loss)
    weight = loss(guess, target).detach().abs().round().clamp(max=1)  # of zeros and ones

    def learned(x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        total: Tensor = loss(x, target, weight=weight, reduction="mean", avg_factor=3)
        return total

    torch._dynamo.reset()
    compiled = torch.compile(learned, fullgraph=True, backend="aot_eager")
    values, slopes = [], []
    for function in (learned, compiled):
        x = guess.detach().clone().requires_grad_()
        values.append(function(x, target, weight))
        slopes += torch.autograd.grad(values[-1], x)
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(slopes[1], slopes[0])


@pytest.mark.parametrize("name", sorted(EVERY))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_costs_what_its_rounded_numbers_do(name: str, dtype: torch.dtype) -> None:
    loss = EVERY[name]()
    guess, target = case_of(loss)
    if loss.takes == "boxes":  # squares of these have no place in float16
        guess, target = guess * 60, target * 60
    half = guess.to(dtype).requires_grad_()
    target = target.float() if target.is_floating_point() else target
    cost = loss(half, target)
    torch.testing.assert_close(cost, loss(half.detach().float(), target))
    cost.sum().backward()
    assert half.grad.dtype == dtype
    assert half.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(EVERY))
def test_wild_numbers_have_finite_losses_and_gradients(name: str) -> None:
    loss = EVERY[name]()
    guess, target = (x.float() if x.is_floating_point() else x for x in case_of(loss))
    for factor in (-1e4, 1e4, 0.0):
        x = (guess * factor).requires_grad_()
        cost = loss(x, target)
        cost.sum().backward()
        assert cost.isfinite().all()
        assert x.grad.isfinite().all()


@pytest.mark.part("loss/reduction")
def test_weight_reduction_and_average_mean_one_thing() -> None:
    assert LOSSES["reduction"] is reduced
    loss, weight = torch.arange(6.0).reshape(2, 3), torch.tensor([[1.0], [0.5]])
    weighted = [[0.0, 1, 2], [1.5, 2, 2.5]]
    assert reduced(loss, weight, "none").tolist() == weighted
    assert float(reduced(loss, weight, "sum")) == 9
    assert float(reduced(loss, weight, "mean")) == 9 / 6, "by the count, not by the sum of the weights"
    assert float(reduced(loss, weight, "mean", torch.tensor(4))) == 9 / 4
    for name, make in EVERY.items():
        part = make()
        guess, target = case_of(part)
        plain = part(guess, target)
        one = torch.ones_like(plain)
        for reduction in ("none", "sum", "mean"):
            torch.testing.assert_close(part(guess, target, one, reduction), reduced(plain, one, reduction), msg=name)
        with pytest.raises(ValueError, match="avg_factor divides a mean"):
            part(guess, target, avg_factor=2)
        with pytest.raises(ValueError, match="reduction is 'none', 'sum' or 'mean', got 'average'"):
            part(guess, target, reduction="average")


@pytest.mark.part("loss/reduction")
def test_the_reduction_is_no_loss_of_a_recipe() -> None:
    with pytest.raises(RecipeError, match=r"model\.class_loss\.reduction: missing"):
        Recipe.load("retinanet", ["data.path=x", "model.class_loss=reduction"])

"""Cross mini-batch norm against batch norm over the whole accumulated batch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torso.nn.cross_norm import CrossMiniBatch

SIZES = (3, 2, 4)  # pictures of the micro-batches of a step


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def micro_batches(step: int = 0) -> list[Tensor]:
    return [normal(size, 4, 5, 5, seed=10 * step + i) * (i + 1) + i for i, size in enumerate(SIZES)]


def norms(micro: int | None = None) -> tuple[CrossMiniBatch, nn.BatchNorm2d]:
    ours, theirs = CrossMiniBatch(4, micro).double().train(), nn.BatchNorm2d(4).double().train()
    for norm in (ours, theirs):
        nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    return ours, theirs


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, foreach=False),
    "sgd, foreach": lambda p: torch.optim.SGD(p, 0.1, foreach=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, foreach=True),
    "adamw, fused": lambda p: torch.optim.AdamW(p, 0.1, fused=True),
}


@pytest.mark.part("norm/cmbn")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_accumulated_micro_batches_are_one_big_batch(optimizer: str) -> None:
    """Statistics, output of the last micro-batch, running statistics and counter; three steps of an optimizer."""
    ours, theirs = norms()
    rules = [OPTIMIZERS[optimizer](norm.parameters()) for norm in (ours, theirs)]
    for number in range(3):
        seen = micro_batches(number)[: 3 - number]  # the last steps of an epoch may have fewer
        for i, x in enumerate(seen):
            part = copy.deepcopy(theirs)(torch.cat(seen[: i + 1]))
            torch.testing.assert_close(ours(x), part[-len(x) :], rtol=1e-9, atol=1e-9)
        theirs(torch.cat(seen))
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-9, atol=1e-12)
        ours.load_state_dict(copy.deepcopy(ours.state_dict()))  # a checkpoint between two steps changes nothing
        for norm, rule in zip((ours, theirs), rules, strict=True):
            norm.weight.grad, norm.bias.grad = normal(4, seed=number), normal(4, seed=number + 50)
            rule.step()
    x = normal(2, 4, 5, 5)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert ours.state_dict().keys() - theirs.state_dict().keys() == {"step"}


@pytest.mark.part("norm/cmbn")
def test_gradients_flow_through_the_current_micro_batch_only() -> None:
    ours, _ = norms()
    first, second = micro_batches()[:2]
    earlier = first.clone().requires_grad_()
    ours(earlier)
    x = second.clone().requires_grad_()
    y = ours(x)
    weights = normal(*y.shape, seed=9)
    (found,) = torch.autograd.grad((y * weights).sum(), x)
    assert earlier.grad is None

    every = torch.cat([first, x])  # the gradient flows into x, not into first: as if first were a constant
    mean = every.mean((0, 2, 3), keepdim=True)
    var = every.var((0, 2, 3), correction=0, keepdim=True)
    expected_y = (x - mean) / (var + ours.eps).sqrt() * ours.weight[:, None, None] + ours.bias[:, None, None]
    (expected,) = torch.autograd.grad((expected_y * weights).sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.part("norm/cmbn")
def test_a_frozen_norm_is_batch_norm_unless_told_how_many_micro_batches_there_are() -> None:
    ours, theirs = norms()
    ours.requires_grad_(False)
    for x in micro_batches():
        torch.testing.assert_close(ours(x), theirs(x))
    counted, theirs = norms(micro=2)
    counted.requires_grad_(False)
    first, second, third = micro_batches()
    counted(first)
    torch.testing.assert_close(counted(second), theirs(torch.cat([first, second]))[3:])
    torch.testing.assert_close(counted(third), theirs(third))
    torch.testing.assert_close(counted.running_var, theirs.running_var)


@pytest.mark.part("norm/cmbn")
def test_a_copy_goes_on_in_the_middle_of_a_step_and_batch_norm_loads() -> None:
    ours, theirs = norms()
    first, second = micro_batches()[:2]
    ours(first.requires_grad_())
    restored = CrossMiniBatch(4).double()
    restored.load_state_dict(ours.state_dict())
    for other in (copy.deepcopy(ours), restored):
        assert torch.equal(copy.deepcopy(ours)(second), other(second))
    assert not any(ours.load_state_dict(theirs.state_dict()))  # and forgets the step
    torch.testing.assert_close(ours(second), theirs(second))


@pytest.mark.part("norm/cmbn")
def test_wrong_use_is_told() -> None:
    with pytest.raises(ValueError, match="micro_batches is 1 or more, not 0"):
        CrossMiniBatch(4, 0)
    with pytest.raises(ValueError, match=r"more than one value a channel in training, got \[1, 4, 1, 1\]"):
        norms()[0](normal(1, 4, 1, 1))

"""Every schedule equals torch's at every single step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as peers

from torso.train.schedules import SCHEDULES, Constant, Cosine, MultiStep, Schedule, Step, Warmup

EPOCHS, STEPS = 7, 5
TOTAL = EPOCHS * STEPS


def rates(
    *, every_step: Callable[[Any], Any] | None = None, every_epoch: Callable[[Any], Any] | None = None
) -> list[float]:
    """The rate at each step as torch's schedulers give it; both kinds may act on one optimizer."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    by_step = every_step(optimizer) if every_step else None
    by_epoch = every_epoch(optimizer) if every_epoch else None
    seen = []
    for step in range(TOTAL):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if by_step:
            by_step.step()
        if by_epoch and (step + 1) % STEPS == 0:
            by_epoch.step()
    return seen


def ours(schedule: Schedule) -> list[float]:
    return [schedule(step, STEPS, TOTAL) for step in range(TOTAL)]


def rise(length: int, start: float) -> Callable[[Any], Any]:
    return lambda optimizer: peers.LinearLR(optimizer, start_factor=start, total_iters=length)


@pytest.mark.part("schedule/warmup")
@pytest.mark.parametrize("length", [1, 3, 8])
@pytest.mark.parametrize("start", [0.001, 0.25])
def test_warmup_is_linear_lr(length: int, start: float) -> None:
    expected = rates(every_step=rise(length, start))
    assert ours(Warmup(length, start)) == pytest.approx(expected, rel=1e-12)
    assert ours(Constant(warmup=length, warmup_factor=start)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.part("schedule/step")
@pytest.mark.parametrize("every", [1, 3])
def test_step_is_step_lr(every: int) -> None:
    expected = rates(every_epoch=lambda optimizer: peers.StepLR(optimizer, every, 0.3))
    assert ours(Step(every, 0.3)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.part("schedule/multistep")
@pytest.mark.parametrize("milestones", [[2, 5], [5, 2], [1, 1, 4], []])
def test_multistep_is_multi_step_lr(milestones: list[int]) -> None:
    expected = rates(every_epoch=lambda optimizer: peers.MultiStepLR(optimizer, milestones, 0.3))
    assert ours(MultiStep(milestones, 0.3)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.part("schedule/step")
@pytest.mark.part("schedule/warmup")
def test_warmup_lies_over_milestones() -> None:
    """The milestones count from the start of training, also those inside the warm-up."""
    expected = rates(every_step=rise(8, 0.01), every_epoch=lambda optimizer: peers.MultiStepLR(optimizer, [1, 4], 0.1))
    assert ours(MultiStep([1, 4], 0.1, warmup=8, warmup_factor=0.01)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.part("schedule/cosine")
@pytest.mark.parametrize("final", [0.0, 0.05])
def test_cosine_is_cosine_annealing_lr(final: float) -> None:
    expected = rates(every_step=lambda optimizer: peers.CosineAnnealingLR(optimizer, TOTAL, eta_min=final))
    assert ours(Cosine(final)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.part("schedule/cosine")
@pytest.mark.part("schedule/warmup")
@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("length", [1, 4, 9])
def test_cosine_starts_where_the_warmup_ends(length: int) -> None:
    def sequence(optimizer: Any) -> Any:
        parts = [rise(length, 0.1)(optimizer), peers.CosineAnnealingLR(optimizer, TOTAL - length, eta_min=0.02)]
        return peers.SequentialLR(optimizer, parts, milestones=[length])

    expected = rates(every_step=sequence)
    assert ours(Cosine(0.02, warmup=length, warmup_factor=0.1)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.part("schedule/constant")
@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    warmup=st.integers(0, 60),
    step=st.integers(0, 200),
    per_epoch=st.integers(1, 40),
    epochs=st.integers(1, 20),
)
def test_a_factor_is_a_factor(name: str, warmup: int, step: int, per_epoch: int, epochs: int) -> None:
    options: dict[str, Any] = {"milestones": [2, 3]} if name == "multistep" else {}
    schedule = SCHEDULES[name](warmup=warmup, **options)
    factor = schedule(step, per_epoch, epochs * per_epoch)
    assert 0 <= factor <= 1
    assert factor == schedule(step, per_epoch, epochs * per_epoch)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Step(every=0), "every is a number of epochs"),
        (lambda: MultiStep([0, 3]), "milestones are epochs"),
        (lambda: Cosine(final=2), "final is a part"),
        (lambda: Constant(warmup=-1), "warmup is 0 or more"),
        (lambda: Warmup(warmup_factor=1.5), "warmup is 0 or more"),
    ],
)
def test_wrong_arguments(make: Callable[[], Schedule], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()

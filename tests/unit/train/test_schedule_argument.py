"""An argument that moves while a model learns."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unit.train.tiny import Halt, TinyModel, train
from torso.config import ROLES
from torso.nn.activations import TemperatureSoftmax
from torso.nn.drop import DropBlock
from torso.nn.swap import swap_norm
from torso.train.schedules import Constant
from torso.train.signals import Preempted
from torso.train.state import State
from torso.train.tricks import EMA, TRICKS, ScheduleArgument


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), DropBlock(0.2, 3), DropBlock(0.4, 3))
        self.head = nn.Sequential(nn.Dropout(0.5), TemperatureSoftmax(2.0))


def started(trick: ScheduleArgument, net: nn.Module, steps: int = 10) -> ScheduleArgument:
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    trick.start(State(net, optimizer, Constant(), epochs=1, batches=steps, accumulate=1))
    return trick


def rates(net: Net) -> list[float]:
    return [net.backbone[1].p, net.backbone[2].p, net.head[0].p]


@pytest.mark.part("trick/schedule_argument", "drop/block")
def test_dropblock_goes_from_0_to_what_each_layer_was_made_with() -> None:
    net = Net()
    trick = started(ScheduleArgument("backbone.*"), net)
    seen = [rates(net)]
    for step in range(1, 11):
        trick.stepped(net, step)
        seen.append(rates(net))
    assert [row[0] for row in seen] == pytest.approx([0.02 * i for i in range(11)])
    assert [row[1] for row in seen] == pytest.approx([0.04 * i for i in range(11)])
    assert {row[2] for row in seen} == {0.5}
    assert seen[-1] == [0.2, 0.4, 0.5]  # to the bit


@pytest.mark.part("trick/schedule_argument")
def test_any_number_of_any_layer_between_two_shares_of_the_run() -> None:
    net = Net()
    trick = started(ScheduleArgument("*", "temperature", start=5.0, end=1.0, begin=0.2, until=0.6), net)
    seen = [net.head[1].temperature]
    for step in range(1, 11):
        trick.stepped(net, step)
        seen.append(net.head[1].temperature)
    assert seen == pytest.approx([5, 5, 5, 4, 3, 2, 1, 1, 1, 1, 1])
    assert rates(net) == [0.2, 0.4, 0.5]


@pytest.mark.part("trick/schedule_argument")
def test_a_resume_goes_on_even_with_a_model_whose_layers_have_moved() -> None:
    net = Net()
    trick = started(ScheduleArgument("backbone.*"), net)
    trick.stepped(net, 5)
    saved = json.loads(json.dumps(trick.state_dict()))
    for other in (Net(), net):  # a new process; and the same one, where layers hold half their rate
        again = started(ScheduleArgument("backbone.*"), other)
        again.load_state_dict(saved)
        assert rates(other) == pytest.approx([0.1, 0.2, 0.5])
        again.stepped(other, 10)
        assert rates(other) == [0.2, 0.4, 0.5]


@pytest.mark.part("trick/schedule_argument")
def test_an_averaged_copy_is_evaluated_with_the_same_values() -> None:
    net = Net()
    trick = started(ScheduleArgument("head.*", "temperature", start=5.0), net)
    ema = EMA()
    ema.start(State(net, torch.optim.SGD(net.parameters(), 0.1), Constant(), epochs=1, batches=1, accumulate=1))
    trick.stepped(net, 10)
    shipped = trick.evaluate(ema.evaluate(net))
    assert shipped is ema.mean
    assert shipped.head[1].temperature == 2.0


@pytest.mark.part("trick/schedule_argument")
def test_wrong_use_is_told() -> None:
    for begin, until in ((0.5, 0.5), (-0.1, 1), (0, 1.1)):
        with pytest.raises(ValueError, match="shares of the run"):
            ScheduleArgument(begin=begin, until=until)
    with pytest.raises(ValueError, match=r"no layer called 'neck\.\*' has a number 'p'"):
        started(ScheduleArgument("neck.*"), Net())
    with pytest.raises(ValueError, match="has a number 'inplace'"):  # a switch is no number
        started(ScheduleArgument("*", "inplace"), Net())
    assert TRICKS["schedule_argument"] is ScheduleArgument
    assert ROLES["trick"].endswith(":TRICKS")


@pytest.mark.part("trick/schedule_argument", "norm/cbn", "norm/cmbn")
@pytest.mark.parametrize(("norm", "accumulate"), [("cbn", 1), ("cmbn", 4)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, norm: str, accumulate: int) -> None:
    """The rate of dropout in between, and norms that remember batches of the past."""

    def run(name: str, halt: int = 0, resume: bool = False) -> str:
        torch.manual_seed(7)
        model = TinyModel()
        swap_norm(model, norm)
        more = [ScheduleArgument("head.*"), Halt(halt, lambda: os.kill(os.getpid(), signal.SIGTERM))]
        return train(tmp_path / name, model=model, accumulate=accumulate, more=more, resume=resume)[0]

    expected = run("straight")
    for number, step in enumerate([1, 4] if accumulate == 4 else [5, 11]):
        with pytest.raises(Preempted):
            run("stopped", step, resume=number > 0)
    assert run("stopped", resume=True) == expected

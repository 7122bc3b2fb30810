"""Clipping and averaging against torch and timm."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.unit.train.tiny import TinyModel
from torso.train.schedules import Constant
from torso.train.state import State
from torso.train.tricks import EMA, TRICKS, ClipGradients


def state_of(model: nn.Module) -> State:
    return State(model, torch.optim.SGD(model.parameters(), 0.1), Constant(), epochs=1, batches=1, accumulate=1)


def drift(model: nn.Module) -> None:
    """What a step does: weights move, running means and a counter too."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.add_(torch.randn_like(tensor) if tensor.is_floating_point() else 1)


@pytest.mark.part("trick/clip_gradients")
@pytest.mark.parametrize("norm", [0.01, 1e6])
def test_clip_gradients(norm: float) -> None:
    torch.manual_seed(0)
    model = TinyModel()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    length = math.sqrt(sum(float(g.double().square().sum()) for g in before))
    ClipGradients(norm).gradients(model)
    factor = min(1.0, norm / (length + 1e-6))
    for parameter, gradient in zip(model.parameters(), before, strict=True):
        assert torch.allclose(parameter.grad, factor * gradient, rtol=1e-5, atol=0)  # type: ignore[arg-type]


@pytest.mark.part("trick/ema")
def test_ema_equals_timm() -> None:
    from timm.utils import ModelEmaV3

    torch.manual_seed(0)
    model = TinyModel()
    trick = EMA(decay=0.9, tau=0)
    trick.start(state_of(model))
    peer = ModelEmaV3(model, decay=0.9)
    for step in range(5):
        drift(model)
        trick.stepped(model, step + 1)
        peer.update(model)
    for (name, mean), (_, theirs) in zip(trick.mean.named_parameters(), peer.module.named_parameters(), strict=True):
        assert torch.equal(mean, theirs), name
    for (name, buffer), weight in zip(trick.mean.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(buffer, weight), name  # copied; timm averages the floating ones


@pytest.mark.part("trick/ema")
def test_ema_equals_torch() -> None:
    torch.manual_seed(0)
    model = TinyModel()
    trick = EMA(decay=0.95, tau=0)
    trick.start(state_of(model))
    peer = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95))
    peer.update_parameters(model)  # its first update only copies
    for step in range(5):
        drift(model)
        trick.stepped(model, step + 1)
        peer.update_parameters(model)
    for name, value in peer.module.state_dict().items():
        assert torch.equal(trick.mean.state_dict()[name], value), name


@pytest.mark.part("trick/ema")
def test_ema_warms_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    trick = EMA(decay=0.99, tau=10)
    trick.start(state_of(model))
    expected = 0.0
    for step in range(1, 30):
        nn.init.constant_(model.weight, step)
        trick.stepped(model, step)
        decay = 0.99 * (1 - math.exp(-step / 10))
        expected = decay * expected + (1 - decay) * step
        assert trick.mean.weight.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.part("trick/ema")
def test_ema_state_and_model() -> None:
    torch.manual_seed(0)
    model = TinyModel().train()
    trick = EMA(decay=0.9, tau=5)
    with pytest.raises(RuntimeError, match="not started"):
        trick.evaluate(model)
    trick.start(state_of(model))
    assert trick.evaluate(model) is trick.mean is not model
    assert not trick.mean.training
    assert model.training
    assert not any(p.requires_grad for p in trick.mean.parameters())
    drift(model)
    trick.stepped(model, 1)

    other = EMA(decay=0.9, tau=5)
    other.start(state_of(copy.deepcopy(model)))
    other.load_state_dict(trick.state_dict())
    for each in (trick, other):
        torch.manual_seed(1)
        twin = copy.deepcopy(model)
        drift(twin)
        each.stepped(twin, 2)
    for name, value in trick.mean.state_dict().items():
        assert torch.equal(other.mean.state_dict()[name], value), name


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="norm is over 0"):
        ClipGradients(0)
    with pytest.raises(ValueError, match="decay is in"):
        EMA(decay=1.5)
    assert {key: part.name for key, part in TRICKS.items()} == {key: key for key in TRICKS}

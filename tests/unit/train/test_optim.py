"""Groups hold the right parameters; state survives by name; the optimizers do what their sources say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.train.tiny import TinyModel
from torso.config import ModelError
from torso.train import optim
from torso.train.optim import OPTIMIZERS


def named(groups: list[dict[str, Any]]) -> dict[tuple[float, float], list[str]]:
    return {(group["lr"], group["weight_decay"]): [name for name, _ in group["params"]] for group in groups}


def test_groups() -> None:
    model = TinyModel()
    assert named(optim.groups(model, 0.1, 0.05, backbone_factor=0.5)) == {
        (0.05, 0.05): ["backbone.0.weight"],
        (0.05, 0.0): ["backbone.1.weight", "backbone.1.bias"],
        (0.1, 0.05): ["head.1.weight"],
        (0.1, 0.0): ["head.1.bias"],
    }
    assert named(optim.groups(model, 0.1, 0.05, backbone_factor=0.5, decay_norm_bias=True)) == {
        (0.05, 0.05): ["backbone.0.weight", "backbone.1.weight", "backbone.1.bias"],
        (0.1, 0.05): ["head.1.weight", "head.1.bias"],
    }


def test_some_learn_as_slowly_as_the_backbone() -> None:
    model = TinyModel()
    slow = ["*.bias", "neither.*"]  # what is not there is no error: another head may have it
    assert named(optim.groups(model, 0.1, 0.05, backbone_factor=0.5, slow=slow)) == {
        (0.05, 0.05): ["backbone.0.weight"],
        (0.05, 0.0): ["backbone.1.weight", "backbone.1.bias", "head.1.bias"],
        (0.1, 0.05): ["head.1.weight"],
    }
    assert named(optim.groups(model, 0.1, 0.05, backbone_factor=0.5, slow=["head.1"]))[0.05, 0.05] == [
        "backbone.0.weight",
        "head.1.weight",
    ]


def test_every_trainable_parameter_once() -> None:
    model = TinyModel()
    model.get_submodule("backbone.0").requires_grad_(False)
    optimizer = torch.optim.SGD(optim.groups(model, 0.1, 0.05))
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [name for group in optimizer.param_groups for name in group["param_names"]] == [
        "backbone.1.weight",
        "backbone.1.bias",
        "head.1.weight",
        "head.1.bias",
    ]


def test_norms_of_more_dimensions_and_odd_biases() -> None:
    model = nn.ModuleDict({"norm": nn.LayerNorm((3, 4)), "table": nn.Module()})
    model["table"].bias = nn.Parameter(torch.zeros(2, 2))
    model["table"].weight = nn.Parameter(torch.zeros(2, 2))
    groups = named(optim.groups(model, 1.0, 0.1))
    assert groups == {(1.0, 0.1): ["table.weight"], (1.0, 0.0): ["norm.weight", "norm.bias", "table.bias"]}


def test_nothing_to_train() -> None:
    with pytest.raises(ModelError, match="all are frozen"):
        optim.groups(TinyModel().requires_grad_(False), 0.1, 0.0)


@pytest.mark.part("optimizer/sgd")
def test_sgd_momentum_is_the_undamped_form() -> None:
    """On x^2 from 1, rate 0.4, momentum 0.5; the textbook's v = a v + (1 - a) g would give 0.6, 0.16, -0.124."""

    def walk(dampening: float) -> list[float]:
        x = torch.ones(1, requires_grad=True)
        optimizer = OPTIMIZERS["sgd"]([x], lr=0.4, momentum=0.5, dampening=dampening)
        seen = []
        for _ in range(3):
            optimizer.zero_grad()
            x.square().sum().backward()
            optimizer.step()
            seen.append(x.item())
        return seen

    assert walk(0.0) == pytest.approx([0.2, -0.36, -0.352], abs=1e-6)  # v = a v + g
    assert walk(0.5) == pytest.approx([0.2, -0.28, -0.408], abs=1e-6)  # the first step is not damped


@pytest.mark.part("optimizer/adamw")
def test_adamw_epsilon_is_outside_the_root_and_decay_is_decoupled() -> None:
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = OPTIMIZERS["adamw"]([x], lr=1e-3, weight_decay=0.0)
    (1e-6 * x).sum().backward()
    optimizer.step()
    assert 1 - x.item() == pytest.approx(9.90e-4, rel=1e-3)  # 9.95e-5 with epsilon inside

    y = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = OPTIMIZERS["adamw"]([y], lr=0.1, weight_decay=0.5)
    (0.0 * y).sum().backward()
    optimizer.step()
    assert y.item() == pytest.approx(1 - 0.1 * 0.5)  # no gradient, and yet decay


@pytest.mark.part("optimizer/sgd")
@pytest.mark.part("optimizer/adamw")
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_state_by_name_goes_on_exactly(kind: str) -> None:
    torch.manual_seed(0)

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = TinyModel().to(memory_format=torch.channels_last)
        options = {"momentum": 0.9} if kind == "sgd" else {"betas": (0.8, 0.99)}
        return model, OPTIMIZERS[kind](optim.groups(model, 0.1, 0.01, backbone_factor=0.1), **options)

    def move(model: nn.Module, optimizer: torch.optim.Optimizer, times: int) -> None:
        for number in range(times):
            for place, parameter in enumerate(model.parameters()):
                parameter.grad = torch.full_like(parameter, 0.1 * (number + 1) + place)
            optimizer.step()

    first, optimizer = make()
    move(first, optimizer, 3)
    tensors, rest = optim.pack(optimizer, first)
    assert all("|" in name and name.split("|")[0] in dict(first.named_parameters()) for name in tensors)

    second, fresh = make()
    second.load_state_dict(first.state_dict())
    optim.unpack(fresh, second, {name: value.contiguous() for name, value in tensors.items()}, rest)
    kernel = second.get_parameter("backbone.0.weight")
    held = next(value for value in fresh.state[kernel].values() if value.shape == kernel.shape)
    assert held.is_contiguous(memory_format=torch.channels_last)
    move(first, optimizer, 3)
    move(second, fresh, 3)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_state_of_another_optimizer_or_other_groups() -> None:
    model = TinyModel()
    sgd = torch.optim.SGD(optim.groups(model, 0.1, 0.01), momentum=0.9)
    tensors, rest = optim.pack(sgd, model)
    with pytest.raises(ModelError, match="trained with SGD, the recipe says AdamW"):
        optim.unpack(torch.optim.AdamW(optim.groups(model, 0.1, 0.01)), model, tensors, rest)
    with pytest.raises(ModelError, match="holds other parameters"):
        optim.unpack(torch.optim.SGD(model.parameters(), 0.1), model, tensors, rest)
    with pytest.raises(ModelError, match="not the model's"):
        optim.pack(torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1), model)

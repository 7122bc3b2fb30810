"""Replacing the norms of a model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d

from torso.config import ModelError
from torso.nn.frozen import Frozen
from torso.nn.norms import NORMS, Group, Layer
from torso.nn.swap import Swap, channels_of, is_norm, swap_norm, table


def used(model: nn.Module) -> nn.Module:
    """Statistics and weights as after some training."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return model


@pytest.mark.part("norm/sync")
@pytest.mark.parametrize("name", ["sync", "frozen", "cbn", "cmbn", "batch"])
def test_norms_with_statistics_answer_as_before(name: str) -> None:
    model, x = used(resnet18()).eval(), torch.randn(1, 3, 64, 64)
    before = model(x)
    swaps = swap_norm(model, name)
    assert len(swaps) == 20
    assert all(s.before == "BatchNorm2d" and s.after == NORMS[name].__name__ for s in swaps)
    assert all(s.new == (("step",) if name == "cmbn" else ()) for s in swaps)
    assert {type(layer) for layer in model.modules() if is_norm(layer)} == {NORMS[name]}
    assert not any(layer.training for layer in model.modules())
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)


@pytest.mark.part("norm/sync")
def test_sync_equals_torchs_own_conversion() -> None:
    ours = used(resnet18())
    theirs = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(ours))
    swap_norm(ours, "sync")
    assert [type(m) for m in ours.modules()] == [type(m) for m in theirs.modules()]
    for (name, mine), (other_name, other) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == other_name
        assert torch.equal(mine, other), name


@pytest.mark.parametrize("name", ["group", "instance", "layer", "frn"])
def test_other_norms_keep_weight_and_bias_and_learn(name: str) -> None:
    model = used(resnet18())
    weight = model.layer1[0].bn1.weight.clone()
    swaps = swap_norm(model, name)
    assert torch.equal(model.layer1[0].bn1.weight, weight)
    assert all(s.kept == ("weight", "bias") for s in swaps)
    assert all(s.dropped == ("running_mean", "running_var", "num_batches_tracked") for s in swaps)
    assert swaps[0].new == (("tau",) if name == "frn" else ())
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_there_and_back_is_the_same_model_again() -> None:
    model = used(resnet18()).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    swap_norm(model, "frozen")
    assert not any("bn" in name for name, _ in model.named_parameters())
    swap_norm(model, "batch")
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_only_some_and_a_factory_and_frozen_ones_stay_frozen() -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm1d(8), nn.LayerNorm(8), FrozenBatchNorm2d(8)
    )
    model[0].requires_grad_(False)
    model[0].eval()
    swaps = swap_norm(model, lambda channels: Group(channels, 2), only=lambda name, norm: name != "1")
    assert [s.name for s in swaps] == ["0", "4"]
    assert [type(m).__name__ for m in model] == ["Group", "BatchNorm2d", "BatchNorm1d", "LayerNorm", "Group"]
    assert model[0].num_groups == 4
    assert [p.requires_grad for p in model[0].parameters()] == [False, False]
    assert [p.requires_grad for p in model[4].parameters()] == [True, True]
    assert not model[0].training
    assert model[4].training


def test_a_norm_that_is_used_twice_stays_one() -> None:
    shared = nn.BatchNorm2d(4)
    model = nn.ModuleDict({"a": nn.Sequential(shared), "b": nn.Sequential(shared)})
    assert len(swap_norm(model, "group")) == 1
    assert model["a"][0] is model["b"][0]
    assert isinstance(model["b"][0], Group)


def test_timms_norms_keep_their_activation() -> None:
    import timm
    from timm.layers import LayerNorm2d

    model = used(timm.create_model("efficientnet_b0", pretrained=False)).eval()
    x = torch.randn(1, 3, 64, 64)
    before = model(x)
    count = len(swap_norm(model, "frozen"))
    assert count == sum(isinstance(m, Frozen) for m in model.modules()) == 49
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
    tokens = nn.Sequential(LayerNorm2d(6))
    swap_norm(tokens, Layer)
    assert isinstance(tokens[0], Layer)


def test_the_table_and_the_errors() -> None:
    swap = Swap("stages.0.1", "BatchNorm2d", "FilterResponse", ("weight", "bias"), ("tau",), ())
    assert table([swap]).splitlines() == [
        "name        before       after           kept          new  dropped",
        "stages.0.1  BatchNorm2d  FilterResponse  weight, bias  tau  -",
    ]
    with pytest.raises(ModelError, match="no norm is called 'grup'; did you mean 'group'"):
        swap_norm(nn.Sequential(nn.BatchNorm2d(4)), "grup")
    with pytest.raises(ModelError, match="BatchNorm2d cannot be replaced in place"):
        swap_norm(nn.BatchNorm2d(4), "group")
    with pytest.raises(ModelError, match="does not say how many channels"):
        channels_of(nn.ReLU())

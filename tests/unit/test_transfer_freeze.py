"""What is frozen stays as it is to the bit, in every mode, and never reaches an optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from torso.config import ModelError
from torso.nn.freeze import freeze, linear_probe, unfreeze
from torso.train import optim


class Net(nn.Module):
    """A backbone of two stages with norms and dropout, a neck with a norm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
            nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        )
        self.neck = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(x)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def learning(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


def moved(model: nn.Module, steps: int = 2) -> set[str]:
    """Names of all tensors that a few steps of training change."""
    before = {name: x.clone() for name, x in model.state_dict().items()}
    optimizer = torch.optim.SGD(optim.groups(model, 0.1, 0.01), lr=0.1, momentum=0.9)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.rand(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    return {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}


ALL = [name for name, _ in Net().named_parameters()]


@pytest.mark.part("transfer/freeze", "transfer/requires_grad")
@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["backbone.*"], [n for n in ALL if n.startswith("backbone.")]),
        (["backbone"], [n for n in ALL if n.startswith("backbone.")]),
        (["backbone.0"], [n for n in ALL if n.startswith("backbone.0.")]),
        (["backbone.*", "!*.1.weight", "!*.1.bias"], ["backbone.0.0.weight", "backbone.1.0.weight"]),
        (["*", "!head.*"], [n for n in ALL if not n.startswith("head.")]),
        (["*", "!head", "head.bias"], [n for n in ALL if n != "head.weight"]),
        (["*.bias"], [n for n in ALL if n.endswith(".bias")]),
        ([], []),
    ],
)
def test_patterns(net: Net, patterns: list[str], frozen: list[str]) -> None:
    assert freeze(net, patterns) == frozen
    assert learning(net) == [name for name in ALL if name not in frozen]
    held = {name for group in optim.groups(net, 0.1, 0.1) for name, _ in group["params"]}
    assert held == set(learning(net))


@pytest.mark.part("transfer/freeze")
def test_what_is_frozen_does_not_move_nor_do_its_statistics(net: Net) -> None:
    freeze(net, ["backbone.0"])
    changed = moved(net)
    assert changed == {name for name in net.state_dict() if not name.startswith("backbone.0.")}


@pytest.mark.part("transfer/freeze")
def test_a_norm_that_learns_in_a_frozen_stage_moves_with_its_statistics(net: Net) -> None:
    freeze(net, ["backbone", "!backbone.0.1"])
    changed = moved(net)
    assert {name for name in changed if name.startswith("backbone.")} == {
        f"backbone.0.1.{key}" for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


@pytest.mark.part("transfer/freeze")
def test_frozen_parts_stay_in_evaluation_mode(net: Net) -> None:
    freeze(net, ["backbone.0"])
    for _ in range(2):
        net.eval()
        net.train()
        modes = {name for name, module in net.named_modules() if not module.training}
        # The whole stage, its dropout too.
        assert modes == {"backbone.0", "backbone.0.0", "backbone.0.1", "backbone.0.2", "backbone.0.3"}
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(net.backbone[0](images), net.backbone[0](images))


@pytest.mark.part("transfer/freeze")
def test_copies_and_state_dicts_are_as_before(net: Net) -> None:
    plain = copy.deepcopy(net)
    freeze(net, ["backbone"])
    other = copy.deepcopy(net).train()
    assert not other.backbone[0][1].training
    assert learning(other) == learning(net)
    assert isinstance(net.backbone, nn.Sequential)
    assert isinstance(net.backbone[0][1], nn.BatchNorm2d)
    assert repr(net) == repr(plain)
    assert list(net.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(net.state_dict())
    unfreeze(other)
    assert not learning(net)[0].startswith("backbone"), "a copy that learns again leaves the other alone"
    assert not net.train().backbone.training


@pytest.mark.part("transfer/freeze")
def test_unfreezing_gives_everything_back(net: Net) -> None:
    freeze(net, ["*", "!head.*"])
    assert unfreeze(net.train(), ["backbone.1", "neck"]) == [n for n in ALL if n.startswith(("backbone.1.", "neck."))]
    assert next(name for name, module in net.named_modules() if not module.training) == "backbone.0"
    assert net.backbone[1][1].training
    assert moved(net) == {name for name in net.state_dict() if not name.startswith("backbone.0.")}
    assert unfreeze(net) == [n for n in ALL if n.startswith("backbone.0.")]
    assert [type(module) for module in net.modules()] == [type(module) for module in Net().modules()]
    assert moved(net) == set(net.state_dict())
    freeze(net.eval(), ["backbone"])
    unfreeze(net)
    assert not any(module.training for module in net.modules())


@pytest.mark.part("transfer/freeze")
def test_freezing_twice_and_more(net: Net) -> None:
    freeze(net, ["backbone.0"])
    frozen = freeze(net, ["backbone.1"])
    assert frozen == [n for n in ALL if n.startswith("backbone.")]
    assert moved(net) == {name for name in net.state_dict() if not name.startswith("backbone.")}
    unfreeze(net)
    assert [type(module) for module in net.modules()] == [type(module) for module in Net().modules()]


@pytest.mark.part("transfer/freeze")
def test_a_linear_probe_trains_the_head(net: Net) -> None:
    linear_probe(net)
    assert learning(net) == ["head.weight", "head.bias"]
    assert moved(net) == {"head.weight", "head.bias"}
    with pytest.raises(ModelError, match="trains the head, and Sequential has none"):
        linear_probe(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.part("transfer/freeze")
def test_patterns_that_fit_nothing(net: Net) -> None:
    with pytest.raises(ModelError, match=r"no parameter is called 'bakbone.*'; did you mean 'backbone\.\*'"):
        freeze(net, ["bakbone.*"])
    with pytest.raises(ModelError, match="no parameter is called 'x'; the model has backbone"):
        freeze(net, ["backbone", "!x"])
    assert learning(net) == ALL
    freeze(net, ["*"])
    with pytest.raises(ModelError, match="all are frozen"):
        optim.groups(net, 0.1, 0.0)


@pytest.mark.part("transfer/requires_grad")
def test_timms_freeze_freezes_the_same() -> None:
    """timm replaces norms by another class; what learns and what the network says is the same."""
    import timm

    torch.manual_seed(0)
    ours = timm.create_model("resnet18", pretrained=False)
    theirs = copy.deepcopy(ours)
    freeze(ours, ["conv1", "bn1", "layer1"])
    timm.utils.freeze(theirs, ["conv1", "bn1", "layer1"])
    frozen = {name for name, p in theirs.named_parameters() if not p.requires_grad}
    assert {name for name, p in ours.named_parameters() if not p.requires_grad} >= frozen
    assert frozen
    ours.train(), theirs.train()
    images = torch.rand(2, 3, 64, 64)
    mine, other = ours(images), theirs(images)
    torch.testing.assert_close(mine, other)
    mine.square().mean().backward(), other.square().mean().backward()
    for name, p in theirs.named_parameters():
        assert (p.grad is None) == (ours.get_parameter(name).grad is None)
        if p.grad is not None:
            torch.testing.assert_close(ours.get_parameter(name).grad, p.grad)


@pytest.mark.part("transfer/freeze")
def test_parts_that_freeze_themselves_stay_frozen_too() -> None:
    from torso.backbones import resnet

    backbone = resnet(18, frozen_stages=1)
    names = freeze(backbone, ["body.layer2"])
    assert {name.split(".")[1] for name in names} == {"conv1", "bn1", "layer1", "layer2"}
    backbone.train()
    assert not backbone.body.layer2[0].bn1.training
    assert not backbone.body.layer1[0].bn1.training
    assert backbone.body.layer3[0].bn1.training


@pytest.mark.part("transfer/freeze")
def test_a_frozen_network_compiles_in_one_graph(net: Net) -> None:
    freeze(net, ["backbone"])
    net.train()
    images = torch.rand(2, 3, 8, 8)
    expected = copy.deepcopy(net)(images)
    found = torch.compile(net, fullgraph=True, backend="eager")(images)
    torch.testing.assert_close(found, expected)

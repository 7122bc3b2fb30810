"""Weights from files, and what is frozen."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from torso.backbones import Timm, TimmTrunk, resnet
from torso.backbones.weights import classifier_layer
from torso.config import ModelError

pytestmark = pytest.mark.part("backbone/resnet")


@pytest.fixture(scope="module")
def state():
    import timm

    torch.manual_seed(0)
    return timm.create_model("resnet18", pretrained=False).state_dict()


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_a_dict_around_the_weights_is_taken_off(state, wrapper, tmp_path):
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "weights.pth")
    body = resnet(18, weights=str(tmp_path / "weights.pth")).body
    assert torch.equal(body.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def refused(path) -> str:
    with pytest.raises(ModelError) as caught:
        resnet(18, weights=str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_that_is_not_there(tmp_path):
    assert str(tmp_path / "none.pth") in refused(tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
def test_a_file_that_is_something_else(name, tmp_path):
    (tmp_path / name).write_text("these are not weights")
    assert str(tmp_path / name) in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_a_file_that_is_cut_off(name, state, tmp_path):
    path = tmp_path / name
    torch.save(state, path) if name.endswith("pth") else save_file(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in refused(path)


class Trap:
    """What a malicious checkpoint would hold."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("how", ["torch", "pickle", "old"])
def test_a_pickle_with_a_program_inside_is_never_run(how, state, tmp_path):
    path, proof = tmp_path / "evil.pth", tmp_path / "ran"
    content = {**state, "extra": Trap(proof)}
    if how == "pickle":
        path.write_bytes(pickle.dumps({"extra": Trap(proof)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    assert str(path) in refused(path)
    assert not proof.exists()


def test_a_dict_of_something_else(tmp_path):
    torch.save({"epoch": 3, "loss": torch.ones(2)}, tmp_path / "w.pth")
    assert str(tmp_path / "w.pth") in refused(tmp_path / "w.pth")


def test_missing_and_misshapen_tensors_are_named(state, tmp_path):
    without = {name: x for name, x in state.items() if name != "layer2.0.bn1.bias"}
    torch.save(without, tmp_path / "w.pth")
    message = refused(tmp_path / "w.pth")
    assert "resnet18" in message
    assert "layer2.0.bn1.bias" in message
    torch.save({**state, "layer3.0.conv1.weight": torch.zeros(256, 128, 1, 1)}, tmp_path / "w.pth")
    message = refused(tmp_path / "w.pth")
    for part in ("resnet18", "layer3.0.conv1.weight", "[256, 128, 1, 1]", "[256, 128, 3, 3]"):
        assert part in message


def test_equal_counts_are_not_equal_shapes(state, tmp_path):
    """A transposed tensor has as many elements, and would load by count."""
    weight = state["layer2.0.conv1.weight"]
    torch.save({**state, "layer2.0.conv1.weight": weight.transpose(0, 1).contiguous()}, tmp_path / "w.pth")
    assert "layer2.0.conv1.weight" in refused(tmp_path / "w.pth")


def test_weights_that_no_package_holds():
    with pytest.raises(ModelError, match="no installed package holds ImageNet weights of resnet18"):
        Timm("resnet18", weights="imagenet")


def test_unknown_models_and_levels():
    with pytest.raises(ModelError, match=r"timm has no model 'resnet19'; did you mean 'resnet\d+'\?"):
        Timm("resnet19")
    with pytest.raises(ModelError, match=r"timm's resnet18 has no level 6; its strides are \[2, 4, 8, 16, 32\]"):
        resnet(18, levels=(3, 6))
    with pytest.raises(ModelError, match=r"timm has no model 'nothing at all'; timm.list_models\(\) has"):
        TimmTrunk("nothing at all")


def test_a_file_without_a_classifier(state, tmp_path):
    torch.save({name: x for name, x in state.items() if name != "fc.bias"}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w.pth' for resnet18 hold no single classifier layer \(looked for fc\)"):
        classifier_layer(str(tmp_path / "w.pth"), "resnet18")


def statistics(body) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in body.named_buffers() if "running" in name}


@pytest.mark.parametrize(
    ("model", "first_free"),
    [
        ("resnet18", {1: "layer2.", 3: "layer4."}),
        ("mobilenetv3_small_100", {1: "blocks.1.", 3: "blocks.4."}),
        ("convnext_atto", {1: "stages_1.", 2: "stages_2."}),  # no level of stride 2, and names that timm joins
    ],
)
def test_frozen_stages_stay_as_they_are(model, first_free):
    for stages, free in first_free.items():
        backbone = Timm(model, frozen_stages=stages).train()
        names = [name for name, _ in backbone.body.named_parameters()]
        border = next(place for place, name in enumerate(names) if name.startswith(free))
        learns = [p.requires_grad for p in backbone.body.parameters()]
        assert learns == [place >= border for place in range(len(names))]
        before = statistics(backbone.body)
        sum(x.square().mean() for x in backbone(torch.rand(2, 3, 64, 64))).backward()
        for place, (name, parameter) in enumerate(backbone.body.named_parameters()):
            assert place >= border or parameter.grad is None, name
        moved = {name for name, x in statistics(backbone.body).items() if not torch.equal(x, before[name])}
        assert not {name for name in moved if name.rpartition(".")[0] + ".weight" in names[:border]}
        assert moved or model == "convnext_atto"


def test_frozen_stages_stay_frozen_when_the_mode_changes():
    backbone = resnet(18, frozen_stages=1)
    backbone.eval()
    backbone.train()
    assert not backbone.body.bn1.training
    assert not backbone.body.layer1[0].bn1.training
    assert backbone.body.layer2[0].bn1.training


def test_a_stage_that_ends_without_parameters():
    """VGG's levels are poolings: what lies before them is frozen."""
    backbone = Timm("vgg11_bn", (3,), frozen_stages=1)
    learns = [name for name, p in backbone.body.named_parameters() if p.requires_grad]
    frozen = [name for name, p in backbone.body.named_parameters() if not p.requires_grad]
    assert frozen
    assert learns
    number = [max(int(n.split("_")[1].split(".")[0]) for n in frozen), int(learns[0].split("_")[1].split(".")[0])]
    end = int(backbone.body.feature_info.module_name()[2].split(".")[1])
    assert number[0] < end < number[1]


def test_frozen_norms_stay_as_they_are():
    backbone = resnet(18, frozen_norm=True).train()
    before = statistics(backbone.body)
    sum(x.square().mean() for x in backbone(torch.rand(2, 3, 64, 64))).backward()
    assert all(torch.equal(x, before[name]) for name, x in statistics(backbone.body).items())
    for name, parameter in backbone.body.named_parameters():
        is_norm = "bn" in name or "downsample.1" in name
        assert (parameter.grad is None) == is_norm, name


def test_stages_that_do_not_exist():
    with pytest.raises(ModelError, match="frozen_stages=5 ends at stride 64, but in timm's resnet18 no stage ends"):
        resnet(18, frozen_stages=5)


def test_a_frozen_trunk_learns_nothing():
    trunk = TimmTrunk("resnet18", frozen=True).train()
    before = statistics(trunk.body)
    (features,) = trunk(torch.rand(2, 3, 64, 64))
    assert not features.requires_grad
    assert all(torch.equal(x, before[name]) for name, x in statistics(trunk.body).items())


@pytest.mark.part("backbone/tiny")
def test_tiny_returns_the_stages_asked_for():
    from torso.backbones import Tiny

    tiny = Tiny(widths=(4, 6, 8), levels=(3, 1), depth=2)
    assert (tiny.channels, tiny.strides) == ([4, 8], [2, 8])
    shapes = [list(x.shape) for x in tiny(torch.rand(1, 3, 17, 33))]
    assert shapes == [[1, 4, 9, 17], [1, 8, 3, 5]]
    assert len([m for m in tiny.modules() if isinstance(m, torch.nn.Conv2d)]) == 6
    for levels in ((), (0, 1), (2, 4)):
        with pytest.raises(ValueError, match=r"levels must lie in 1\.\.3"):
            Tiny(widths=(4, 6, 8), levels=levels)

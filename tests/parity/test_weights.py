"""The same network of two libraries says the same after its weights went over, both ways, to 1e-9 in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.parity.test_backbones import saved, scattered
from torso.backbones import BACKBONES, TimmTrunk
from torso.backbones.names import timm_names
from torso.backbones.weights import classifier_layer, graft
from torso.config import ModelError
from torso.criteria import ClassifyCriterion
from torso.heads import Classify
from torso.losses import CrossEntropy
from torso.models import Classifier
from torso.nn.transfer import load_weights
from torso.recipes.recipe import Recipe

CLASSES = 10


def of_torchvision(name: str) -> nn.Module:
    import torchvision
    from torchvision.models import vgg

    if name != "vgg11_bn":
        return torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
    # With 8 instead of 4096 channels in the fully connected layers, which would take a gigabyte.
    model = vgg.VGG(nn.Identity(), num_classes=CLASSES, init_weights=False)
    model.features = vgg.make_layers(vgg.cfgs["A"], batch_norm=True)
    model.classifier[0], model.classifier[3] = nn.Linear(512 * 7 * 7, 8), nn.Linear(8, 8)
    model.classifier[6] = nn.Linear(8, CLASSES)
    return model


def of_timm(name: str) -> nn.Module:
    import timm

    if name != "vgg11_bn":
        return timm.create_model(name, pretrained=False, num_classes=CLASSES)
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    model.features.to_empty(device="cpu")
    model.pre_logits, model.head.fc = timm.models.vgg.ConvMlp(512, 8, 7), nn.Linear(8, CLASSES)
    return model.apply(lambda layer: layer.reset_parameters() if hasattr(layer, "reset_parameters") else None)


PAIRS = {  # torchvision's name, timm's
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "vgg11_bn": "vgg11_bn",
    "densenet121": "densenet121",
    "mobilenet_v2": "mobilenetv2_100",
    "efficientnet_b0": "efficientnet_b0",
    "efficientnet_b4": "efficientnet_b4",
}


def compare(mine: Tensor, other: Tensor) -> None:
    assert mine.dtype == torch.float64
    assert float(other.std()) > 0
    torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9 * float(other.abs().max()))


def random(*size: int) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.part("transfer/weights")
@pytest.mark.parametrize("back", [False, True], ids=["to_timm", "to_torchvision"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_libraries_agree_after_the_weights_went_over(name: str, back: bool) -> None:
    torch.manual_seed(0)
    theirs, ours = of_torchvision(name), of_timm(PAIRS[name])
    if back:
        theirs, ours = ours, theirs
    scattered(theirs).eval().double()
    report = load_weights(ours.eval().double(), theirs.state_dict(), dialect=timm_names)
    assert report.share == 1
    assert report.names("unexpected") == []
    with torch.no_grad():
        compare(ours(random(64, 64)), theirs(random(64, 64)))


@pytest.mark.part("transfer/weights")
def test_without_the_dialect_nothing_is_guessed() -> None:
    """MobileNet V2 is the same in both, in the same order; by their names alone the libraries share no layer."""
    theirs, ours = of_torchvision("mobilenet_v2"), of_timm("mobilenetv2_100")
    scattered(theirs).eval().double()
    with pytest.raises(ModelError, match="another network"):
        load_weights(ours, theirs.state_dict())
    load_weights(ours.eval().double(), theirs.state_dict(), match="shape", minimum=1.0)
    with torch.no_grad():
        compare(ours(random(64, 64)), theirs(random(64, 64)))


def upto(last: str) -> Callable[[Any, Tensor], Tensor]:
    def run(model: Any, x: Tensor) -> Tensor:
        for name, layer in model.named_children():
            x = layer(x)
            if name == last:
                break
        return x

    return run


@pytest.mark.part("transfer/weights", "backbone/mobilenetv2", "backbone/efficientnet", "backbone/vgg")
@pytest.mark.part("backbone/densenet")
@pytest.mark.parametrize(
    ("part", "args", "name", "run"),
    [
        ("mobilenetv2", {}, "mobilenet_v2", lambda model, x: model.features[:-1](x)),
        ("efficientnet", {"size": "b0"}, "efficientnet_b0", lambda model, x: model.features[:-1](x)),
        ("vgg", {"depth": 11, "batch_norm": True}, "vgg11_bn", lambda model, x: model.features(x)),
        ("densenet", {}, "densenet121", lambda model, x: model.features(x)),
        ("resnet", {"depth": 50}, "resnet50", upto("layer4")),
    ],
)
def test_backbones_load_torchvisions_files(
    part: str, args: dict[str, Any], name: str, run: Any, tmp_path: Path
) -> None:
    """As a recipe does: ``model.backbone.weights=FILE``, wrapped as training programs leave it."""
    torch.manual_seed(0)
    theirs = scattered(of_torchvision(name)).eval()
    torch.save({"model": {f"module.{key}": x for key, x in theirs.state_dict().items()}}, tmp_path / "w.pth")
    ours = BACKBONES[part](**args, levels=(5,), weights=str(tmp_path / "w.pth")).eval().double()
    with torch.no_grad():
        expected = run(theirs.double(), random(64, 96))
        if part == "densenet":
            expected = expected.relu()
        compare(ours(random(64, 96))[0], expected)


@pytest.mark.part("transfer/weights", "backbone/densenet")
def test_densenet_files_with_the_names_they_were_published_under(tmp_path: Path) -> None:
    import re

    theirs = scattered(of_torchvision("densenet121")).eval()
    new = re.compile(r"(denselayer\d+\.(?:norm|conv))(\d)\.")
    state = {new.sub(r"\1.\2.", name): x for name, x in theirs.state_dict().items() if "num_batches" not in name}
    assert "features.denseblock4.denselayer16.norm.1.weight" in state
    ours = BACKBONES["densenet"](levels=(5,), weights=saved(state, tmp_path / "w.safetensors")).eval().double()
    with torch.no_grad():
        compare(ours(random(64, 64))[0], theirs.double().features(random(64, 64)).relu())


@pytest.mark.part("transfer/weights", "head/classify")
@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0"])
def test_torchvisions_classifier_comes_along(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = scattered(of_torchvision(name)).eval()
    path = saved(theirs.state_dict(), tmp_path / "w.safetensors")
    body = TimmTrunk(PAIRS[name], weights=path)
    head = Classify(body.channels, CLASSES)
    head.linear.load_state_dict(classifier_layer(path, PAIRS[name]))
    with torch.no_grad():
        compare(head.eval().double()(body.eval().double()(random(64, 64))), theirs.double()(random(64, 64)))


@pytest.mark.part("transfer/weights")
@pytest.mark.parametrize("name", ["efficientnet_b5", "efficientnet_v2_s"])
def test_networks_that_only_look_alike_are_refused(name: str) -> None:
    """torchvision's norms have epsilon 1e-3 there, timm's 1e-5: equal shapes, but other features."""
    import timm
    import torchvision

    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None)
        ours = timm.create_model(name.replace("_v2", "v2"), pretrained=False)
    assert [x.shape for x in theirs.state_dict().values()] == [x.shape for x in ours.state_dict().values()]
    assert {m.eps for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert {m.eps for m in ours.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    with pytest.raises(ModelError, match="another network"):
        load_weights(ours, theirs.state_dict(), dialect=timm_names)


# ---------------------------------------------------------------- grafts


def classifier(model: str, **options: Any) -> Classifier:
    body = TimmTrunk(model, **options)
    return Classifier(scattered(body), Classify(body.channels, CLASSES), ClassifyCriterion(CrossEntropy()), CLASSES)


def detector(*overrides: str) -> nn.Module:
    """A detector of the shipped recipe, its neck and head made small."""
    small = ["model.neck.channels=8", "model.head.depth=1", "model.backbone.frozen_stages=0"]
    recipe = Recipe.load("retinanet", [*small, *overrides], without_data=True)
    model: nn.Module = recipe.model.build(num_classes=3)
    return model


@pytest.mark.part("transfer/graft_backbone")
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_resnet_50_of_a_classifier_in_a_detector_on_one_grid(library: str) -> None:
    """As in YOLO v1: one map of stride 32. The features are those of the classifier, before its pooling."""
    torch.manual_seed(0)
    theirs = scattered(of_torchvision("resnet50") if library == "torchvision" else of_timm("resnet50")).eval()
    model = detector("model.backbone.levels=[5]", "model.neck.extra=0").eval()
    neck = model.neck.state_dict()
    report = graft(model.backbone, theirs.state_dict())
    assert report.share == 1
    assert report.names("unexpected") == ["fc.weight", "fc.bias"]
    assert all(torch.equal(x, neck[name]) for name, x in model.neck.state_dict().items())
    whole = model.predict(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    assert whole.boxes.shape[-1] == 4
    model.double(), theirs.double()
    with torch.no_grad():
        x = random(64, 96)
        expected = upto("layer4")(theirs, x) if library == "torchvision" else theirs.forward_features(x)
        compare(model.backbone(x)[0], expected)


@pytest.mark.part("transfer/graft_backbone")
@pytest.mark.parametrize("model", ["resnet18", "mobilenetv2_035", "convnext_atto", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("how", ["weights", "graft"])
def test_a_run_of_a_classifier_in_a_detector(model: str, how: str, tmp_path: Path) -> None:
    """By one word of a recipe, or one call; levels of timm's pyramids have other names than the whole model."""
    torch.manual_seed(0)
    theirs = classifier(model).eval()
    run = tmp_path / "runs" / "classify" / "classifier-1"
    run.mkdir(parents=True)
    save_file(theirs.state_dict(), run / "model.safetensors")
    level = 4 if model.startswith("vit") else 5
    words = [f"model.backbone={{name: timm, model: {model}, levels: [{level}]}}", "model.neck.extra=0"]
    ours = detector(*words, *([f"model.backbone.weights={run}"] if how == "weights" else []))
    if how == "graft":
        assert graft(ours.backbone, run, minimum=1.0).share == 1
    x = random(224, 224) if model.startswith("vit") else random(64, 64)
    whole = theirs.backbone.body.double()
    ours.eval().double()
    with torch.no_grad():
        compare(ours.backbone(x)[0], whole.forward_intermediates(x, intermediates_only=True)[-1])


@pytest.mark.part("transfer/graft_backbone", "backbone/vit")
def test_a_vit_of_a_run_in_the_simple_pyramid(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = classifier("vit_tiny_patch16_224").eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    words = "model.backbone={name: vit, size: tiny, levels: [3, 4]}"
    ours = detector(words, f"model.backbone.weights={tmp_path}").eval().double()
    x = random(224, 224)
    with torch.no_grad():
        expected = theirs.backbone.body.double().forward_intermediates(x, indices=[11], intermediates_only=True)
        compare(ours.backbone.trunk(x), expected[0])
    other = detector(words).eval().double()
    report = graft(other.backbone, tmp_path)
    assert {name.split(".")[0] for name in report.names("missing")} == {"pyramid"}
    with torch.no_grad():
        compare(other.backbone.trunk(x), expected[0])


@pytest.mark.part("transfer/graft_backbone")
def test_a_run_of_a_detector_in_a_classifier_and_in_another_detector(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = "model.backbone={name: timm, model: resnet18}"
    theirs = scattered(detector(small)).eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    whole = TimmTrunk("resnet18", weights=str(tmp_path))
    other = detector(small, f"model.backbone.weights={tmp_path / 'model.safetensors'}", "model.neck=pan").eval()
    theirs.double(), other.double()
    with torch.no_grad():
        expected = theirs.backbone(random(64, 64))
        for mine, features in zip(other.backbone(random(64, 64)), expected, strict=True):
            compare(mine, features)
        compare(whole.eval().double().body.forward_features(random(64, 64)), expected[-1])


@pytest.mark.part("transfer/graft_backbone")
def test_another_network_is_refused_by_the_word_and_by_the_call(tmp_path: Path) -> None:
    theirs = classifier("resnet18")
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"for resnet34 lack layer1\.2\.conv1\.weight: they belong to another model"):
        detector("model.backbone={name: timm, model: resnet34}", f"model.backbone.weights={tmp_path}")
    model = detector("model.backbone={name: timm, model: mobilenetv2_035}")
    with pytest.raises(ModelError, match="only 0% of the tensors"):
        graft(model.backbone, tmp_path)

"""The words of a recipe: ``train.init``, ``train.freeze``, ``train.backbone_factor``, ``model.backbone.weights``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from torso.config import ModelError
from torso.recipes import run as verbs
from torso.recipes.recipe import Recipe
from torso.recipes.show import show
from torso.recipes.transfer import begin
from torso.train.seed import seed_everything

TINY = "{name: tiny, widths: [4, 6, 8], levels: [2, 3]}"
QUICK = ["train.epochs=1", "data.size=64", "data.batch=8", "data.workers=0", "train.tricks=[]", "train.threads=1"]
Train = Callable[..., tuple[Path, dict[str, Tensor]]]


def words(path: Path, *more: str) -> list[str]:
    small = ["model.neck.channels=8", "model.head.depth=1", "model.neck.extra=0", f"model.backbone={TINY}"]
    return [f"data.path={path}", *small, *QUICK, *more]


@pytest.fixture
def train(digits: Path, tmp_path: Path) -> Train:
    def run(*more: str, name: str = "run") -> tuple[Path, dict[str, Tensor]]:
        result = verbs.train("demo", words(digits, *more), runs=tmp_path / "runs", name=name, quiet=True)
        folder = Path(result["run"])
        return folder, load_file(folder / "model.safetensors")

    return run


@pytest.fixture(scope="module")
def other(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a detector for 80 classes, as a file and its config would be left."""
    folder = tmp_path_factory.mktemp("other")
    torch.manual_seed(5)
    model = Recipe.load("demo", words(digits)).model.build(num_classes=80)
    for x in model.state_dict().values():
        if x.is_floating_point():
            x.copy_(torch.rand_like(x) * 0.05 + 0.01)
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def fresh(path: Path, *more: str) -> dict[str, Tensor]:
    """The weights a run begins with, without any training."""
    recipe = Recipe.load("demo", words(path, *more))
    settings = recipe.train.build()
    seed_everything(settings["seed"])
    model = recipe.model.build(num_classes=10)
    begin(model, settings)
    return dict(model.state_dict())


@pytest.mark.part("transfer/report", "transfer/weights", "transfer/requires_grad")
def test_a_run_begins_with_another_and_keeps_what_is_frozen(
    train: Train, other: Path, capsys: Any, digits: Path
) -> None:
    """80 classes to 10: everything frozen but the head comes out as it was in the other run, statistics too."""
    freeze = 'train.freeze=["*", "!head.*"]'
    folder, now = train(f"train.init={other}", freeze)
    before = load_file(other / "model.safetensors")
    moved = {name for name, x in now.items() if not (x.shape == before[name].shape and torch.equal(x, before[name]))}
    assert moved == {name for name in now if name.startswith("head.")}
    told = json.loads((folder / "init.json").read_text())["model"]
    assert told["re-initialised"] == ["head.class_logits.weight", "head.class_logits.bias"]
    assert (told["missing"], told["unexpected"], told["source"]) == ([], [], str(other))
    assert set(told["loaded"]) == set(before) - set(told["re-initialised"])
    assert f"init: {other}" in (folder / "recipe.yaml").read_text()
    artifact = verbs.load(folder)  # a run is whole without the run it began with
    assert all(torch.equal(x, now[name]) for name, x in artifact.model.state_dict().items())
    shown = show(str(folder))
    trained = [name for name, p in artifact.model.named_parameters() if name.startswith("head.")]
    assert sum(group["tensors"] for group in shown["groups"]) == len(trained)
    assert capsys.readouterr().err == ""
    verbs.train("demo", words(digits, f"train.init={other}", freeze), runs=folder.parent)
    lines = capsys.readouterr().err.splitlines()
    assert any(
        line.startswith(f"init     model from {other}, 58 tensors: 56 loaded, 2 re-initialised") for line in lines
    )
    assert any(line.startswith("re-initialised  head.class_logits.weight") for line in lines)


@pytest.mark.part("transfer/graft_backbone", "transfer/drop_keys")
def test_sections_and_dropped_names(other: Path, digits: Path) -> None:
    before, plain = load_file(other / "model.safetensors"), fresh(digits)

    def taken(*more: str) -> set[str]:
        now = fresh(digits, f"train.init={other}", *more)
        for name, x in now.items():
            here = x.shape == before[name].shape and torch.equal(x, before[name])
            assert here or torch.equal(x, plain[name]), f"{name} is neither of the run nor as a new model begins"
        return {name for name, x in now.items() if not torch.equal(x, plain[name])}

    everything = taken()
    assert not {name for name in everything if "class_logits" in name}
    assert taken("train.init_parts=[backbone]") == {name for name in everything if name.startswith("backbone.")}
    two = taken("train.init_parts=[backbone, neck]")
    assert two == {name for name in everything if name.startswith(("backbone.", "neck."))}
    assert taken("train.init_drop=[head.*, neck.*]") == {n for n in everything if n.startswith("backbone.")}


@pytest.mark.part("transfer/graft_backbone")
def test_the_features_of_a_small_classifier_in_a_detector(tmp_path: Path, digits: Path) -> None:
    """Any backbone, not only those that have an argument for weights."""
    source = Recipe.load("classifier", [f"model.backbone={TINY}"], without_data=True).model.build(num_classes=4)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    now = fresh(digits, f"train.init={tmp_path}", "train.init_parts=[backbone]")
    assert all(torch.equal(now[f"backbone.{name}"], x) for name, x in source.backbone.state_dict().items())
    with pytest.raises(ModelError, match=r"train\.init=.*: only \d+% of the tensors .* missing are"):
        fresh(digits, f"train.init={tmp_path}")
    fresh(digits, f"train.init={tmp_path}", "train.init_minimum=0.2")


@pytest.mark.part("transfer/weights")
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.init=no/such.pt", r"train\.init=no/such\.pt: no/such\.pt cannot be read as weights: No such file"),
        ("train.init=ResNet18_Weights.DEFAULT", "torso downloads nothing"),
        ("train.init={tmp}", "has no weights yet: no model.safetensors and no whole checkpoint"),
        ("train.init={other} train.init_parts=[bakbone]", r"has no section 'bakbone'; did you mean 'backbone'\?"),
        ("train.init={other} train.init_drop=[hed.*]", r"no tensor in .* is called 'hed\.\*'"),
        ("train.init={other} train.init_minimum=2", "minimum is a share"),
        ("train.freeze=[bakbone]", r"no parameter is called 'bakbone'; did you mean 'backbone\.\*'\?"),
        ('train.freeze=["*"]', "all are frozen"),
    ],
)
def test_what_cannot_be_is_told_before_training(
    word: str, message: str, train: Train, other: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    more = word.replace("{other}", str(other)).replace("{tmp}", str(tmp_path / "empty")).split(" ")
    with pytest.raises(ModelError, match=message) as caught:
        train(*more)
    assert "\n" not in str(caught.value)


@pytest.mark.part("transfer/weights", "transfer/freeze")
def test_a_resume_needs_the_other_run_no_more_and_stays_frozen(
    train: Train, other: Path, tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the first of two epochs, the other run deleted: the same weights as in one go."""
    copy = tmp_path / "gone"
    copy.mkdir()
    (copy / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    monkeypatch.chdir(tmp_path)
    more = ["train.init=gone", "train.freeze=[backbone]", "train.epochs=2", "train.precision=fp32"]
    _, whole = train(*more, name="whole")

    from torso.train.signals import Interrupted

    evaluate = verbs.judge

    def interrupt(*args: Any, **options: Any) -> Any:
        raise Interrupted("here")

    monkeypatch.setattr(verbs, "judge", interrupt)
    with pytest.raises(Interrupted):
        train(*more, name="cut")
    monkeypatch.setattr(verbs, "judge", evaluate)
    (copy / "model.safetensors").unlink()
    monkeypatch.chdir(digits)
    (cut,) = (tmp_path / "runs" / "detect").glob("cut-*")
    assert f"init: {copy}\n" in (cut / "recipe.yaml").read_text(), "a path that holds in any folder"
    verbs.resume(cut, quiet=True)
    again = load_file(cut / "model.safetensors")
    assert all(torch.equal(x, whole[name]) for name, x in again.items())
    before = load_file(other / "model.safetensors")
    assert all(torch.equal(x, before[name]) for name, x in again.items() if name.startswith("backbone."))


@pytest.mark.part("transfer/fine_tune_all_weights")
def test_a_recipe_fine_tunes_all_weights_the_backbone_more_slowly(digits: Path) -> None:
    shown = show("transfer", ["model.backbone.weights=null", f"data.path={digits}", "train.optimizer.lr=0.1"])
    rates = {group["first"].split(".")[0]: group["lr"] for group in shown["groups"]}
    assert rates == {"backbone": pytest.approx(0.025), "head": pytest.approx(0.1)}
    assert sum(group["parameters"] for group in shown["groups"]) == sum(shown["parameters"].values())
    words = ["model.backbone.weights=null", "train.freeze=[backbone]"]
    (first, second) = show("transfer", words)["groups"]
    assert (first["first"], second["first"]) == ("head.linear.weight", "head.linear.bias")

"""The whole way on the command line, on the built-in data: train, eval, predict, export, resume, and swaps of parts."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from torso.cli import main

TINY = ["data.size=96", "data.batch=4", "data.workers=0", "train.epochs=1", "train.schedule.warmup=2"]


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The JSON a command prints; it must succeed."""
    capsys.readouterr()
    code = main([*words, "--json"])
    caught = capsys.readouterr()
    assert code == 0, caught.err
    return json.loads(caught.out)


@pytest.fixture(scope="module")
def run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the demo recipe, as small as it gets."""
    runs = tmp_path_factory.mktemp("runs with spaces 图")
    before = {path: path.read_bytes() for path in digits.rglob("*") if path.is_file()}
    words = [f"data.path={digits}", *TINY, "model.threshold=0.001"]
    assert main(["train", "demo", *words, "--runs", str(runs), "--quiet"]) == 0
    after = {path: path.read_bytes() for path in digits.rglob("*") if path.is_file()}
    assert before == after, "the user's files are as they were"
    return runs / "detect" / "demo-1"


@pytest.mark.part("cli/verbs", "cli/progress", "model/detector")
def test_a_run_folder_holds_everything(run: Path) -> None:
    expected = {
        *("recipe.yaml", "command.txt", "environment.json", "data_report.json", "metrics.jsonl", "results.csv"),
        *("checkpoints", "model.safetensors", "config.json", "plots", "report.html", "state.json"),
        *("predictions.json", "evaluation.json"),
    }
    assert {path.name for path in run.iterdir()} >= expected
    assert json.loads((run / "state.json").read_text())["status"] == "done"
    config = json.loads((run / "config.json").read_text())
    assert config["task"] == "detect"
    assert config["classes"] == list("0123456789")
    assert list((run / "plots").glob("*.png"))
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert "data:image/jpeg;base64," in page


@pytest.mark.part("metric/coco_ap", "deploy/onnx", "deploy/verify")
def test_the_exported_file_scores_as_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    eager = answer(capsys, "eval", str(run))
    file = answer(capsys, "export", str(run), "--to", "onnx")["file"]
    shipped = answer(capsys, "eval", file)
    alone = answer(capsys, "eval", str(run / "model.safetensors"))
    assert shipped["voc"] == pytest.approx(eager["voc"], abs=1e-4)
    assert set(eager["voc"]) == {"all_points", "eleven_points"}
    assert eager["summary"].keys() >= {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100"}
    for name, value in eager["summary"].items():
        assert shipped["summary"][name] == pytest.approx(value, abs=1e-4)
        assert alone["summary"][name] == value


def test_predictions_are_coco_results_in_original_pixels(
    run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bilder 图é"
    folder.mkdir()
    pictures = sorted((digits / "JPEGImages").glob("*"))[:2]
    for picture in pictures:
        shutil.copy(picture, folder)
    (folder / "broken.jpg").write_bytes(b"<html>not a picture</html>")
    result = answer(capsys, "predict", str(run), str(folder), "--out", str(tmp_path / "out"))
    assert result["images"] == 2
    assert [Path(one["path"]).name for one in result["skipped"]] == ["broken.jpg"]
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert rows == result["predictions"]
    assert rows, "even an untrained model says something"
    for row in rows:
        x, y, width, height = row["bbox"]
        assert 0 <= x <= x + width <= 96
        assert 0 <= y <= y + height <= 96
        assert set(row) == {"image_id", "category_id", "bbox", "score"}
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 2
    own = answer(capsys, "predict", str(run), str(pictures[0]), "--out", str(tmp_path / "own"))["predictions"]
    assert {row["image_id"] for row in own} == {pictures[0].stem}, "a picture of the data set keeps its id"


def test_a_finished_run_is_not_trained_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "model.safetensors").read_bytes()
    result = answer(capsys, "resume", str(run))
    assert result["run"] == str(run)
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        ["model.neck={name: fpn, channels: 16, extra: 0, extra_from: pool}"],
        ["model.assigner.positive=0.6", "model.assigner.low_quality=false"],
        ["model.class_loss={name: focal, gamma: 1.5}", "model.box_loss=smooth_l1"],
        ["model.suppress=nms"],
        ["model.suppress=threshold", "model.box_loss=l1", "model.criterion.average=image"],
        ["model.backbone={name: resnet, depth: 18}", "model.head={name: retina, depth: 1}"],
    ],
    ids=lambda changes: changes[0].split("=")[0].removeprefix("model."),
)
def test_any_part_is_swapped_from_the_command_line(changes: list[str], digits: Path, tmp_path: Path) -> None:
    words = ["train", "demo", f"data.path={digits}", *TINY, *changes, "--runs", str(tmp_path), "--quiet"]
    assert main(words) == 0
    assert (tmp_path / "detect" / "demo-1" / "report.html").is_file()


OWN_NECK = '''
"""Somebody's own package: torso is not edited."""
from collections.abc import Sequence
from torch import nn

class Flat(nn.Module):
    """One 1x1 convolution a level.

    Source: own design.
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], channels: int = 32):
        super().__init__()
        self.channels, self.strides = [channels] * len(in_channels), list(strides)
        self.maps = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)

    def forward(self, features):
        return [conv(x) for conv, x in zip(self.maps, features)]

PARTS = {"neck": {"flat": Flat}}
'''


def test_a_neck_of_ones_own_needs_no_edit_of_torso(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mylab_necks.py").write_text(OWN_NECK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("torso.config.roles._added", {})
    words = [f"data.path={digits}", *TINY, "--runs", str(tmp_path), "--quiet", "--import", "mylab_necks"]
    result = answer(capsys, "train", "demo", "model.neck=flat", "model.neck.channels=24", *words)
    config = json.loads((Path(result["run"]) / "config.json").read_text())
    assert config["recipe"]["model"]["neck"] == {"name": "flat", "channels": 24}

    from torso.testing import check_neck

    check_neck(import_module("mylab_necks").Flat)


@pytest.mark.part("format/folder", "metric/accuracy", "model/classifier", "criterion/classify")
def test_a_classifier_goes_the_same_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torso.data import digits

    folder = digits.make(tmp_path / "digits", format="folder", count=40, size=128)
    words = [f"data.path={folder}", "data.size=32", "data.batch=8", "data.workers=0", "train.epochs=1"]
    words += ["data.resize=[{name: resize, mode: short, size: 36}, center_crop]", "--runs", str(tmp_path), "--quiet"]
    run = answer(capsys, "train", "classifier", *words)["run"]
    eager = answer(capsys, "eval", run)
    shipped = answer(capsys, "eval", answer(capsys, "export", run, "--to", "onnx")["file"])
    assert shipped["summary"]["accuracy"] == eager["summary"]["accuracy"]
    rows = answer(capsys, "predict", run, str(folder / "val"), "--out", str(tmp_path / "out"))["predictions"]
    assert len(rows) == 8
    assert all(0 <= row["score"] <= 1 for row in rows)


def test_a_damaged_picture_is_named_and_everything_else_goes_on(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(digits, folder)
    split = (folder / "ImageSets" / "Main" / "val.txt").read_text().split()
    victim = next((folder / "JPEGImages").glob(f"{split[0]}.*"))
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    broken = victim.read_bytes()
    assert main(["train", "demo", f"data.path={folder}", *TINY, "--runs", str(tmp_path), "--quiet"]) == 0
    report = json.loads((tmp_path / "detect" / "demo-1" / "data_report.json").read_text())
    assert report["train"]["unreadable"] == []
    named = [one["path"] for one in report["val"]["unreadable"]] + [one["path"] for one in report["val"]["problems"]]
    assert [Path(path).name for path in named] == [victim.name]
    assert victim.read_bytes() == broken


def test_the_python_surface_does_the_same(digits: Path, tmp_path: Path) -> None:
    import torso

    result = torso.run.train("demo", [f"data.path={digits}", *TINY], runs=tmp_path, quiet=True)
    artifact = torso.load(result["run"])
    found = artifact.model.predict(torch.zeros(1, 3, 96, 96, dtype=torch.uint8))
    assert found.boxes.shape == (1, 100, 4)
    assert torso.run.evaluate(result["run"])["summary"] == result["metrics"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["train", "demo", "model.nek=fpn"], 2, "neck"),
        (["train", "demo", "model.neck=fpnn"], 2, "fpn"),
        (["train", "demo", "model.head=classify"], 4, "dense"),
        (["train", "demo", "data.path=/nowhere/at/all"], 3, "/nowhere"),
        (["train", "transfer", "data.path={digits}"], 3, "detector"),
        (["eval", "/nowhere"], 4, "run folder"),
        (["export", "/nowhere", "--to", "onnx"], 4, "run folder"),
        (["resume", "/nowhere"], 4, "run folder"),
        (["predict", "/nowhere", "a.jpg"], 4, "run folder"),
    ],
)
def test_mistakes_end_with_one_sentence_and_their_code(
    words: list[str], code: int, says: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("{digits}", str(digits)) for word in words]
    if words[0] == "train":
        words += ["--runs", str(tmp_path)]
    assert main(words) == code
    caught = capsys.readouterr()
    assert says in caught.err
    assert "Traceback" not in caught.err
    assert not list(tmp_path.iterdir()), "nothing is left behind"

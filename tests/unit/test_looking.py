"""Mirrored, at scales, in windows: what is asked on the command line, and what is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.recipes.small import SMALL
from torso import cli
from torso.boxes.suppress import NMS, WeightedFusion
from torso.config import RecipeError
from torso.deploy.tiled import Tiled
from torso.evaluate.errors import KINDS, SPECIAL
from torso.evaluate.predictions import in_source
from torso.evaluate.tta import Looks
from torso.recipes import run
from torso.recipes.looking import Looking, looking
from torso.recipes.recipe import Recipe
from torso.structures import Detections

RESULTS: dict[str, dict[str, Any]] = {
    "evaluate": {"split": "val", "images": 0, "data": "D", "seconds": 0.0, "summary": {}},
    "predict": {"out": "O", "images": 0, "skipped": []},
}


class Two:
    """A detector of nothing."""

    task, num_classes, stride = "detect", 2, 8

    def predict(self, images: torch.Tensor) -> Detections:
        rows = torch.zeros(len(images), 1)
        return Detections(torch.zeros(len(images), 1, 4), rows, rows.long(), rows.bool())


@pytest.mark.part("trick/tta", "deploy/tiled", "cli/verbs")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", None),
        ("--tta flip,0.8,1.2", Looking(flip=True, scales=(0.8, 1.2))),
        ("--tta 2", Looking(scales=(2.0,))),
        ("--tiles 640", Looking(tiles=640)),
        ("--tiles 640 --overlap 0.3 --whole --merge ios_nms", Looking(False, (), 640, 0.3, True, "ios_nms")),
        ("--tiles 640 --overlap 0 --tta flip", Looking(flip=True, tiles=640, overlap=0.0)),
    ],
)
@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_what_is_asked_reaches_the_verb(
    words: str, expected: Looking | None, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(run, verb, lambda *_, how, **__: heard.append(how) or RESULTS[verb])
    asked = ["eval", "R"] if verb == "evaluate" else ["predict", "R", "a.jpg"]
    assert cli.main([*asked, *words.split()]) == 0
    assert heard == [expected]


@pytest.mark.part("trick/tta", "deploy/tiled")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tta", "flop"], "--tta takes flip and factors such as flip,0.8,1.2, got 'flop'"),
        (["--tta", ""], "--tta takes flip and factors such as flip,0.8,1.2, got ''"),
        (["--tta", "0"], "--tta takes factors above 0, got 0"),
        (["--tta", "nan"], "--tta takes factors above 0, got nan"),
        (["--tiles", "0"], "--tiles is the width of a window in pixels, at least 1, got 0"),
        (["--tiles", "64", "--overlap", "1"], "--overlap is a share of a window, from 0 to below 1, got 1"),
        (["--overlap", "0.5"], "--overlap and --whole are about windows: say how wide they are with --tiles PIXELS"),
        (["--whole"], "--overlap and --whole are about windows: say how wide they are with --tiles PIXELS"),
        (["--merge", "nms"], "--merge says what becomes of several looks: ask for some with --tta or --tiles"),
        (["--tta", "flip", "--merge", "nmz"], "--merge: suppress: no suppress is called 'nmz'; did you mean 'nms'?"),
        (
            ["--tta", "flip", "--merge", "{name: nms, overlap: 2}"],
            "--merge: suppress (nms): overlap is a share in 0..1, got 2.0",
        ),
        (["--tta", "flip", "--merge", "ensemble"], "--merge: ensemble takes models and pictures, not candidates"),
        (
            ["--tiles", "9", "--merge", "variance_voting"],
            "--merge: variance_voting wants the variance of every box, which an answer does not have",
        ),
    ],
)
def test_what_makes_no_sense_ends_with_2_and_a_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked in (["eval", "R"], ["predict", "R", "a.jpg"]):
        assert cli.main([*asked, *words]) == 2
        assert capsys.readouterr().err == f"torso: {sentence}\n"


@pytest.mark.part("trick/tta")
def test_words_become_parts() -> None:
    how = looking("flip,1.5", merge="{name: nms, overlap: 0.3}")
    assert how is not None
    model = how.model(Two())
    assert isinstance(model, Looks)
    assert model.scales == (1.0, 1.5)
    assert isinstance(model.merge, NMS)
    assert model.merge.overlap == 0.3
    fused = Looking(flip=True).model(Two())
    assert isinstance(fused.merge, WeightedFusion)
    assert fused.merge.weights == (1.0, 1.0)
    with pytest.raises(RecipeError, match="2 looks need as many weights"):
        Looking(flip=True, merge="{name: weighted_fusion, weights: [1, 2, 3]}").model(Two())
    own = Two()
    assert Looking(tiles=9).model(own) is own
    assert how.told() == {"flip": True, "scales": (1.5,), "merge": "{name: nms, overlap: 0.3}"}


@pytest.mark.part("metric/detection_errors")
def test_errors_are_told_below_the_marks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"error": "missed", "count": 3, "dAP": 0.25}, {"error": "duplicate", "count": 0, "dAP": None}]
    judged = RESULTS["evaluate"] | {"errors": rows, "mask_errors": rows[:1]}
    monkeypatch.setattr(run, "evaluate", lambda *_, **__: judged)
    assert cli.main(["eval", "R"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "errors, and what AP50 would gain without them:",
        *["error      count  dAP", "missed     3      0.25", "duplicate  0      -"],
        "mask errors, and what AP50 would gain without them:",
        *["error   count  dAP", "missed  3      0.25"],
    ]


@pytest.mark.part("trick/tta", "deploy/tiled")
def test_masks_come_from_windows_and_looks_to_the_picture() -> None:
    torch.manual_seed(0)
    recipe = Recipe.load("mask_rcnn", [*SMALL["mask_rcnn"], "model.threshold=0"], without_data=True)
    model = recipe.model.build(num_classes=3).eval()
    picture = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    found = Tiled(Looking(flip=True).model(model), (96, 96), overlap=0.25).predict(picture)
    assert found.masks is not None
    assert found.masks.shape[:2] == found.scores.shape
    assert 0 <= found.masks.min() < found.masks.max() <= 1
    said = in_source(found, np.array([0]), np.eye(3)[None], np.array([[200, 150]]))
    assert said.masks is not None
    assert len(said.masks) == len(said) == int(found.valid.sum())
    assert {tuple(mask["size"]) for mask in said.masks} == {(150, 200)}


TINY = ["data.size=96", "data.batch=4", "data.workers=0", "train.epochs=1", "train.schedule.warmup=2"]


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the demo recipe that has learned nothing yet, and says a lot."""
    runs = tmp_path_factory.mktemp("runs")
    words = [f"data.path={digits}", *TINY, "model.threshold=0.001", "--runs", str(runs), "--quiet"]
    assert cli.main(["train", "demo", *words]) == 0
    return runs / "detect" / "demo-1"


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    code = cli.main([*words, "--json"])
    caught = capsys.readouterr()
    assert code == 0, caught.err
    return json.loads(caught.out)


@pytest.mark.part("trick/tta", "deploy/tiled")
def test_a_run_is_judged_with_several_looks_and_in_windows(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once = answer(capsys, "eval", str(trained))
    assert "looking" not in once
    assert [row["error"] for row in once["errors"]] == [*KINDS, *SPECIAL]
    assert max(row["dAP"] for row in once["errors"]) > 0, "it has learned nothing"
    same = answer(capsys, "eval", str(trained), "--tiles", "96", "--overlap", "0.5")
    assert same["summary"] == once["summary"], "pictures of 96 pixels fit into one window"
    more = answer(capsys, "eval", str(trained), "--tta", "flip,1.5", "--out", str(tmp_path))
    assert more["looking"] == {"flip": True, "scales": [1.5]}
    assert json.loads((tmp_path / "evaluation.json").read_text())["looking"] == more["looking"]
    tiles = answer(capsys, "eval", str(trained), "--tiles", "64", "--whole", "--tta", "flip", "--merge", "batched_nms")
    assert tiles["looking"] == {"flip": True, "tiles": 64, "whole": True, "merge": "batched_nms"}
    assert tiles["summary"].keys() == once["summary"].keys()


@pytest.mark.part("deploy/tiled")
def test_a_large_picture_is_answered_window_by_window(
    trained: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [np.asarray(Image.open(path)) for path in sorted((digits / "JPEGImages").glob("*"))[:6]]
    sheet = np.concatenate([np.concatenate(small[:3], axis=1), np.concatenate(small[3:], axis=1)])
    Image.fromarray(sheet).save(tmp_path / "big.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    inputs = [str(tmp_path / "big.png"), str(tmp_path / "broken.png")]
    words = ["--tiles", "96", "--overlap", "0.25"]
    found = answer(capsys, "predict", str(trained), *inputs, *words, "--out", str(tmp_path / "a"))
    assert (found["images"], len(found["skipped"])) == (1, 1)
    assert (tmp_path / "a" / "big.jpg").is_file()
    boxes = np.array([row["bbox"] for row in found["predictions"]])
    assert len(boxes)
    ends = boxes[:, :2] + boxes[:, 2:]
    assert (boxes >= 0).all()
    assert (ends <= (288, 192)).all()
    assert ends.max() > 200, "all over the picture"


def test_a_classifier_is_not_asked_for_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torso.data import digits

    digits.make(tmp_path / "d", format="folder", count=12, size=32, seed=0)
    tiny = ["data.size=32", "data.batch=4", "data.workers=0", "train.epochs=1", "model.backbone=tiny"]
    words = [f"data.path={tmp_path / 'd'}", *tiny, "--runs", str(tmp_path), "--quiet"]
    assert cli.main(["train", "classifier", *words]) == 0
    trained = str(tmp_path / "classify" / "classifier-1")
    assert cli.main(["eval", trained, "--tiles", "16"]) == 2
    assert "--tiles is for detectors" in capsys.readouterr().err
    assert answer(capsys, "eval", trained, "--tta", "flip")["summary"]["accuracy"] >= 0

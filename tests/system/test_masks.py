"""Masks from the data to the page: trained, judged, drawn and shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.recipes.small import SMALL
from torso.config import DataError, ModelError, RecipeError
from torso.data import digits as pictures
from torso.data import open_index
from torso.data.masks import rasterise
from torso.evaluate import detection
from torso.evaluate.predictions import Predictions
from torso.recipes.recipe import Recipe
from torso.recipes.run import evaluate, export, predict, train


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with masks."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    return pictures.make(folder, format="coco", count=15, size=96, seed=0)


def overrides(path: Path) -> list[str]:
    learning = ["train.epochs=70", "train.evaluate_every=100", "train.precision=fp32", "data.transforms=[]"]
    rate = ["train.optimizer={name: adamw, lr: 0.004, weight_decay: 0.01}", "train.schedule={name: cosine, warmup: 5}"]
    size = [f"data.path={path}", "data.size=64", "data.batch=6", "data.workers=0", "data.val=train"]
    few = ["model.suppress.max_detections=12", "data.max_detections=12"]
    return [*SMALL["mask_rcnn"], *learning, *rate, *size, *few]


@pytest.fixture(scope="module")
def run(masked: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train("mask_rcnn", overrides(masked), runs=tmp_path_factory.mktemp("runs"), quiet=True)


@pytest.mark.part("recipe/mask_rcnn", "metric/coco_ap")
def test_a_run_is_judged_by_its_masks(run: dict[str, Any], masked: Path, tmp_path: Path) -> None:
    folder = Path(run["run"])
    marks = json.loads((folder / "evaluation.json").read_text())
    assert marks["summary"]["mask AP50"] > 0
    assert marks["max_detections"] == 12
    assert {"mask AP", "mask AP50"} <= set(marks["per_class"][0])
    again = evaluate(folder, out=tmp_path)
    assert again["summary"] == marks["summary"]
    rows = json.loads((tmp_path / "predictions.json").read_text())
    index = open_index(masked, "train")
    ids = list(index.image_ids)
    for row in rows[:20]:  # a mask lies in its box, over the original picture
        size = tuple(index.sizes[ids.index(row["image_id"])].tolist())
        pixels = rasterise(row["segmentation"], size)
        x, y, width, height = row["bbox"]
        inside = np.zeros_like(pixels)
        inside[int(y) : int(np.ceil(y + height)), int(x) : int(np.ceil(x + width))] = True
        assert not (pixels & ~inside).any()
    assert sum(bool(rasterise(row["segmentation"], (96, 96)).any()) for row in rows) > len(rows) / 2
    page = (folder / "report.html").read_text()
    assert "mask AP50" in page
    assert "12 detections are judged" in page


def test_masks_are_drawn(run: dict[str, Any], masked: Path, tmp_path: Path) -> None:
    index = open_index(masked, "train")
    said = predict(run["run"], [str(index.file(0))], out=tmp_path, threshold=0.05)
    assert all("segmentation" in row for row in said["predictions"])
    drawn = np.asarray(Image.open(tmp_path / said["drawn"][0])).astype(int)
    before = np.asarray(Image.open(index.file(0)).convert("RGB")).astype(int)
    mask = np.zeros(before.shape[:2], bool)
    for row in said["predictions"]:
        mask |= rasterise(row["segmentation"], (96, 96))
    assert mask.any()
    assert np.abs(drawn - before)[mask].mean() > 20


@pytest.mark.part("deploy/onnx")
def test_the_exported_file_says_the_same_masks(run: dict[str, Any], tmp_path: Path) -> None:
    file = export(run["run"], out=tmp_path / "model.onnx")["file"]
    ours, theirs = evaluate(run["run"])["summary"], evaluate(file)["summary"]
    assert "mask AP" in theirs
    assert theirs == pytest.approx(ours, abs=0.02, nan_ok=True)


def test_what_cannot_learn_masks_is_refused_before_it_begins(digits: Path, masked: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no masks of objects, but this model learns masks"):
        train("mask_rcnn", overrides(digits), runs=tmp_path, quiet=True)
    with pytest.raises(RecipeError, match=r"set data\.masks=true"):
        train("mask_rcnn", [*overrides(masked), "data.masks=false"], runs=tmp_path, quiet=True)
    with pytest.raises(ModelError, match=r"model\.sample=random"):
        Recipe.load("mask_rcnn", ["model.sample=ohem"], without_data=True).model.build(num_classes=3)
    assert not list(tmp_path.rglob("recipe.yaml")), "no run was begun"


def test_without_its_branch_it_is_a_detector_of_boxes(masked: Path) -> None:
    changes = [*SMALL["mask_rcnn"], "model.mask_head=null", f"data.path={masked}"]
    model = Recipe.load("mask_rcnn", [c for c in changes if "mask_head={" not in c]).model.build(num_classes=3)
    assert not model.masks
    index = open_index(masked, "train")
    said = Predictions.of(seen=np.arange(len(index)))
    assert "mask AP" not in detection.evaluate(index, said).summary

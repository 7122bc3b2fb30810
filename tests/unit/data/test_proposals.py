"""Given proposals: read from COCO results, moved with the pictures, looked at by detectors of two stages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.recipes.small import SMALL
from torso.boxes.overlap import pairwise_iou
from torso.config import DataError, RecipeError
from torso.data.proposals import Proposals
from torso.evaluate.predictions import back_to_source, collect
from torso.models import TwoStage
from torso.recipes.judge import evaluate
from torso.recipes.recipe import Recipe
from torso.recipes.run import predict, train
from torso.recipes.sources import judging_loader, open_split, training_loader
from torso.structures import Batch, Targets

pytestmark = pytest.mark.part("recipe/fast_rcnn")


def written(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def index_of(*ids: int | str) -> Any:
    return SimpleNamespace(image_ids=list(ids), root="here")


def row(image: int | str, *box: float, **more: float) -> dict[str, Any]:
    return {"image_id": image, "bbox": list(box), **more}


def test_files_become_rows_of_pictures_best_first(tmp_path: Path) -> None:
    first = written(tmp_path / "a.json", [row("b", 0, 0, 1, 1, score=0.1), row("a", 1, 2, 3, 4, score=0.5)])
    rows = [row("a", 5, 6, 7, 8, score=0.9), row("b", 1, 1, 1, 1, score=0.1), row("else", 0, 0, 9, 9, score=1)]
    found = Proposals.read([first, written(tmp_path / "b.json", rows)], index_of("a", "none", "b"))
    assert found.offsets.tolist() == [0, 2, 2, 4]
    assert found.boxes.tolist() == [[5, 6, 12, 14], [1, 2, 4, 6], [0, 0, 1, 1], [1, 1, 2, 2]]
    assert found.size == 8
    best = Proposals.read([first, tmp_path / "b.json"], index_of("a", "none", "b"), most=1)
    assert best.boxes.tolist() == [[5, 6, 12, 14], [0, 0, 1, 1]]


def batch_of(to_source: list[list[float]], size: tuple[int, int] = (20, 40)) -> Batch:
    images = torch.zeros(1, 3, *size, dtype=torch.uint8)
    matrix = torch.tensor([to_source], dtype=torch.float64)
    return Batch(images, Targets.of_classes(torch.zeros(1).long()), torch.tensor([0]), matrix, torch.tensor([[80, 40]]))


def test_boxes_move_with_the_picture() -> None:
    """Half its size and mirrored, 40 x 20: x' = 40 - x / 2; what lies outside of the canvas is padding."""
    found = Proposals(np.array([[10.0, 4, 30, 20], [70, 30, 90, 50], [-9, -9, -1, -1]]), np.array([0, 3]))
    boxes = found.given_to(batch_of([[-2, 0, 80], [0, 2, 0], [0, 0, 1]])).proposals
    assert boxes.dtype == torch.float32
    assert boxes[0, :2].tolist() == [[25, 2, 35, 10], [0, 15, 5, 20]]
    assert not boxes[0, 2:].any()


def test_the_way_there_is_the_way_back() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(5, 30, (12, 2))
    original = np.concatenate([low, low + rng.uniform(2, 9, (12, 2))], axis=1)
    batch = batch_of([[1.25, 0, -3], [0, 2.5, 1], [0, 0, 1]], (100, 100))
    there = Proposals(original, np.array([0, 12])).given_to(batch).proposals[0, :12].double().numpy()
    back = back_to_source(there, np.repeat(batch.to_source.numpy(), 12, 0), np.full((12, 2), 100))
    np.testing.assert_allclose(back, original, rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no json", "cannot be read as proposals"),
        ('{"boxes": []}', "holds no proposals: expected a list of COCO results"),
        ('[{"image_id": "a"}]', "row 0 is no proposal"),
        ('[{"image_id": "a", "bbox": [1, 2, 3]}]', "row 0 is no proposal"),
        ('[{"image_id": "a", "bbox": [1, 2, 3, NaN]}]', "row 0 is no proposal"),
        ('[{"image_id": "c", "bbox": [1, 2, 3, 4]}]', "no proposal is of a picture of here, whose ids are such as 'a'"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        Proposals.read([path], index_of("a"))


def recipe_of(digits: Path, file: Path, *more: str) -> Recipe:
    data = [f"data.path={digits}", f"data.proposals={file}", "data.size=128", "data.batch=2", "data.workers=0"]
    small = [*SMALL["fast_rcnn"], "model.propose={name: windows, scales: [1.0]}", "model.threshold=0.0"]
    return Recipe.load("fast_rcnn", [*small, *data, *more])


def of_objects(digits: Path, path: Path, shift: float = 1.0) -> Path:
    """Proposals near every object of both splits, and one far from any."""
    rows = []
    for split in ("train", "val"):
        index = open_split(Recipe.load("demo", [f"data.path={digits}"]).data.build(), split)
        for picture, image in enumerate(index.image_ids):
            boxes = index.boxes[index.offsets[picture] : index.offsets[picture + 1]].tolist()
            rows += [row(image, x1 + shift, y1, x2 - x1, y2 - y1, score=0.5) for x1, y1, x2, y2 in boxes]
            rows.append(row(image, 0, 0, 3, 3, score=0.1))
    return written(path, rows)


def test_a_training_batch_has_those_of_its_pictures_mirrored_too(digits: Path, tmp_path: Path) -> None:
    recipe = recipe_of(digits, of_objects(digits, tmp_path / "some.json"), "data.transforms=[horizontal_flip]")
    data = recipe.data.build()
    index = open_split(data, "train")
    for batch in training_loader(data, index, seed=0).epoch(0):
        assert batch.proposals is not None
        for boxes, objects, valid in zip(batch.proposals, batch.targets.boxes, batch.targets.valid, strict=True):
            assert (pairwise_iou(objects[valid], boxes).amax(dim=1) > 0.7).all()


def test_the_model_looks_at_what_is_given_and_at_nothing_else(digits: Path, tmp_path: Path) -> None:
    recipe = recipe_of(digits, of_objects(digits, tmp_path / "some.json"))
    data = recipe.data.build()
    loader = judging_loader(data, open_split(data, "val"))
    model: TwoStage = recipe.model.build(num_classes=10).eval()
    seen: list[torch.Tensor] = []
    model.each[0].register_forward_hook(lambda _, given, __: seen.append(given[1]))
    found = collect(model.predict, loader)
    batches = list(loader.epoch(0))
    assert all(torch.equal(boxes, batch.proposals) for boxes, batch in zip(seen, batches, strict=True))
    assert len(found) > 0
    batch = batches[0]
    nothing = replace(batch, proposals=torch.zeros_like(batch.proposals))
    assert not model.predict(nothing.images, nothing.proposals).valid.any()
    losses = model.train().losses(nothing)
    assert all(loss.isfinite() for loss in losses.values())
    assert set(losses) == {"class", "box"}
    with_proposer = Recipe.load("faster_rcnn", SMALL["faster_rcnn"], without_data=True).model.build(num_classes=10)
    assert set(with_proposer.losses(batch)) == {"class", "box"}, "the proposer is not asked"
    assert "proposal_class" in with_proposer.losses(replace(batch, proposals=None))


def test_a_run_learns_and_is_judged_with_them(digits: Path, tmp_path: Path) -> None:
    file = of_objects(digits, tmp_path / "some.json")
    recipe = recipe_of(digits, file, "train.epochs=1", "train.device=cpu")
    run = Path(train(recipe, runs=tmp_path / "runs", quiet=True)["run"])
    assert evaluate(run)["images"] > 0
    others = of_objects(digits, tmp_path / "others.json", shift=40.0)
    assert evaluate(run)["summary"] == evaluate(run, [f"data.proposals=[{file}]"])["summary"]
    kept = evaluate(run, [f"data.proposals={others}"], out=tmp_path / "out")
    assert kept["images"] > 0
    assert Proposals.read([tmp_path / "out" / "predictions.json"], open_split(recipe.data.build(), "val")).size > 0
    picture = next(Path(digits).rglob("*.jpg"))
    assert predict(run, [str(picture)], out=tmp_path / "seen")["images"] == 1, "there windows stand in"


def test_what_cannot_be_is_refused(digits: Path, tmp_path: Path) -> None:
    file = of_objects(digits, tmp_path / "some.json")
    dense = Recipe.load("demo", [f"data.path={digits}", f"data.proposals={file}", "data.workers=0"])
    with pytest.raises(
        RecipeError, match=r"data\.proposals are looked at by detectors of two stages .* not by a Detec"
    ):
        train(dense, runs=tmp_path / "runs", quiet=True)
    with pytest.raises(DataError, match=r"data\.proposals are of one picture, but Mosaic mixes several"):
        train(recipe_of(digits, file, "data.transforms=[mosaic]"), runs=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()

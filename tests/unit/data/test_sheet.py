"""The contact sheet: what is drawn is what the labels and the batch say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torso.config import DataError
from torso.data import open_index
from torso.data.sheet import GAP, augmented, grid, labelled, shaded, shaded_classes
from torso.recipes.look import TIMES, look
from torso.recipes.recipe import Recipe
from torso.recipes.sources import open_split, training_loader


def test_a_sheet_has_a_picture_for_each_version(digits: Path, tmp_path: Path) -> None:
    found = look(digits, tmp_path / "new" / "sheet.png", recipe="demo", count=3, side=100, overrides=["data.size=96"])
    sheet = np.asarray(Image.open(found["file"]))
    assert sheet.shape[1] == (TIMES + 1) * (100 + GAP) + GAP
    assert sheet.shape[0] > 3 * (100 + GAP)
    assert len(found["pictures"]) == 3
    assert found["skipped"] == []
    again = look(digits, tmp_path / "again.png", recipe="demo", count=3, side=100, overrides=["data.size=96"])
    assert np.array_equal(np.asarray(Image.open(again["file"])), sheet)


def test_without_a_recipe_only_the_labels_are_drawn(digits: Path, tmp_path: Path) -> None:
    found = look(digits, tmp_path / "sheet.png", count=2, side=120, split="val")
    assert found["split"] == "val"
    assert np.asarray(Image.open(found["file"])).shape[1] == 2 * (120 + GAP) + GAP


def test_a_picture_that_cannot_be_read_is_named(digits: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(digits, copy)
    index = open_index(copy)
    damaged = index.file(0)
    damaged.write_bytes(damaged.read_bytes()[:600])
    found = look(copy, tmp_path / "sheet.png", count=len(index), side=60)
    assert [path for path, _ in found["skipped"]] == [index.paths[0]]
    assert len(found["pictures"]) == len(index) - 1


def test_nothing_readable_is_one_sentence(digits: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(digits, copy)
    index = open_index(copy)
    for row in range(len(index)):
        index.file(row).write_bytes(index.file(row).read_bytes()[:600])
    with pytest.raises(DataError, match="none of the pictures tried can be read"):
        look(copy, tmp_path / "sheet.png")


def test_boxes_are_drawn_where_they_are(digits: Path) -> None:
    index = open_index(digits)
    width, height = index.sizes[0].tolist()
    drawn = labelled(index, 0, max(width, height))
    plain = np.asarray(Image.open(index.file(0)).convert("RGB")).astype(int)
    changed = np.abs(drawn[:height].astype(int) - plain).sum(-1) > 60
    x0, y0, _, y1 = index.boxes[index.objects(0)][0].round().astype(int)
    assert changed[y0 + 2 : y1 - 2, x0].mean() > 0.9  # the left line of the box


def test_what_is_learned_from_is_what_is_drawn(digits: Path) -> None:
    data = Recipe.load("demo", [f"data.path={digits}", "data.size=128", "data.workers=0"]).data.build()
    index = open_split(data, "train")
    batch = next(training_loader(data, index, 0).epoch(0))
    drawn = augmented(batch, 0, index.classes, 128)
    plain = batch.images[0].permute(1, 2, 0).numpy().astype(int)
    x0, y0, _, y1 = batch.targets.boxes[0][batch.targets.valid[0]][0].round().int().tolist()
    changed = (np.abs(drawn.astype(int) - plain).sum(-1) > 30)[y0 + 2 : y1 - 2, max(x0 - 1, 0) : x0 + 2]
    assert changed.any(axis=1).mean() > 0.9


def test_masks_and_classes_tint_only_their_pixels() -> None:
    pixels = np.full((20, 30, 3), 100, np.uint8)
    mask = np.zeros((20, 30), bool)
    mask[5:10, 6:12] = True
    changed = (shaded(pixels, [mask], np.array([0])) != pixels).any(-1)
    assert np.array_equal(changed, mask)
    classes = np.zeros((20, 30), np.uint8)
    classes[:4] = 3
    classes[-2:] = 255
    assert np.array_equal((shaded_classes(pixels, classes, ["background", "a"]) != pixels).any(-1), classes > 0)
    assert (shaded_classes(pixels, classes, ["a", "b"]) != pixels).any(-1).all()


def test_a_grid_keeps_every_cell() -> None:
    cells = [np.full((10 + i, 20, 3), i, np.uint8) for i in range(5)]
    sheet = grid(cells, 2)
    assert [int((sheet == i).all(-1).sum()) for i in range(5)] == [(10 + i) * 20 for i in range(5)]

"""One class of all objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from torso.config import DataError
from torso.data import digits as makes
from torso.recipes.recipe import Recipe
from torso.recipes.sources import open_split, training_loader


def section(path: Path, *overrides: str) -> dict:
    return Recipe.load("demo", [f"data.path={path}", "data.workers=0", "data.size=64", *overrides]).data.build()


@pytest.mark.part("recipe/rpn")
def test_all_objects_are_of_one_class(digits: Path) -> None:
    plain, data = section(digits), section(digits, "data.agnostic=true", "data.batch=4")
    before, index = open_split(plain, "train"), open_split(data, "train")
    assert len(before.classes) > 1
    assert index.classes == ("object",)
    assert index.class_ids == (1,)
    assert np.array_equal(index.boxes, before.boxes)
    assert not index.labels.any()
    assert index.fingerprint != before.fingerprint
    assert index.report()["classes"] == {"object": len(before.labels)}
    batch = next(training_loader(data, index, 0).epoch(0))
    assert batch.targets.valid.any()
    assert not batch.targets.labels.any()


@pytest.mark.part("recipe/rpn")
def test_the_split_to_judge_with_has_the_same_class(digits: Path) -> None:
    data = section(digits, "data.agnostic=true")
    index = open_split(data, data["train"])
    assert open_split(data, data["val"], index.classes).classes == index.classes


def test_classes_of_pictures_are_not_thrown_away(tmp_path: Path) -> None:
    folder = makes.make(tmp_path / "digits", format="folder", count=10, size=32)
    with pytest.raises(DataError, match="data to classify"):
        open_split(section(folder, "data.agnostic=true"), "train")

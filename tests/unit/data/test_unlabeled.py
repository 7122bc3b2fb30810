"""Pictures without labels: any folder, COCO's lists of pictures, and never in place of labels that are there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.pictures import noise, save, small_index
from torso import testing
from torso.config import DataError
from torso.data import open_index
from torso.data.formats import FORMATS
from torso.data.formats.opening import recognise
from torso.data.formats.unlabeled import Unlabeled
from torso.data.loader import Loader


@pytest.mark.part("format/unlabeled")
def test_a_folder_of_any_depth_is_read_without_its_litter(tmp_path: Path) -> None:
    for name in ("a.png", "x/b.PNG", "x/y/z/c.png", ".hidden/d.png", "x/.cache/e.png", "x/._b.png"):
        save(noise(8, 6), tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "x" / "page.jpg").write_text("<html>")
    index = open_index(tmp_path, "all", format="unlabeled")
    testing.check_dataset(index)
    assert (index.task, index.classes) == ("unlabeled", ())
    assert index.paths == ["a.png", "x/b.PNG", "x/y/z/c.png"]
    (problem,) = index.problems
    assert (problem.kind, problem.path) == ("damaged image", "x/page.jpg")
    assert index.report()["images"] == 3
    with pytest.raises(DataError, match="no split 'val'; it has all"):
        open_index(tmp_path, "val", format="unlabeled")


@pytest.mark.part("format/unlabeled")
def test_real_and_odd_pictures_are_read_and_the_damaged_ones_named(shared_data: Path) -> None:
    index = open_index(shared_data / "robustness" / "images", "all", format="unlabeled")
    named = {Path(problem.path).name for problem in index.problems if problem.kind == "damaged image"}
    assert {"empty.jpg", "text.jpg", "header_only.jpg", "zeros.png", "lfs_pointer.jpg", "bomb.png"} == named
    assert "._rgb.jpg" not in {Path(path).name for path in index.paths}
    assert len(index) > 40


@pytest.mark.part("format/unlabeled")
def test_cocos_list_of_pictures_is_read(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "format_fixtures" / "coco_dataset" / "coco_image_info"
    for split, path in (("train", "images/train/a.jpg"), ("val", "images/val/b.jpg")):
        index = open_index(folder, split, format="unlabeled")
        assert index.paths == [path]
    assert open_index(folder, "train", format="unlabeled").image_ids == [5]
    save(noise(8, 6), tmp_path / "unlabeled2017" / "000000000008.jpg")
    save(noise(8, 6), tmp_path / "unlabeled2017" / "000000000042.jpg")
    images = [{"id": 42, "file_name": "000000000042.jpg"}, {"id": 42, "file_name": "000000000008.jpg"}, {"id": 1}]
    images += [{"id": 7, "file_name": "../../x.jpg"}, {"id": 9, "file_name": "\0"}, 3]
    file = tmp_path / "annotations" / "image_info_unlabeled2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"images": images}))
    assert recognise(tmp_path) == "unlabeled"
    assert Unlabeled.splits(tmp_path) == ["unlabeled"]
    index = open_index(tmp_path, "unlabeled")
    assert (index.image_ids, index.paths) == ([42], ["unlabeled2017/000000000042.jpg"])
    assert [problem.kind for problem in index.problems] == ["duplicate image id", *["malformed row"] * 4]
    for text, says in (("[", "is not JSON"), ("[" * 200_000, "is not JSON"), ("[]", "images: expected a list")):
        file.write_text(text)
        with pytest.raises(DataError, match=says):
            open_index(tmp_path, "unlabeled")


@pytest.mark.parametrize("name", ["voc", "yolo", "coco", "csv", "folder"])
def test_labels_of_any_kind_come_first(name: str, tmp_path: Path) -> None:
    index = small_index(tmp_path / "source")
    if name == "folder":
        from dataclasses import replace

        index = replace(index, task="classify", image_labels=np.arange(10) % 3)
    FORMATS[name].write(index, tmp_path / "out", "train")
    save(noise(8, 6), tmp_path / "out" / "cover.png")
    assert recognise(tmp_path / "out") == name
    assert list(FORMATS)[-1] == "unlabeled"


@pytest.mark.part("format/unlabeled")
def test_what_is_written_is_the_pictures_and_they_are_loaded(tmp_path: Path) -> None:
    index = small_index(tmp_path / "source")
    Unlabeled.write(index, tmp_path / "out", "train")
    assert recognise(tmp_path / "out") == "unlabeled"
    again = open_index(tmp_path / "out")
    assert [again.file(row).read_bytes() for row in range(10)] == [index.file(row).read_bytes() for row in range(10)]
    batch = next(iter(Loader(again, size=(48, 32), batch=10).epoch(0)))
    assert batch.images.shape == (10, 3, 32, 48)
    assert not batch.targets.valid.any()

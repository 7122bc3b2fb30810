"""How a YOLO data set says where its pictures are: yaml, Darknet, plain folders; nothing is run, nothing guessed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.pictures import noise, save
from torso.config import DataError
from torso.data import open_index
from torso.data.formats.opening import recognise
from torso.data.formats.yolo import Yolo


def made(folder: Path, yaml: str) -> Path:
    for name in ("train/a", "train/b", "val/c"):
        save(noise(40, 30), folder / "images" / f"{name}.png")
        labels = folder / "labels" / f"{name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("0 .5 .5 .25 .5\n")
    (folder / "data.yaml").write_text(yaml, encoding="utf-8")
    return folder


@pytest.mark.part("format/yolo")
def test_paths_are_relative_to_the_yaml_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "set", "path: images\ntrain: train\nval: val\nnames: [cat]\n")
    (tmp_path / "train").mkdir()  # a folder of the same name beside must not win
    found = []
    for place in ("/", tmp_path, folder / "labels"):
        monkeypatch.chdir(place)
        found.append(open_index(folder))
    assert {index.fingerprint for index in found} == {found[0].fingerprint}
    assert found[0].paths == ["images/train/a.png", "images/train/b.png"]


def test_an_error_names_the_place_tried_and_the_nearest_that_exists(tmp_path: Path) -> None:
    folder = made(tmp_path, "path: pictures\ntrain: images/train\nnames: [cat]\n")
    with pytest.raises(DataError) as caught:
        open_index(folder)
    assert f"no such folder or list: {folder}/pictures/images/train" in str(caught.value)
    assert f"(the nearest that exists is {folder})" in str(caught.value)
    assert "'images/train' exists, is it meant?" in str(caught.value)


def test_a_list_of_folders_and_lists_is_read_once_each(tmp_path: Path) -> None:
    folder = made(tmp_path, "train: [images/val, more.txt, images/train]\nnames: {0: cat}\nnc: 1\n")
    (folder / "more.txt").write_text("images/train/b.png\r\n./images/val/c.png\n\n")
    assert open_index(folder).paths == ["images/val/c.png", "images/train/b.png", "images/train/a.png"]


def test_what_leaves_the_folder_is_read_only_when_allowed(tmp_path: Path) -> None:
    folder = made(tmp_path / "set", "train: ../other\nval: list.txt\nnames: [cat]\n")
    save(noise(8, 8), tmp_path / "other" / "x.png")
    (tmp_path / "other" / "x.txt").write_text("0 .5 .5 .5 .5\n")
    (folder / "list.txt").write_text("../other/x.png\n")
    (folder / "images" / "link").symlink_to(tmp_path / "other")
    for split, says in (("train", "'../other' leaves"), ("val", "'../other/x.png' leaves")):
        with pytest.raises(DataError, match=re.escape(says)):
            open_index(folder, split)
        assert len(open_index(folder, split, options={"allow_outside": True}).boxes) == 1
    (folder / "data.yaml").write_text("train: images/link\nnames: [cat]\n")
    with pytest.raises(DataError, match="'images/link' leaves the data set's folder"):
        open_index(folder)
    (folder / "data.yaml").write_text("train: ../../../../../../../../etc\nnames: [cat]\n")
    with pytest.raises(DataError, match="leaves the data set's folder"):
        open_index(folder)


def test_nothing_in_the_yaml_is_fetched_or_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    script = f"download: |\n  import os\n  os.system('touch {marker}')\n"
    folder = made(tmp_path / "set", f"train: images/train\nnames: [cat]\n{script}")
    (problem,) = open_index(folder).problems
    assert (problem.kind, problem.fatal) == ("ignored", False)
    assert "torso never downloads or runs anything" in problem.message
    for tag in ("!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system"):
        (folder / "data.yaml").write_text(f"train: images/train\nnames: [cat]\nnc: {tag} ['touch {marker}']\n")
        with pytest.raises(DataError, match=r"data\.yaml:3: tags .* are not read"):
            open_index(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("names: [cat, dog, cat]", "names: 'cat' is there twice"),
        ("names: []", "names: expected a list"),
        ("names: {0: [cat]}", "names: expected a list"),
        ("names: {0: cat, 0: dog}", r"data\.yaml:1: the key '0' is there already"),
        ("names: {-1: cat}", "names: expected a list, or numbers from 0"),
        ("names: &x [cat]", "anchors and aliases are not read"),
        ("? [a]\n: b\nnames: [cat]", r"data\.yaml:1: a key must be a word"),
        ("names: [cat]\nkpt_shape: [17, 4]", r"kpt_shape: expected \[number of keypoints, 2 or 3\]"),
        ("names: " + "[" * 30 + "]" * 30, "is nested more than 20 deep"),
        ("names: [cat]\n# " + "x" * (1 << 20), "is larger than"),
        ("just text", "expected keys train, val and names"),
        ("", "expected keys train, val and names"),
        ("train: \x07", "is not YAML"),
    ],
)
def test_a_yaml_without_sense_is_one_sentence(yaml: str, says: str, tmp_path: Path) -> None:
    folder = made(tmp_path, yaml)
    with pytest.raises(DataError, match=says):
        open_index(folder)


def test_one_million_aliases_are_not_followed(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi"))  # noqa: B905
    with pytest.raises(DataError, match="anchors and aliases are not read"):
        open_index(made(tmp_path, bomb + "names: *i\n"))


@pytest.mark.part("format/yolo")
@pytest.mark.parametrize(
    ("name", "split"), [("strict", "train"), ("labels", "train"), ("labels", "val"), ("annotations", "all")]
)
def test_layouts_without_a_yaml_are_read(name: str, split: str, shared_data: Path) -> None:
    folder = shared_data / "format_fixtures" / "yolo_dataset" / name
    assert recognise(folder) == "yolo"
    assert split in Yolo.splits(folder)
    index = open_index(folder, split)
    assert index.classes == tuple(f"label_{number}" for number in range(10))
    assert index.labels.tolist() == [2, 4]
    width, height = index.sizes[0].tolist()
    fractions = np.array([[0.0, 0.2, 4 / 15, 0.4], [0.2, 0.3, 1 / 3, 0.6]])
    assert np.abs(index.boxes / [width, height, width, height] - fractions).max() < 2e-6
    assert not index.problems


def test_a_heap_without_splits_is_split_by_name(tmp_path: Path) -> None:
    for number in range(10):
        save(noise(8, 8), tmp_path / "images" / f"{number}.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "3.txt").write_text("1 .5 .5 .5 .5\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert Yolo.splits(tmp_path) == ["train", "val", "all"]
    parts = [open_index(tmp_path, split).paths for split in ("train", "val")]
    assert [len(part) for part in parts] == [8, 2]
    assert sorted(parts[0] + parts[1]) == open_index(tmp_path, "all").paths


@pytest.mark.parametrize("name", ["project.v1.yolov5", "set.data", "a.yaml"])
def test_a_folder_may_be_called_like_a_file(name: str, tmp_path: Path) -> None:
    folder = made(tmp_path / name, "")
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("cat\n")
    index = open_index(folder, "val")
    assert (index.root, index.paths, len(index.labels)) == (folder, ["images/val/c.png"], 1)


def test_roboflow_paths_that_leave_are_named_with_what_is_meant(shared_data: Path) -> None:
    with pytest.raises(DataError, match=r"'\.\./train/images' leaves the data set's folder; 'train/images' exists"):
        open_index(shared_data / "format_fixtures" / "roboflow_dataset" / "yolo")

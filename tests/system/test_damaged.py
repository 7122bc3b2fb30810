"""Odd, damaged and extreme files: what their manifest expects is what happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torso.config import DataError
from torso.data import Index, open_index
from torso.data.decode import DecodeError, decode, probe
from torso.data.loader import Loader


@pytest.fixture(scope="module")
def robust(shared_data: Path) -> Path:
    return shared_data / "robustness"


@pytest.fixture(scope="module")
def manifest(robust: Path) -> dict[str, list[dict[str, Any]]]:
    loaded: dict[str, list[dict[str, Any]]] = json.loads((robust / "manifest.json").read_text(encoding="utf-8"))
    return loaded


def kinds(index: Index, name: str) -> list[str]:
    """The kinds of problems of one file."""
    return [problem.kind for problem in index.problems if problem.path.endswith(name)]


def boxes_of(index: Index, stem: str) -> list[list[float]]:
    row = next(row for row, path in enumerate(index.paths) if Path(path).stem == stem)
    found: list[list[float]] = index.boxes[index.objects(row)].tolist()
    return found


@pytest.mark.part("transform/decode")
def test_every_picture_does_as_its_manifest_says(robust: Path, manifest: dict[str, list[dict[str, Any]]]) -> None:
    assert len(manifest["images"]) == 61
    for entry in manifest["images"]:
        path = robust / entry["file"]
        if entry["should_load"] is False:
            with pytest.raises(DecodeError) as caught:
                decode(path)
            assert path.name in str(caught.value), entry["file"]
            continue
        pixels = decode(path)
        assert pixels.dtype == np.uint8
        size = tuple(entry.get("upright_size") or entry.get("size") or (pixels.shape[1], pixels.shape[0]))
        assert (pixels.shape[1], pixels.shape[0]) == probe(path).size == size, entry["file"]
        for corner, colour in entry.get("upright_corner_rgb", {}).items():
            seen = pixels[5 if "top" in corner else -6, 5 if "left" in corner else -6]
            assert np.abs(seen.astype(int) - colour).max() <= 12, (entry["file"], corner)
        if "twin" in entry:
            twin = decode(robust / entry["twin"]).astype(int)
            assert np.abs(pixels - twin).mean() < 4, entry["file"]
        if "frames" in entry:
            assert probe(path).frames == entry["frames"], entry["file"]


@pytest.fixture(scope="module")
def voc(robust: Path) -> Index:
    return open_index(robust / "annotations" / "voc", "all", classes=("café noir", "cat", "dog"))


@pytest.mark.part("format/voc")
def test_voc_as_its_manifest_says(voc: Index) -> None:
    assert boxes_of(voc, "000") == [[9, 9, 30, 40], [0, 0, 80, 60]]
    assert boxes_of(voc, "001") == []
    assert boxes_of(voc, "002") == [[9.5, 9.25, 30.75, 40]]
    assert (boxes_of(voc, "003"), kinds(voc, "003.xml")) == ([[4, 4, 20, 20]], ["degenerate box"])
    assert (boxes_of(voc, "004"), kinds(voc, "004.xml")) == ([[0, 0, 80, 60]], ["box clipped"])
    assert (boxes_of(voc, "005"), kinds(voc, "005.xml")) == ([], ["degenerate box"])
    for stem in ("006", "007"):
        assert (boxes_of(voc, stem), kinds(voc, f"{stem}.xml")) == ([[9, 9, 30, 40]], [])
    row = next(row for row, path in enumerate(voc.paths) if path.endswith("008.jpg"))
    assert [voc.classes[label] for label in voc.labels[voc.objects(row)]] == ["café noir"]
    row = next(row for row, path in enumerate(voc.paths) if path.endswith("009.jpg"))
    assert voc.difficult[voc.objects(row)].tolist() == [True, False]
    assert voc.truncated[voc.objects(row)].tolist() == [True, False]
    assert kinds(voc, "010.xml") == ["malformed file"]
    assert (boxes_of(voc, "011"), kinds(voc, "011.xml")) == ([[4, 4, 20, 20]], ["unknown class"])
    with pytest.raises(DataError, match=r"2 errors(.|\n)*010\.xml:1: is not XML(.|\n)*011\.xml:1: class 'unicorn'"):
        voc.raise_if_fatal()


@pytest.mark.part("format/coco")
def test_coco_as_its_manifest_says(robust: Path) -> None:
    index = open_index(robust / "annotations" / "coco.json", "all")
    assert (index.classes, index.class_ids) == (("cat", "bird", "dog"), (1, 17, 90))
    assert index.image_ids == [7, 3, 1_000_000_000_000]
    assert boxes_of(index, "000") == [[10, 10, 30, 40], [30, 20, 60, 40]]
    assert boxes_of(index, "001") == []
    assert boxes_of(index, "002") == [[70, 50, 80, 60]]
    assert [index.class_ids[label] for label in index.labels] == [90, 1, 90]
    assert index.crowd.tolist() == [False, True, False]
    assert index.masks is not None
    assert [type(mask) for mask in index.masks] == [list, dict, type(None)]
    found = sorted((problem.kind, problem.message.partition(":")[0]) for problem in index.problems)
    assert found == [
        ("annotation without image", "annotations[4].image_id"),
        ("box mostly outside", "annotations[3]"),
        ("class out of range", "annotations[5].category_id"),
        ("degenerate box", "annotations[2]"),
        ("duplicate annotation id", "annotations[6].id"),
        ("malformed mask", "annotations[3].segmentation"),
        ("missing image", "no such file"),
    ]
    with pytest.raises(DataError, match=r"coco\.json: annotations\[5\]\.category_id: 2 is not one of 1, 17, 90"):
        index.raise_if_fatal()


@pytest.mark.part("format/yolo")
def test_yolo_as_its_manifest_says(robust: Path) -> None:
    index = open_index(robust / "annotations" / "yolo")
    near = {
        "000": [[30, 15, 50, 45], [16, 12, 24, 18]],
        "001": [],
        "002": [],
        "003": [[30, 15, 50, 45], [16, 12, 24, 18]],
        "004": [],
        "005": [[64, 15, 80, 45]],
        "006": [[8, 6, 72, 54]],
        "007": [],
        "008": [],
        "009": [[30, 15, 50, 45]],
        "010": [],
    }
    for stem, expected in near.items():
        boxes = boxes_of(index, stem)
        assert len(boxes) == len(expected), stem
        assert np.allclose(boxes, expected) or not expected, stem
    assert {problem.path.rpartition("/")[2]: problem.kind for problem in index.problems if problem.line} == {
        "004.txt": "class out of range",
        "005.txt": "box clipped",
        "007.txt": "malformed row",
        "008.txt": "malformed row",
        "009.txt": "duplicate row",
        "010.txt": "not a number",
    }
    assert kinds(index, "005.txt") == ["box outside", "box clipped"]
    fatal = [f"{problem.path}:{problem.line}" for problem in index.problems if problem.fatal]
    assert fatal == [f"labels/{stem}.txt:1" for stem in ("004", "007", "008", "010")]


def test_a_folder_of_litter_and_damage_can_be_trained_on(robust: Path, tmp_path: Path) -> None:
    """Damaged pictures among good ones: named, counted, replaced; the folders are left as they are."""
    place = tmp_path / "train" / "all"
    place.mkdir(parents=True)
    for entry in ("images", "images/names", "images/bad", "images/size"):
        for path in (robust / entry).iterdir():
            (place / path.name).symlink_to(path)
    index = open_index(tmp_path)
    at_once = {Path(problem.path).name for problem in index.problems if problem.kind == "damaged image"}
    assert at_once == {"empty.jpg", "text.jpg", "header_only.jpg", "zeros.png", "lfs_pointer.jpg", "bomb.png"}
    loader = Loader(index, size=(32, 32), batch=4, shuffle=True, max_bad=0.2)
    seen = sum(len(batch) for batch in loader.epoch(0))
    assert seen == len(index)
    later = {Path(path).name for path, _ in loader.skipped}
    assert later == {"truncated_half.jpg", "truncated_tail.jpg", "truncated.png", "bad_crc.png"}
    assert not {"._rgb.jpg", "folder.jpg", "notes.txt", "Thumbs.db"} & {Path(path).name for path in index.paths}

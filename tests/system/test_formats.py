"""The formats on real data: the same boxes whichever form they were read from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from torso.config import DataError
from torso.data import Index, open_index
from torso.data.formats import FORMATS
from torso.data.formats.opening import recognise


def by_picture(index: Index) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """Class name and box of every object, by the stem of its picture, sorted."""
    found = {}
    for row in range(len(index)):
        at = index.objects(row)
        rows = zip(index.labels[at], index.boxes[at], strict=True)
        named = [(index.classes[label], tuple(box.tolist())) for label, box in rows]
        # By rounded corners: forms with six decimals must not change the order.
        found[Path(index.paths[row]).stem] = sorted(named, key=lambda row: (row[0], *map(round, row[1])))
    return found


def agree(one: Index, two: Index, within: float) -> None:
    first, second = by_picture(one), by_picture(two)
    assert first.keys() == second.keys()
    for stem, rows in first.items():
        assert [name for name, _ in rows] == [name for name, _ in second[stem]], stem
        boxes = np.array([box for _, box in rows]).reshape(-1, 4)
        others = np.array([box for _, box in second[stem]]).reshape(-1, 4)
        assert len(boxes) == 0 or np.abs(boxes - others).max() <= within, stem


@pytest.mark.part("format/voc")
@pytest.mark.part("format/coco")
@pytest.mark.parametrize(("split", "images", "boxes"), [("train", 205, 2804), ("val", 87, 1137), ("test", 72, 945)])
def test_blood_cells_are_the_same_in_voc_and_coco(shared_data: Path, split: str, images: int, boxes: int) -> None:
    folder = shared_data / "bccd"
    assert recognise(folder) == "voc"
    voc, coco = open_index(folder, split), open_index(folder, split, format="coco")
    assert (len(voc), len(voc.boxes)) == (len(coco), len(coco.boxes)) == (images, boxes)
    assert voc.classes == ("Platelets", "RBC", "WBC")
    assert (coco.classes, coco.class_ids) == (("RBC", "WBC", "Platelets"), (1, 2, 3))
    agree(voc, coco, 1e-9)
    # With the classes of the other form the labels are equal too.
    assert np.array_equal(open_index(folder, split, format="coco", classes=voc.classes).labels, voc.labels)
    assert open_index(folder, split, format="coco", classes=voc.classes).class_ids == (3, 1, 2)


@pytest.mark.part("format/yolo")
def test_blood_cells_are_the_same_in_yolo(shared_data: Path) -> None:
    for split, count in (("train", 60), ("val", 20)):
        yolo = open_index(shared_data / "bccd_yolo", split)
        whole = open_index(shared_data / "bccd", split, format="coco")
        rows = {Path(path).stem: row for row, path in enumerate(whole.paths)}
        part = whole.select([rows[Path(path).stem] for path in yolo.paths])
        assert len(part) == count
        agree(yolo, part, 0.01)
        assert np.array_equal(yolo.labels[:5], part.labels[:5])


def test_the_two_points_called_boxes_are_named(shared_data: Path) -> None:
    problems = [problem for split in ("train", "val") for problem in open_index(shared_data / "bccd", split).problems]
    assert [(problem.kind, problem.path, problem.line) for problem in problems] == [
        ("degenerate box", "Annotations/BloodImage_00343.xml", 50),
        ("degenerate box", "Annotations/BloodImage_00338.xml", 158),
    ]
    assert not any(problem.fatal for problem in problems)


@pytest.mark.part("format/voc")
@pytest.mark.part("format/coco")
@pytest.mark.part("format/yolo")
@pytest.mark.parametrize("name", ["voc", "coco", "yolo"])
def test_blood_cells_survive_being_written(shared_data: Path, tmp_path: Path, name: str) -> None:
    index = open_index(shared_data / "bccd", "train").select(range(0, 205, 12))
    FORMATS[name].write(index, tmp_path / name, "train")
    again = open_index(tmp_path / name, "train", classes=index.classes)
    assert not again.problems
    agree(again, index, 1e-6)
    assert np.array_equal(again.truncated, index.truncated) or name != "voc"


def test_raccoons_lie_flat(shared_data: Path) -> None:
    train, test = (open_index(shared_data / "raccoon", split) for split in ("train", "test"))
    assert (len(train), len(test), len(train.boxes) + len(test.boxes)) == (131, 35, 179)
    with pytest.raises(DataError, match="no split 'val'; it has test, train"):
        open_index(shared_data / "raccoon", "val")


def test_nuclei_keep_their_ids_and_masks(shared_data: Path) -> None:
    index = open_index(shared_data / "dsb2018", "val")
    assert (len(index), len(index.boxes)) == (44, 1974)
    assert index.class_ids == (1, 3, 7)
    assert np.bincount(index.labels).tolist() == [1351, 504, 119]
    assert index.masks is not None
    assert not index.problems
    for at in range(0, 1974, 97):
        row = int(np.searchsorted(index.offsets, at, side="right")) - 1
        width, height = index.sizes[row].tolist()
        area = coco_mask.area(coco_mask.merge(_encoded(index.masks[at], height, width)))
        assert area == index.area[at]


def _encoded(mask: object, height: int, width: int) -> list[object]:
    runs = coco_mask.frPyObjects(mask, height, width)
    return runs if isinstance(runs, list) else [runs]


@pytest.mark.part("format/folder")
def test_rubbish_is_sorted_into_folders(shared_data: Path, tmp_path: Path) -> None:
    train, val = (open_index(shared_data / "trashnet", split) for split in ("train", "val"))
    assert train.task == "classify"
    assert train.classes == val.classes == ("cardboard", "glass", "metal", "paper", "plastic", "trash")
    assert train.image_labels is not None
    assert np.bincount(train.image_labels).tolist() == [64] * 6
    FORMATS["folder"].write(val, tmp_path / "copy", "train")
    again = open_index(tmp_path / "copy")
    assert again.image_labels is not None
    assert len(again) == 120
    assert again.image_labels.tolist() == val.image_labels.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("folder", "split", "name", "images"),
    [
        ("coco_dataset/coco", "train", "coco", 1),
        ("coco_dataset/coco_instances", "val", "coco", 1),
        ("coco_dataset/mmdet_coco", "train", "coco", 1),
        ("coco_dataset/coco_roboflow", "val", "coco", 1),
        ("voc_dataset/voc_dataset1", "train", "voc", 1),
        ("imagenet_dataset", "all", "folder", 3),
        ("imagenet_subsets_dataset", "train", "folder", 3),
    ],
)
def test_layouts_of_other_tools(shared_data: Path, folder: str, split: str, name: str, images: int) -> None:
    path = shared_data / "format_fixtures" / folder
    assert recognise(path) == name
    index = open_index(path, split)
    assert len(index) == images
    index.raise_if_fatal()


def test_a_json_alone_is_enough(shared_data: Path) -> None:
    file = shared_data / "bccd" / "coco" / "instances_val.json"
    index = open_index(file, "val")
    assert len(index) == len(json.loads(file.read_text())["images"])


def test_reading_changes_no_file(shared_data: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        files = (path for name in ("bccd_yolo", "robustness") for path in (shared_data / name).rglob("*"))
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    before = state()
    open_index(shared_data / "bccd_yolo")
    open_index(shared_data / "robustness" / "annotations" / "voc", "all")
    assert state() == before

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes

from tests.unit.data.pictures import noise, save, small_index
from torso.config import DataError
from torso.data import Index, open_index
from torso.data.formats import FORMATS
from torso.data.formats.mask_legends import CAMVID, CITYSCAPES
from torso.data.formats.opening import recognise
from torso.data.palette import write_numbers

MASKS = FORMATS["mask_folder"]


def labels(index: Index, row: int) -> np.ndarray:
    found = index.segment(row)
    assert found is not None
    return found


def pair(picture: Path, mask: Path, numbers: np.ndarray) -> None:
    height, width = numbers.shape
    save(noise(width, height), picture)
    mask.parent.mkdir(parents=True, exist_ok=True)
    write_numbers(numbers, mask)


def folders(root: Path, names: str = "sky\nsea\n") -> Path:
    for split, stem in (("train", "a"), ("train", "b"), ("val", "c")):
        numbers = np.array([[0, 1, 255], [1, 1, 0]]) if stem != "b" else np.ones((2, 3))
        pair(root / "images" / split / f"{stem}.jpg", root / "masks" / split / f"{stem}.png", numbers)
    (root / "classes.txt").write_text(names)
    return root


@pytest.mark.part("format/mask_folder")
def test_folders_of_equal_names_are_pairs(tmp_path: Path) -> None:
    assert recognise(folders(tmp_path)) == "mask_folder"
    assert MASKS.splits(tmp_path) == ["train", "val"]
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [a]\n")
    assert recognise(tmp_path) == "yolo"  # whoever describes boxes as well means them
    (tmp_path / "data.yaml").unlink()
    index = open_index(tmp_path)
    assert (index.task, index.classes) == ("segment", ("sky", "sea"))
    assert index.paths == ["images/train/a.jpg", "images/train/b.jpg"]
    assert index.segments == ["masks/train/a.png", "masks/train/b.png"]
    assert labels(index, 0).tolist() == [[0, 1, 255], [1, 1, 0]]
    assert not index.problems
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        open_index(tmp_path, "test")


@pytest.mark.part("format/mask_folder")
def test_what_is_written_is_read(tmp_path: Path) -> None:
    index = open_index(folders(tmp_path / "source"))
    MASKS.write(index, tmp_path / "out", "train")
    MASKS.write(open_index(tmp_path / "source", "val"), tmp_path / "out", "val")
    again = open_index(tmp_path / "out")
    assert recognise(tmp_path / "out") == "mask_folder"
    assert (again.classes, again.paths) == (index.classes, index.paths)
    for row in range(len(index)):
        assert np.array_equal(labels(again, row), labels(index, row))
        assert again.file(row).read_bytes() == index.file(row).read_bytes()
    with Image.open(tmp_path / "out" / "masks" / "val" / "c.png") as image:
        assert image.mode == "P"
    with pytest.raises(DataError, match="convert objects to voc or coco"):
        MASKS.write(small_index(tmp_path / "boxes"), tmp_path / "other", "train")
    with pytest.raises(DataError, match="never writes there"):
        MASKS.write(again, tmp_path / "out", "train")


@pytest.mark.part("format/mask_folder")
def test_nuclei_are_read_as_pillow_reads_them(shared_data: Path) -> None:
    root = shared_data / "dsb2018"
    counts = {}
    for split in ("train", "val"):
        index = open_index(root, split, format="mask_folder")
        assert not index.problems
        counts[split] = len(index)
        for row in range(0, len(index), 7):
            file = root / "semantic" / split / f"{Path(index.paths[row]).stem}.png"
            with Image.open(file) as image:
                assert image.mode == "P"
                assert np.array_equal(labels(index, row), np.asarray(image))
    assert counts == {"train": 121, "val": 44}
    assert index.classes == ("background", "nucleus_fluorescence", "nucleus_stained", "nucleus_brightfield")


@pytest.mark.part("format/mask_folder")
def test_camvid_is_read_by_its_colours(shared_data: Path) -> None:
    root = shared_data / "format_fixtures" / "camvid_dataset"
    assert (len(CAMVID), len({*CAMVID.values()})) == (32, 32)
    assert [len(open_index(root, split, format="mask_folder")) for split in ("train", "val", "test")] == [1, 1, 2]
    for split in ("train", "val", "test"):
        index = open_index(root, split, format="mask_folder")
        assert len(index.classes) == 31
        assert not index.problems
        for row in range(len(index)):
            with Image.open(root / f"{split}annot" / Path(index.paths[row]).name) as image:
                colors = np.asarray(image.convert("RGB"))
            named = [CAMVID[index.classes[label]] for label in labels(index, row).ravel()]
            assert np.array_equal(named, colors.reshape(-1, 3))


@pytest.mark.part("format/mask_folder")
@pytest.mark.parametrize(("name", "count"), [("dataset", 6), ("non_standard_dataset", 8)])
def test_a_json_may_name_colours(shared_data: Path, name: str, count: int) -> None:
    index = open_index(shared_data / "format_fixtures" / "common_semantic_segmentation_dataset" / name, "all")
    assert index.classes[:2] == ("Void", "Animal")
    assert (len(index), len(index.classes)) == (2, count)
    assert not index.problems
    assert sorted(np.unique(labels(index, 0)).tolist()) == [3, 5]


def test_cityscapes_is_known_by_its_names(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "format_fixtures" / "cityscapes_dataset" / "train_dataset"
    index = open_index(root, "train", format="mask_folder")
    assert index.classes == CITYSCAPES
    (problem,) = index.problems  # the fixture counts one class more
    assert (problem.kind, problem.message) == ("class out of range", "expected classes in 0..18 or 255, came 19")
    numbers = np.arange(34)[None]
    for kind in ("labelIds", "instanceIds", "color"):
        place = tmp_path / "gtFine" / "val" / "ulm" / f"ulm_0_gtFine_{kind}.png"
        pair(tmp_path / "leftImg8bit" / "val" / "ulm" / "ulm_0_leftImg8bit.png", place, numbers)
    index = open_index(tmp_path, "val")
    known = {one.id: one for one in Cityscapes.classes}
    assert labels(index, 0)[0].tolist() == [known[number].train_id for number in range(34)]
    assert list(CITYSCAPES) == [one.name for one in Cityscapes.classes if 0 <= one.train_id < 255]
    assert not index.problems


def test_every_wrong_file_is_named(tmp_path: Path) -> None:
    root = folders(tmp_path)
    masks = root / "masks" / "train"
    for stem in "defgh":
        pair(root / "images" / "train" / f"{stem}.png", masks / f"{stem}.png", np.zeros((2, 3)))
    write_numbers(np.array([[0, 1, 2], [9, 9, 9]]), masks / "d.png")
    write_numbers(np.zeros((3, 2)), masks / "e.png")
    (masks / "f.png").unlink()
    (root / "images" / "train" / "g.png").unlink()
    save(noise(3, 2), masks / "h.png")
    index = open_index(root)
    assert [(p.kind, p.path, p.message) for p in index.problems] == [
        ("missing label file", "images/train/f.png", f"no mask belongs to it; looked for {masks / 'f'}.png"),
        ("missing image", "masks/train/g.png", "no picture belongs to this mask"),
        ("class out of range", "masks/train/d.png", "expected classes in 0..1 or 255, came 2, 9"),
        ("wrong size", "masks/train/e.png", "is 2x3, its picture 3x2; left out"),
        ("class out of range", "masks/train/h.png", "has colours that stand for no class"),
    ]
    with pytest.raises(DataError, match="2 errors"):
        index.raise_if_fatal()


def test_other_ways_to_lie_in_folders(tmp_path: Path) -> None:
    numbers = np.array([[0, 1]])
    inside, flat, listed = tmp_path / "inside", tmp_path / "flat", tmp_path / "listed"
    for split in ("train", "valid"):
        pair(inside / split / "images" / "a.png", inside / split / "labels" / "a_mask.png", numbers)
    for stem in "abcde":
        pair(flat / "imgs" / f"img_{stem}.png", flat / "mask" / f"gt_{stem}.png", numbers)
        pair(listed / "images" / f"{stem}.png", listed / "labels" / f"{stem}.png", numbers)
    for root in (inside, flat, listed):
        (root / "classes.txt").write_text("no\nyes\n")
    (listed / "train.txt").write_text("a\nc.png\n")
    (listed / "val.txt").write_text("images/b.png labels/b.png\n")
    assert [open_index(inside, split).paths for split in ("train", "val")] == [
        ["train/images/a.png"],
        ["valid/images/a.png"],
    ]
    assert [len(open_index(flat, split)) for split in ("train", "val", "all")] == [4, 1, 5]
    assert [open_index(listed, split).paths for split in ("train", "val")] == [
        ["images/a.png", "images/c.png"],
        ["images/b.png"],
    ]
    for root in (inside, flat, listed):
        assert not open_index(root).problems


def test_colours_are_read_from_a_list(tmp_path: Path) -> None:
    save(noise(2, 1), tmp_path / "images" / "a.png")
    save(np.array([[[4, 5, 6], [1, 2, 3]]], np.uint8), tmp_path / "masks" / "a.png")
    for name, text in (
        ("label_colors.txt", "1 2 3\tdeep sea\n4 5 6 sky\n"),
        ("class_colors.txt", "deep sea:1,2,3::\nsky:4,5,6::\n"),
        ("labelmap.txt", "deep sea:1,2,3::\nsky:4,5,6::\n"),
    ):
        (tmp_path / name).write_text(text)
        index = open_index(tmp_path, "all", format="mask_folder")
        assert index.classes == ("deep sea", "sky")
        assert labels(index, 0).tolist() == [[1, 0]]
        (tmp_path / name).unlink()
    (tmp_path / "label_colors.txt").write_text("1 2 3 sea\nx\n")
    with pytest.raises(DataError, match=r"label_colors\.txt:2: expected red green blue name"):
        open_index(tmp_path, "all", format="mask_folder")


WRONG = [
    "[]",
    "{",
    "[" * 100_000,
    '{"label_map": {"a": "b"}}',
    '{"label_map": {"1": "b"}}',
    '{"label_map": {"0": "b"}, "segmentation_colors": [[1, 2]]}',
    '{"label_map": {"0": "b"}, "segmentation_colors": 3}',
    '{"label_map": {"0": "a", "1": "b"}, "segmentation_colors": [[1, 2, 3]]}',
]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_json_that_names_nothing_is_refused(tmp_path: Path, text: str) -> None:
    pair(tmp_path / "images" / "a.png", tmp_path / "masks" / "a.png", np.zeros((1, 1)))
    (tmp_path / "dataset_meta.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset_meta\.json: expected label_map"):
        open_index(tmp_path, "all", format="mask_folder")


def test_numbers_without_names_are_not_guessed(tmp_path: Path) -> None:
    pair(tmp_path / "images" / "a.png", tmp_path / "masks" / "a.png", np.zeros((1, 1)))
    with pytest.raises(DataError, match=r"write their names into .*classes\.txt"):
        open_index(tmp_path, "all")
    with pytest.raises(DataError, match="found no such pair"):
        MASKS.read(tmp_path / "images", "all")

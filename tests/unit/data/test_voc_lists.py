from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from torchvision.models.detection.ssd import SSD300_VGG16_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights

from tests.unit.data.pictures import noise, save
from torso.config import DataError
from torso.data import open_index
from torso.data.formats.voc_lists import (
    OFFICIAL,
    PROTOCOLS,
    VOC_CLASSES,
    differences,
    image_sets,
    voc_classes,
    voc_protocol,
)
from torso.data.formats.voc_xml import VocObject, VocPage, write_page


def year(root: Path, lists: dict[str, str], stems: str, name: str = "cat") -> Path:
    """A year folder with a picture and one object of class ``name`` for each letter of ``stems``."""
    for number, stem in enumerate(stems):
        save(noise(12, 10, number), root / "JPEGImages" / f"{stem}.jpg")
        page = VocPage(root, f"{stem}.jpg", (12, 10), False, (VocObject(name, ("1", "1", "5", "5")),))
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{stem}.xml").write_text(write_page(page))
    for place, text in lists.items():
        file = root / "ImageSets" / f"{place}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def devkit(root: Path) -> Path:
    flags = {f"Main/{kind}_trainval": "a -1\nb  1\nc  0\nd  0\n" for kind in VOC_CLASSES}
    main = {"Main/train": "a\n", "Main/val": "b\nc\n", "Main/trainval": "a\nb\nc\n", "Main/test": "d\n"}
    others = {
        "Segmentation/train": "a\n", "Segmentation/val": "c\n",
        "Layout/train": "a 1\na 2\nb 1\n", "Action/train": "b 1\n", "Action/jumping_train": "b 1 -1\n",
    }  # fmt: skip
    year(root / "VOC2007", flags | main | others, "abcd")
    year(root / "VOC2012", flags | {"Main/train": "b\n", "Main/trainval": "a\nb\n", "Main/test": "x\n"}, "ab", "train")
    return root


@pytest.mark.part("format/voc_classes")
def test_the_classes_are_those_that_torchvision_names() -> None:
    weights = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    assert list(voc_classes(background=True)) == [name.removeprefix("__").removesuffix("__") for name in weights]
    assert voc_classes() == VOC_CLASSES == tuple(sorted(VOC_CLASSES))
    assert len(VOC_CLASSES) == 20
    assert not {*VOC_CLASSES} <= {*SSD300_VGG16_Weights.COCO_V1.meta["categories"]}  # COCO has other words


@pytest.mark.part("format/voc_imagesets")
def test_the_lists_of_all_competitions_are_found(tmp_path: Path) -> None:
    root = devkit(tmp_path) / "VOC2007"
    lists = image_sets(root)
    assert len(lists) == 4 + 20 + 2 + 1 + 2
    assert {"train", "test", "Segmentation/val", "Layout/train", "Action/jumping_train", "cat_trainval"} <= {*lists}
    assert lists["Segmentation/val"] == root / "ImageSets" / "Segmentation" / "val.txt"
    from torso.data.formats import FORMATS

    assert FORMATS["voc"].splits(root) == ["test", "train", "trainval", "val"]
    expected = {"train": "a", "trainval": "abc", "Segmentation/val": "c", "Layout/train": "ab", "Action/train": "b"}
    expected |= {"Action/jumping_train": "b"}
    for split, stems in expected.items():
        index = open_index(root, split)
        assert [Path(path).stem for path in index.paths] == [*stems], split
        assert index.classes == VOC_CLASSES


@pytest.mark.part("format/voc_imagesets")
def test_a_list_of_one_class_is_a_classification(tmp_path: Path) -> None:
    index = open_index(devkit(tmp_path) / "VOC2007", "cat_trainval")
    assert (index.task, index.classes) == ("classify", ("no cat", "cat"))
    assert [Path(path).stem for path in index.paths] == ["a", "b"]
    assert index.image_labels is not None
    assert index.image_labels.tolist() == [0, 1]
    assert [p.message for p in index.problems] == ["2 pictures on which cat is difficult (0) are left out"]


def test_a_list_that_only_looks_like_one_class_is_a_split(tmp_path: Path) -> None:
    root = year(tmp_path, {"Main/train": "a\nb\n", "Main/fold_train": "b\n"}, "ab")
    assert open_index(root, "fold_train").paths == ["JPEGImages/b.jpg"]
    assert open_index(root, "train").classes == ("cat",)


@pytest.mark.part("format/voc_imagesets")
def test_every_list_of_real_trees_is_found(shared_data: Path) -> None:
    for name in ("voc_dataset1", "voc_dataset2", "voc_dataset3"):
        root = shared_data / "format_fixtures" / "voc_dataset" / name
        assert {*image_sets(root).values()} == {*(root / "ImageSets").glob("*/*.txt")}
    index = open_index(root.parent / "voc_dataset1", "cat_train")
    assert index.image_labels is not None
    assert index.image_labels.tolist() == [0]  # the fixture says so, whatever its XML says
    train = open_index(root.parent / "voc_dataset1", "train_train")  # the class called train
    assert train.classes == ("no train", "train")


@pytest.mark.part("format/voc2012", "format/voc_protocols")
def test_years_are_joined(tmp_path: Path) -> None:
    devkit(tmp_path)
    index = open_index(tmp_path, "2007_trainval+2012_trainval")
    assert index.classes == VOC_CLASSES
    files = [index.file(row).relative_to(tmp_path).as_posix() for row in range(len(index))]
    assert files == [
        f"VOC{name[:4]}/JPEGImages/{name[4]}.jpg" for name in ("2007a", "2007b", "2007c", "2012a", "2012b")
    ]
    assert [VOC_CLASSES[label] for label in index.labels] == ["cat"] * 3 + ["train"] * 2
    assert len(set(index.image_ids)) == 5
    assert all(index.file(row).is_file() for row in range(5))
    same = open_index(tmp_path, "07+12")
    assert same.fingerprint == index.fingerprint
    assert len(open_index(tmp_path, "07++12")) == 6
    assert open_index(tmp_path, "2007_Segmentation/val").paths == ["JPEGImages/c.jpg"]
    assert open_index(tmp_path / "VOC2012", "2012_train").paths == ["JPEGImages/b.jpg"]
    with pytest.raises(DataError, match="a split such as 2007_train"):
        open_index(tmp_path, "train")


@pytest.mark.part("format/voc_protocols")
def test_the_protocols_add_up_to_the_numbers_of_the_papers() -> None:
    def pictures(expression: str) -> int:
        return sum(OFFICIAL[f"VOC{one[:4]}"][one[5:]] for one in expression.split("+"))

    papers = {"07": 5011, "12": 11540, "07+12": 16551, "07++12": 21503, "12_val": 5717}
    assert {name: pictures(voc_protocol(name)[0]) for name in PROTOCOLS} == papers
    assert pictures(voc_protocol("07+12")[1]) == 4952
    for lists in OFFICIAL.values():
        for kind in ("", "Segmentation/"):
            assert lists[f"{kind}train"] + lists[f"{kind}val"] == lists[f"{kind}trainval"]
    assert OFFICIAL["VOC2012"]["Segmentation/trainval"] == 2913
    assert OFFICIAL["VOC2007"]["trainval"] + OFFICIAL["VOC2007"]["test"] == 9963
    with pytest.raises(DataError, match=r"'07\+13'; did you mean '07\+12'"):
        voc_protocol("07+13")


@pytest.mark.part("format/voc_protocols")
def test_a_devkit_lists_the_protocols_it_can_serve(tmp_path: Path) -> None:
    from torso.data.formats import FORMATS

    splits = FORMATS["voc"].splits(devkit(tmp_path))
    assert {"07", "07+12", "07++12", "2007_test", "2012_trainval"} <= {*splits}
    assert "12_val" in splits
    shutil.rmtree(tmp_path / "VOC2007" / "ImageSets" / "Main")
    assert {"07", "07+12"}.isdisjoint(FORMATS["voc"].splits(tmp_path))


def test_labels_that_were_never_published_are_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test names 1 pictures, and none of them has an annotation.*never published"):
        open_index(devkit(tmp_path), "2012_test")


@pytest.mark.part("format/voc2012")
def test_an_unfinished_download_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = year(tmp_path / "VOC2012", {"Main/train": "a\nb\n", "Main/val": "c\n"}, "ac")
    monkeypatch.setitem(OFFICIAL, "VOC2012", {"train": 2, "val": 1, "trainval": 3})
    assert differences(tmp_path) == [
        f"{root}/ImageSets/Main/train.txt: 2 pictures were published; here 2 are listed, and 1 of them are there",
        f"{root}: the list trainval is missing",
    ]
    save(noise(12, 10), root / "JPEGImages" / "b.jpg")
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("a\nb\nc\n")
    assert differences(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00a", r"train\.txt: is not UTF-8 text"),
        (b"a\0b", r"train\.txt: is not text \(it has zero bytes\)"),
        (b"a\n" + b"x" * 300, r"train\.txt:2: expected a name of at most 240 bytes, came 'xxx"),
    ],
)
def test_a_list_that_is_no_text_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    root = year(tmp_path, {"Main/train": "a\n"}, "a")
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_index(root)


def test_a_lone_year_needs_no_name(tmp_path: Path) -> None:
    year(tmp_path / "VOC2012", {"Main/train": "b\n"}, "ab")
    assert open_index(tmp_path).paths == open_index(tmp_path, "2012_train").paths == ["JPEGImages/b.jpg"]
    assert np.array_equal(open_index(tmp_path).boxes, [[0, 0, 5, 5]])

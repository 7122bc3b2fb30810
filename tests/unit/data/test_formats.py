from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.pictures import noise, save, small_index
from torso.config import DataError
from torso.data import open_index
from torso.data.formats import FORMATS
from torso.data.formats.opening import recognise

XML = """<annotation>
<filename>{name}</filename>
<size><width>40</width><height>30</height><depth>3</depth></size>
{objects}</annotation>
"""
OBJECT = """<object><name>{name}</name><pose>Left</pose><difficult>{difficult}</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>
"""


def voc(folder: Path, objects: str, text: str | None = None) -> Path:
    save(noise(40, 30), folder / "a.jpg")
    (folder / "a.xml").write_text(text or XML.format(name="a.jpg", objects=objects), encoding="utf-8")
    return folder


def yolo(folder: Path, lines: str, names: str = "[cat, dog]", extra: str = "") -> Path:
    save(noise(40, 30), folder / "images" / "train" / "a.jpg")
    save(noise(40, 30), folder / "images" / "val" / "b.jpg")
    for name in ("train/a", "val/b"):
        path = folder / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines, encoding="utf-8")
    (folder / "data.yaml").write_text(
        f"train: images/train\nval: images/val\nnames: {names}\n{extra}", encoding="utf-8"
    )
    return folder


def coco(folder: Path, **changes: object) -> Path:
    save(noise(40, 30), folder / "train" / "a.jpg")
    content = {
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "images": [{"id": 5, "file_name": "a.jpg", "width": 40, "height": 30}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 2, 10, 12], "area": 99, "iscrowd": 0}],
    } | changes
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return folder


def annotation(**changes: object) -> list[dict[str, object]]:
    whole = {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0}
    return [whole | changes]


@pytest.mark.part("format/voc")
def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path: Path) -> None:
    objects = OBJECT.format(1, 1, 40, 30, name=" dog ", difficult=0) + OBJECT.format(
        5, 6, 7.5, 9, name="cat", difficult=1
    )
    index = open_index(voc(tmp_path, objects), "all")
    assert index.classes == ("cat", "dog")
    assert index.boxes.tolist() == [[0, 0, 40, 30], [4, 5, 7.5, 9]]
    assert index.labels.tolist() == [1, 0]
    assert index.difficult.tolist() == [False, True]
    assert not index.problems


@pytest.mark.part("format/yolo")
def test_yolo_and_voc_agree_on_the_golden_box(tmp_path: Path) -> None:
    # The VOC box (69, 172, 270, 330) of a 500 x 375 picture, without the shift by one pixel.
    save(noise(500, 375), tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.339 0.669333 0.402 0.421333\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [person]\n")
    index = open_index(tmp_path)
    assert np.abs(index.boxes[0] - [69, 172, 270, 330]).max() < 1e-3
    FORMATS["yolo"].write(index, tmp_path / "again", "train")
    values = (tmp_path / "again" / "labels" / "train" / "a.txt").read_text().split()
    assert np.allclose(list(map(float, values)), [0, 0.339, 0.669333, 0.402, 0.421333], atol=1e-6)


@pytest.mark.part("format/coco")
def test_coco_keeps_its_ids(tmp_path: Path) -> None:
    polygon = [[1.0, 2, 11, 2, 11, 14]]
    runs = {"size": [30, 40], "counts": [0, 1200]}
    rows = annotation(segmentation=polygon) + annotation(id=2, category_id=3, iscrowd=1, segmentation=runs, area=7)
    index = open_index(coco(tmp_path, annotations=rows, images=[{"id": 10**12, "file_name": "a.jpg"}]))
    assert len(index.boxes) == 0  # the annotations name another image
    assert [problem.kind for problem in index.problems] == ["annotation without image"]
    index = open_index(coco(tmp_path, annotations=rows))
    assert index.classes == ("cat", "dog")
    assert index.class_ids == (3, 7)
    assert index.labels.tolist() == [1, 0]
    assert index.boxes.tolist() == [[1, 2, 11, 14]] * 2
    assert index.crowd.tolist() == [False, True]
    assert index.area.tolist() == [120, 7]
    assert index.masks == [polygon, runs]


@pytest.mark.part("format/folder")
def test_folders_are_classes(tmp_path: Path) -> None:
    for name in (
        "train/dog/1.png",
        "train/cat/1.png",
        "train/cat/sub/2.png",
        "val/dog/9.png",
        "val/.ipynb_checkpoints/1.png",
    ):
        save(noise(8, 6), tmp_path / name)
    save(noise(8, 6), tmp_path / "train" / "cat" / "._1.png")
    train = open_index(tmp_path)
    assert (train.task, train.classes) == ("classify", ("cat", "dog"))
    assert train.paths == ["train/cat/1.png", "train/cat/sub/2.png", "train/dog/1.png"]
    assert train.image_labels is not None
    assert train.image_labels.tolist() == [0, 0, 1]
    val = open_index(tmp_path, "val", classes=train.classes)
    assert val.image_labels is not None
    assert val.image_labels.tolist() == [1]
    assert open_index(tmp_path, "val").classes == ("cat", "dog")
    assert not val.problems
    save(noise(8, 6), tmp_path / "val" / "emu" / "1.png")
    with pytest.raises(DataError, match="'emu' is not one of the classes cat, dog"):
        open_index(tmp_path, "val", classes=train.classes).raise_if_fatal()


@pytest.mark.part("format/folder")
def test_folders_without_splits_are_split_by_name(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for number in range(10):
            save(noise(4, 4), tmp_path / kind / f"{number}.png")
    train, val, whole = (open_index(tmp_path, split) for split in ("train", "val", "all"))
    assert sorted(train.paths + val.paths) == sorted(whole.paths)
    assert np.bincount(val.image_labels).tolist() == [2, 2]
    assert open_index(tmp_path, "val").fingerprint == val.fingerprint


def test_every_format_is_recognised_and_comes_back_the_same(tmp_path: Path) -> None:
    index = small_index(tmp_path / "source")
    before = {path.name: path.read_bytes() for path in (tmp_path / "source").iterdir()}
    for name in ("voc", "coco", "yolo"):
        folder = tmp_path / name
        FORMATS[name].write(index, folder, "train")
        assert recognise(folder) == name
        again = open_index(folder, "train", classes=index.classes)
        assert not again.problems
        seen = ~index.difficult if name == "yolo" else np.ones(len(index.labels), bool)  # YOLO has no such flag
        assert np.abs(again.boxes - index.boxes[seen]).max() <= 1e-6
        assert np.array_equal(again.labels, index.labels[seen])
        assert [Path(path).name for path in again.paths] == index.paths
        if name == "coco":
            assert again.class_ids == index.class_ids
            assert again.image_ids == index.image_ids
        with pytest.raises(DataError, match="torso never writes there"):
            FORMATS[name].write(again, folder, "train")
    assert {path.name: path.read_bytes() for path in (tmp_path / "source").iterdir()} == before


@pytest.mark.parametrize("name", ["voc", "coco", "yolo"])
def test_pictures_of_one_name_stay_apart(tmp_path: Path, name: str) -> None:
    folder = coco(tmp_path / "source")
    save(noise(40, 30, 1), folder / "train" / "x" / "a.jpg")
    images = [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "x/a.jpg"}]
    index = open_index(
        coco(folder, images=images, annotations=annotation() + annotation(id=2, image_id=6, bbox=[3, 3, 9, 9]))
    )
    FORMATS[name].write(index, tmp_path / "out", "train")
    again = open_index(tmp_path / "out", classes=index.classes)
    assert np.abs(again.boxes - index.boxes).max() < 1e-6
    assert [again.file(row).read_bytes() for row in range(2)] == [index.file(row).read_bytes() for row in range(2)]


def test_flat_voc_is_split_by_name_or_by_lists(tmp_path: Path) -> None:
    for number in range(10):
        save(noise(40, 30), tmp_path / f"{number}.jpg")
        body = OBJECT.format(1, 1, 9, 9, name="cat", difficult=0)
        (tmp_path / f"{number}.xml").write_text(XML.format(name=f"{number}.jpg", objects=body))
    assert [len(open_index(tmp_path, split)) for split in ("train", "val", "all")] == [8, 2, 10]
    with pytest.raises(DataError, match="no split 'test'; it has train, val, all"):
        open_index(tmp_path, "test")
    (tmp_path / "test.txt").write_text("3\n4.jpg\n\n")
    assert open_index(tmp_path, "test").paths == ["3.jpg", "4.jpg"]


def test_the_parent_of_a_year_will_do(tmp_path: Path) -> None:
    index = small_index(tmp_path / "source")
    FORMATS["voc"].write(index, tmp_path / "VOCdevkit" / "VOC2007", "train")
    assert len(open_index(tmp_path / "VOCdevkit")) == 10
    FORMATS["voc"].write(index, tmp_path / "VOCdevkit" / "VOC2012", "train")
    with pytest.raises(DataError, match="holds VOC2007, VOC2012; give one"):
        open_index(tmp_path / "VOCdevkit")


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("<annotation>\n<object>\n", "malformed file", 3),
        ('<!DOCTYPE x [<!ENTITY a "b">]>\n<annotation/>', "malformed file", None),
        (XML.format(name="a.jpg", objects=OBJECT.format("x", 1, 9, 9, name="cat", difficult=0)), "malformed row", 4),
        (XML.format(name="a.jpg", objects=OBJECT.format("nan", 1, 9, 9, name="cat", difficult=0)), "not a number", 4),
        (XML.format(name="a.jpg", objects="<object><name>cat</name></object>\n"), "malformed row", 4),
    ],
)
def test_wrong_xml_names_file_and_line(tmp_path: Path, text: str, kind: str, line: int | None) -> None:
    for name in ("ok1", "ok2"):
        save(noise(40, 30), tmp_path / f"{name}.jpg")
        body = OBJECT.format(1, 1, 9, 9, name="cat", difficult=0)
        (tmp_path / f"{name}.xml").write_text(XML.format(name=f"{name}.jpg", objects=body))
    index = open_index(voc(tmp_path, "", text), "all")
    (problem,) = index.problems
    assert (problem.kind, problem.path, problem.line, problem.fatal) == (kind, "a.xml", line, True)
    assert len(index.boxes) == 2


def test_a_utf16_file_hides_no_doctype(tmp_path: Path) -> None:
    voc(tmp_path, "")
    (tmp_path / "b.xml").write_bytes('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>'.encode("utf-16"))
    assert "expected UTF-8" in open_index(tmp_path, "all").problems[0].message


def test_a_listed_picture_without_labels_is_named(tmp_path: Path) -> None:
    FORMATS["voc"].write(small_index(tmp_path / "source"), tmp_path / "voc", "train")
    (tmp_path / "voc" / "Annotations" / "03.xml").unlink()
    (tmp_path / "voc" / "JPEGImages" / "04.png").unlink()
    index = open_index(tmp_path / "voc")
    assert [(problem.kind, Path(problem.path).stem) for problem in index.problems] == [
        ("missing label file", "03"),
        ("missing image", "04"),
    ]
    assert len(index) == 8


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "0 .5 .5 .2 .2\n\n2 .5 .5 .1 .1",
            r"train/a\.txt:3: expected a class in 0\.\.1, came 2 \(do these ids start at 1\?\)",
        ),
        ("99 .5 .5 .1 .1", r"a\.txt:1: expected a class in 0\.\.1, came 99"),
        ("-1 .5 .5 .1 .1", r"a\.txt:1: expected a class in 0\.\.1, came -1"),
        ("0 .5 .5 .1", r"a\.txt:1: expected 5 columns .* came 4"),
        ("0 .5 .5 .1 .1 .9", r"a\.txt:1: 6 columns: the last looks like a confidence"),
        ("0.5 .5 .5 .1 .1", r"a\.txt:1: expected a whole class number"),
        ("cat .5 .5 .1 .1", r"a\.txt:1: expected numbers, came 'cat"),
        ("0 nan .5 .1 .1", r"a\.txt:1: expected finite coordinates"),
    ],
)
def test_wrong_rows_name_file_and_line(tmp_path: Path, lines: str, message: str) -> None:
    index = open_index(yolo(tmp_path, lines))
    with pytest.raises(DataError, match=message):
        index.raise_if_fatal()


def test_yolo_rows_that_are_right(tmp_path: Path) -> None:
    text = "\ufeff0 .5 .5 .5 .5\r\n\r\n 1.0\t.25 .25 .1 .2 \r\n1 .1 .1 .9 .1 .9 .8"
    index = open_index(yolo(tmp_path, text))
    assert np.allclose(index.boxes, [[10, 7.5, 30, 22.5], [8, 4.5, 12, 10.5], [4, 3, 36, 24]])
    assert index.labels.tolist() == [0, 1, 1]
    assert not index.problems


def test_names_stay_text(tmp_path: Path) -> None:
    assert open_index(yolo(tmp_path, "1 .5 .5 .1 .1", names="[no, 1e3]")).classes == ("no", "1e3")
    assert open_index(yolo(tmp_path, "1 .5 .5 .1 .1", names="{1: b, 0: a}")).classes == ("a", "b")


def test_ids_that_start_at_one_are_reported(tmp_path: Path) -> None:
    index = open_index(yolo(tmp_path, "1 .5 .5 .1 .1"))
    assert [problem.kind for problem in index.problems] == ["class ids from 1"]
    index.raise_if_fatal()


def test_classes_follow_the_names_of_the_training_split(tmp_path: Path) -> None:
    folder = yolo(tmp_path, "0 .5 .5 .1 .1\n1 .2 .2 .1 .1", names="[dog, cat]")
    assert open_index(folder, "val", classes=("cat", "emu", "dog")).labels.tolist() == [2, 0]
    with pytest.raises(DataError, match=r"val/b\.txt:2: class 'cat' is not one of dog"):
        open_index(folder, "val", classes=("dog",)).raise_if_fatal()


def test_a_yaml_cannot_leave_its_folder_or_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = yolo(tmp_path / "set", "0 .5 .5 .1 .1", extra="download: print('bad')\n")
    monkeypatch.chdir("/")
    assert [problem.kind for problem in open_index(folder).problems] == ["ignored"]
    save(noise(4, 4), tmp_path / "other" / "images" / "x.png")
    text = (folder / "data.yaml").read_text()
    (folder / "data.yaml").write_text(text.replace("images/train", "../other/images"))
    with pytest.raises(DataError, match=r"train: '\.\./other/images' leaves the data set's folder"):
        open_index(folder)
    assert len(FORMATS["yolo"].read(folder, "train", allow_outside=True)) == 1  # type: ignore[call-arg]
    (folder / "data.yaml").write_text(text.replace("images/train", "../images/train"))
    with pytest.raises(DataError, match="'images/train' exists, is it meant"):
        open_index(folder)
    (folder / "data.yaml").write_text(text.replace("images/train", "images/trian"))
    with pytest.raises(
        DataError, match=r"no such folder or list: .*images/trian \(the nearest that exists is .*images\)"
    ):
        open_index(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "is not YAML"),
        ("a: &x 1\ntrain: *x\nnames: [a]", "aliases are not read"),
        ("train: images", "expected keys train, val and names"),
        ("train: images/train\nnames: [a, b]\nnc: 3", "nc is 3, but names lists 2"),
        ("train: images/train\nnames: {1: a, 2: b}", r"numbered 0\.\.1 without gaps"),
        ("names: [a, b]", "no split 'train'"),
    ],
)
def test_a_wrong_yaml_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (yolo(tmp_path, "") / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        open_index(tmp_path)


def test_labels_that_are_nowhere_are_not_taken_for_backgrounds(tmp_path: Path) -> None:
    folder = yolo(tmp_path, "")
    assert len(open_index(folder)) == 1
    (folder / "labels" / "train" / "a.txt").unlink()
    with pytest.raises(DataError, match=r"no picture of train has labels; looked for .*labels/train/a\.txt"):
        open_index(folder).raise_if_fatal()


def test_a_list_of_pictures_will_do(tmp_path: Path) -> None:
    folder = yolo(tmp_path, "0 .5 .5 .1 .1")
    (folder / "list.txt").write_text("images/train/a.jpg\n./images/val/b.jpg\n")
    (folder / "data.yaml").write_text("train: list.txt\nnames: [cat]\n")
    assert open_index(folder).paths == ["images/train/a.jpg", "images/val/b.jpg"]


@pytest.mark.parametrize(
    ("changes", "kind", "where"),
    [
        ({"annotations": annotation(category_id=4)}, "class out of range", "annotations[0].category_id"),
        ({"annotations": annotation(bbox=[1, 2, 3])}, "malformed row", "annotations[0].bbox"),
        ({"annotations": annotation(bbox="1 2 3 4")}, "malformed row", "annotations[0].bbox"),
        ({"annotations": annotation(bbox=["a", 2, 3, 4])}, "malformed row", "annotations[0].bbox"),
        ({"annotations": annotation(bbox=None)}, "malformed row", "annotations[0].bbox"),
        ({"annotations": annotation(bbox=[1, 2, float("nan"), 4])}, "not a number", "annotations[0]"),
        ({"annotations": annotation(bbox=[1, 2, 0, 4])}, "degenerate box", "annotations[0]"),
        ({"annotations": [7]}, "malformed row", "annotations[0]"),
        ({"annotations": annotation(image_id=6)}, "annotation without image", "annotations[0].image_id"),
        ({"annotations": annotation() + annotation(bbox=[4, 4, 5, 5])}, "duplicate annotation id", "annotations[1].id"),
        ({"annotations": annotation(segmentation=[[1, 2, 3, 4]])}, "malformed mask", "annotations[0].segmentation"),
        ({"annotations": annotation(segmentation={"counts": 3})}, "malformed mask", "annotations[0].segmentation"),
    ],
)
def test_irregular_json_is_named_by_its_path(tmp_path: Path, changes: dict[str, object], kind: str, where: str) -> None:
    index = open_index(coco(tmp_path, **changes))
    (problem,) = index.problems
    assert problem.kind == kind
    assert problem.message.startswith(where)
    assert problem.path == "annotations/instances_train.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "expected pictures, found none"),
        ({"images": None}, "images: expected a list"),
        ({"annotations": {}}, "annotations: expected a list, came dict"),
        ({"categories": [{"id": "x", "name": "a"}]}, r"categories\[0\]: expected a whole number id and a name"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, r"categories\[1\].*used twice"),
        ({"images": [{"id": 5}]}, r"images\[0\]: expected an object with id and file_name"),
    ],
)
def test_a_json_without_sense_is_one_sentence(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_index(coco(tmp_path, **changes))


@pytest.mark.parametrize(
    ("text", "message"), [("{", "1: is not JSON"), ("[" * 200_000, "nested too deeply"), ("[]", "expected an object")]
)
def test_what_is_not_coco_json(tmp_path: Path, text: str, message: str) -> None:
    (coco(tmp_path) / "annotations" / "instances_train.json").write_text(text)
    with pytest.raises(DataError, match=message):
        open_index(tmp_path)


def test_coco_that_is_only_unusual(tmp_path: Path) -> None:
    rows = annotation(bbox=["1", "2", "10", "12"]) + annotation(id=2, bbox=None, segmentation=[[1, 2, 9, 2, 9, 8]])
    index = open_index(coco(tmp_path, images=[{"id": 5, "file_name": "a.jpg"}], annotations=rows))
    assert index.boxes.tolist() == [[1, 2, 11, 14], [1, 2, 9, 8]]
    assert index.sizes.tolist() == [[40, 30]]
    assert not index.problems


def test_one_image_id_means_one_picture(tmp_path: Path) -> None:
    twice = [{"id": 5, "file_name": "a.jpg"}] * 2
    index = open_index(coco(tmp_path, images=twice))
    assert (len(index), len(index.boxes)) == (1, 1)
    assert [problem.kind for problem in index.problems] == ["duplicate image"]
    save(noise(4, 4), tmp_path / "train" / "b.png")
    other = [{"id": 5, "file_name": "a.jpg"}, {"id": 5, "file_name": "b.png"}]
    with pytest.raises(DataError, match=r"images\[1\]\.id: 5 .* another picture"):
        open_index(coco(tmp_path, images=other)).raise_if_fatal()


def test_nothing_known_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"expected VOC.*found notes\.txt"):
        open_index(tmp_path)
    with pytest.raises(DataError, match=r"no such file or folder; the nearest folder that exists is"):
        open_index(tmp_path / "a" / "b")
    with pytest.raises(DataError, match="no format is called 'tfrecord'"):
        open_index(tmp_path, format="tfrecord")

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.pictures import noise, save
from torso.config import DataError
from torso.data import Index, digits, open_index
from torso.data.builder import Builder, Object
from torso.data.compare import Difference, compare
from torso.data.convert import Report, convert
from torso.data.formats import FORMATS, Coco, Voc
from torso.data.masks import encoded
from torso.data.recast import suited, told_apart

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]
IGNORED = np.tile([True, True, False, False], 3)  # what is a crowd or difficult


def rich(folder: Path, count: int = 3) -> Index:
    """An index in which every column says something."""
    builder = Builder(folder, ("a", "b"), (3, 7), keypoint_names=("nose", "tail"), skeleton=((0, 1),))
    bitmap = np.zeros((32, 48), bool)
    bitmap[4:9, 5:11] = True
    for number in range(count):
        path = save(noise(48, 32, seed=number), folder / f"{number}.png")
        builder.image(path, (48, 32), 100 + number, captions=["a dog"])
        rows = [
            Object((1.5, 2, 11, 12.25), 0, difficult=True, truncated=True, pose="Left"),
            Object((20, 2, 30, 12), 1, crowd=True, occluded=True, area=7.0),
            Object((5, 4, 11, 9), 1, mask=encoded(bitmap), keypoints=[6, 5, 2, 0, 0, 0]),
            Object((1, 1, 4, 4), 0, mask=SQUARE),
        ]
        builder.objects(rows, path)
    return builder.finish()


def lost(found: Difference) -> dict[str, int]:
    return dict(+found.lost)


def test_an_index_is_no_different_from_itself(tmp_path: Path) -> None:
    index = rich(tmp_path)
    found = compare(index, index)
    assert lost(found) == {}
    assert found.max_pixels == 0
    # Nor are pictures in another order, objects in another order, or classes with other numbers but their names.
    assert lost(compare(index, index.select([2, 0, 1]))) == {}
    turned = replace(index, classes=("b", "a"), class_ids=(7, 3), labels=1 - index.labels)
    assert lost(compare(index, turned)) == {"order of classes": 2}


def moved(index: Index) -> Index:
    boxes = index.boxes.copy()
    boxes[4, 2] += 0.25
    return replace(index, boxes=boxes)


def bare(**changes: object) -> Callable[[Index], Index]:
    return lambda index: replace(index, **changes)  # type: ignore[arg-type]


def without(index: Index, row: int) -> Index:
    """One object less, and those behind it move up."""
    kept = np.delete(np.arange(len(index.labels)), row)
    columns = {name: getattr(index, name)[kept] for name in ("boxes", "labels", "crowd", "difficult", "truncated")}
    columns |= {"area": index.area[kept], "occluded": index.occluded[kept], "keypoints": index.keypoints[kept]}
    lists = {name: [getattr(index, name)[k] for k in kept] for name in ("masks", "poses")}
    offsets = index.offsets - (index.offsets > row)
    return replace(index, **columns, **lists, offsets=offsets)


@pytest.mark.part("format/convert")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (moved, {"boxes": 1}),
        (lambda i: replace(i, difficult=~i.difficult), {"difficult": 3, "not difficult": 9}),
        (lambda i: replace(i, truncated=i.truncated & False), {"truncated": 3}),
        (bare(occluded=None), {"occluded": 3}),
        (bare(crowd=np.zeros(12, bool), difficult=IGNORED), {"crowd": 3, "not difficult": 3}),
        (bare(poses=None), {"pose": 3}),
        (lambda i: replace(i, poses=["Frontal"] * 12), {"pose": 3}),
        (bare(keypoints=None), {"keypoints": 3}),
        (lambda i: replace(i, keypoints=i.keypoints + np.array([0, 1, 0])), {"keypoints": 3}),
        (lambda i: replace(i, keypoints=i.keypoints * [1, 1, 0.5]), {"keypoints": 3}),
        (bare(keypoint_names=("nose", "x")), {"keypoint names": 1}),
        (bare(skeleton=()), {"skeleton": 1}),
        (bare(masks=None), {"masks": 6}),
        (bare(masks=[None, None, [[5, 4, 11, 4, 11, 9, 5, 9]], None] * 3), {"masks": 3}),  # the same pixels
        (bare(masks=[None, None, [[5, 4, 11, 4, 11, 8, 5, 8]], SQUARE] * 3), {"pixels of masks": 3}),
        (lambda i: replace(i, area=i.area + 5), {"area": 3}),  # of the others it is that of the box or the mask
        (bare(captions=None), {"captions": 3}),
        (bare(captions=[["a dog"], ["a cat"], []]), {"captions": 2}),
        (bare(image_ids=[100, "101", 102]), {"image ids": 1}),
        (bare(class_ids=(3, 9)), {"class ids": 1}),
        (bare(classes=("a", "c")), {"classes": 1, "objects": 6, "new objects": 6, "objects that are crowd": 3}),
        (bare(task="segment"), {"task": 1}),
        (lambda i: i.select([0, 2]), {"pictures": 1, "objects": 4}),
        (lambda i: without(i, 0), {"objects": 1, "objects that are difficult": 1}),
        (lambda i: without(i, 3), {"objects": 1}),
        (lambda i: replace(i, sizes=i.sizes + 1), {"sizes": 3}),
    ],
)  # fmt: skip
def test_every_column_that_changes_is_noticed(
    tmp_path: Path, change: Callable[[Index], Index], expected: dict[str, int]
) -> None:
    index = rich(tmp_path)
    found = compare(index, change(index))
    ignored = {"masks", "keypoints", "pose", "area"} if "new objects" in expected else set()
    assert {what: count for what, count in lost(found).items() if what not in ignored} == expected


def test_the_largest_shift_of_a_box_is_measured(tmp_path: Path) -> None:
    index = rich(tmp_path)
    assert compare(index, moved(index)).max_pixels == 0.25
    tiny = replace(index, boxes=index.boxes + 5e-7)
    assert lost(compare(index, tiny)) == {}
    assert compare(index, tiny).max_pixels == pytest.approx(5e-7)


def test_an_object_left_out_does_not_shift_the_others(tmp_path: Path) -> None:
    # Paired by their order, the flags of all objects behind the first would be compared with another's.
    index = rich(tmp_path)
    found = compare(index, without(index, 0))
    assert found.max_pixels == 0
    assert "crowd" not in lost(found)


def test_sums_of_splits_count_what_belongs_to_the_whole_once(tmp_path: Path) -> None:
    index = rich(tmp_path)
    other = replace(index, class_ids=(0, 1), truncated=index.truncated & False)
    total = Difference()
    for _ in range(2):
        total.add(compare(index, other))
    assert lost(total) == {"class ids": 2, "truncated": 6}
    assert (total.of["class ids"], total.of["truncated"]) == (2, 6)


# ---------------------------------------------------------------- what may be asked


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """train: 6 pictures, val: 2, of which one has the name of a picture of train; some objects count neither way."""
    for split, names in (("train", ["a", "b", "c", "d", "e", "f"]), ("val", ["a", "g"])):
        builder = Builder(tmp_path / "made" / split, ("cat", "dog"), (3, 7))
        for number, name in enumerate(names):
            path = save(noise(40, 30, seed=ord(name) + len(names)), tmp_path / "made" / split / f"{name}.png")
            builder.image(path, (40, 30), 10 + number)
            rows = [Object((1 + number, 2, 21 + number, 12), 0), Object((2, 12, 30, 28), 1, difficult=number == 0)]
            builder.objects(rows, path)
        FORMATS["coco"].write(builder.finish(), tmp_path / "coco", split)
    return tmp_path / "coco"


def messages(report: Report) -> list[str]:
    return [loss.message for loss in report.losses]


@pytest.mark.part("format/convert")
def test_losses_are_sentences_with_counts(coco: Path, tmp_path: Path) -> None:
    report = convert(coco, tmp_path / "yolo", "yolo")
    assert messages(report) == [
        "yolo cannot hold these `class ids`: 2 of 2 change (cat was 3, is 0)",
        "yolo cannot hold these `image ids`: 8 of 8 pictures get another",
        "yolo leaves out 2 of 16 objects",
        "yolo: of the objects left out 2 are difficult",
    ]
    assert report.splits == {"train": {"pictures": 6, "objects": 11}, "val": {"pictures": 2, "objects": 3}}
    lines = [*report.lines()]
    assert lines[0] == "train: 6 pictures, 11 objects"
    assert lines[2].startswith("boxes differ by at most ")
    assert json.loads((tmp_path / "yolo" / "conversion.json").read_text()) == report.as_dict()


@pytest.mark.part("format/convert")
def test_pictures_of_one_name_are_told_apart_where_all_lie_in_one_folder(coco: Path, tmp_path: Path) -> None:
    report = convert(coco, tmp_path / "voc", "voc")
    assert "voc keeps pictures in one folder: 1 of 8 are renamed, because two had the same name" in messages(report)
    assert not {"pictures", "boxes", "objects"} & {loss.what for loss in report.losses}
    for split in ("train", "val"):
        before, after = open_index(coco, split), open_index(tmp_path / "voc", split)
        assert [after.file(row).read_bytes() for row in range(len(after))] == [
            before.file(row).read_bytes() for row in range(len(before))
        ]
        assert np.array_equal(after.boxes, before.boxes)
    assert "names" not in {loss.what for loss in convert(coco, tmp_path / "yolo", "yolo").losses}


def test_the_same_picture_in_two_splits_keeps_its_name(tmp_path: Path) -> None:
    index = rich(tmp_path / "data")
    taken: dict[str, str] = {}
    total = Difference()
    told_apart(index, taken, total)
    assert told_apart(index.select([1]), taken, total).paths == ["1.png"]
    other = replace(index, paths=["sub/1.png", "sub/1.jpg", "2.png"])
    assert told_apart(other, taken, total).paths == ["1_1.png", "1_2.jpg", "2.png"]
    assert lost(total) == {"names": 2}


@pytest.mark.part("format/convert")
def test_links_take_no_room_and_are_not_written_through(coco: Path, tmp_path: Path) -> None:
    source = coco / "train" / "b.png"
    before = source.read_bytes()
    convert(coco, tmp_path / "linked", "yolo", link=True)
    convert(coco, tmp_path / "copied", "yolo")
    assert (tmp_path / "linked" / "images" / "train" / "b.png").samefile(source)
    assert not (tmp_path / "copied" / "images" / "train" / "b.png").samefile(source)
    # A writer that meets a link at its place puts a file there and leaves alone what the link leads to.
    place = tmp_path / "again" / "train"
    place.mkdir(parents=True)
    (place / "b.png").hardlink_to(source)
    other = save(noise(40, 30, seed=1), tmp_path / "other" / "b.png")
    builder = Builder(other.parent, ("cat",))
    builder.image(other, (40, 30), 1)
    Coco.write(builder.finish(), tmp_path / "again", "train")
    assert source.read_bytes() == before


@pytest.mark.part("format/convert")
def test_where_it_may_not_write_it_says_so_and_leaves_nothing(coco: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    for folder, says in (
        (coco, "where torso never writes"),
        (coco / "sub" / "voc", "where torso never writes"),
        (tmp_path / "full", "expected a new or an empty folder"),
        (tmp_path / "full" / "mine.txt", "expected a new or an empty folder"),
    ):
        with pytest.raises(DataError, match=says):
            convert(coco, folder, "voc")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert not (coco / "sub").exists()
    (tmp_path / "empty").mkdir()
    convert(coco, tmp_path / "empty", "voc")
    with pytest.raises(DataError, match="no format is called 'vok'; did you mean 'voc'"):
        convert(coco, tmp_path / "x", "vok")
    with pytest.raises(DataError, match="no split 'tset'"):
        convert(coco, tmp_path / "x", "voc", splits=["tset"])


@pytest.mark.part("format/convert")
@pytest.mark.parametrize("to", ["cifar", "mnist", "mask_folder", "voc_segmentation", "folder"])
def test_what_cannot_be_written_leaves_no_half_of_it(coco: Path, tmp_path: Path, to: str) -> None:
    with pytest.raises(DataError) as said:
        convert(coco, tmp_path / "new", to)
    assert "unfinished" not in str(said.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "made"]


def test_a_writer_that_dies_leaves_no_half_of_it(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(index: Index, folder: Path, split: str) -> None:
        (folder / "half.txt").write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Voc, "write", staticmethod(full))
    with pytest.raises(OSError, match="No space"):
        convert(coco, tmp_path / "new", "voc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "made"]


@pytest.mark.part("format/convert")
def test_splits_that_only_repeat_others_are_left_out_and_named(digits: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(digits, tmp_path / "voc")
    lists = tmp_path / "voc" / "ImageSets" / "Main"
    both = (lists / "train.txt").read_text() + (lists / "val.txt").read_text()
    (lists / "trainval.txt").write_text(both)
    report = convert(tmp_path / "voc", tmp_path / "coco", "coco")
    assert list(report.splits) == ["train", "val"]
    assert "coco: split trainval holds only pictures of other splits; it is left out" in messages(report)
    asked = convert(tmp_path / "voc", tmp_path / "asked", "coco", splits=["trainval"])
    assert asked.splits["trainval"]["pictures"] == 24


def test_classes_that_only_one_split_has_are_kept(tmp_path: Path) -> None:
    for split, name, number in (("train", "cat", 3), ("val", "bird", 2)):
        path = save(noise(40, 30), tmp_path / "made" / f"{split}.png")
        builder = Builder(tmp_path / "made", (name, "dog"), (number, 7))
        builder.image(path, (40, 30), 1)
        builder.objects([Object((1, 1, 9, 9), 0), Object((2, 2, 9, 9), 1)], path)
        FORMATS["coco"].write(builder.finish(), tmp_path / "coco", split)
    report = convert(tmp_path / "coco", tmp_path / "yolo", "yolo")
    assert not {"objects", "classes"} & {loss.what for loss in report.losses}
    assert open_index(tmp_path / "yolo", "val").classes == ("bird", "cat", "dog")
    again = convert(tmp_path / "coco", tmp_path / "again", "coco")
    assert again.losses == []
    assert open_index(tmp_path / "again", "train").class_ids == (2, 3, 7)
    only = convert(tmp_path / "coco", tmp_path / "only", "coco", classes=["dog"])
    assert only.splits["val"]["objects"] == 1
    assert [problem["kind"] for problem in only.problems].count("unknown class") >= 2


# ---------------------------------------------------------------- from one task to another


@pytest.mark.part("format/convert")
def test_nobody_draws_boxes_around_what_has_a_class(tmp_path: Path) -> None:
    folder = digits.make(tmp_path / "folder", format="folder", count=20, size=96)
    for to in ("voc", "coco", "coco_stuff", "yolo"):
        with pytest.raises(DataError, match=f"one class a picture and no boxes, and {to} holds boxes"):
            convert(folder, tmp_path / to, to)
    with pytest.raises(DataError, match="crop: is for boxes"):
        convert(folder, tmp_path / "crop", "csv", crop=True)
    report = convert(folder, tmp_path / "csv", "csv")
    assert report.losses == []
    back = convert(tmp_path / "csv", tmp_path / "back", "folder")
    assert back.losses == []
    for split in ("train", "val"):
        before, after = open_index(folder, split), open_index(tmp_path / "back", split)
        assert after.paths == before.paths
        assert np.array_equal(after.image_labels, before.image_labels)  # type: ignore[arg-type]


def one_each(folder: Path, several: bool = False) -> Path:
    builder = Builder(folder / "made", ("cat", "dog"))
    for number in range(4):
        path = save(noise(40, 30, seed=number), folder / "made" / f"{number}.png")
        builder.image(path, (40, 30), 50 + number)
        rows = [Object((1, 2, 21.5, 12), number % 2, truncated=True), Object((0, 0, 40, 30), 0, crowd=True)]
        rows += [Object((10.2, 10, 20, 29.9), 1)] if several else []
        builder.objects(rows, path)
    FORMATS["coco"].write(builder.finish(), folder / "coco", "train")
    return folder / "coco"


@pytest.mark.part("format/convert")
def test_one_object_a_picture_gives_the_picture_its_class(tmp_path: Path) -> None:
    report = convert(one_each(tmp_path), tmp_path / "folder", "folder")
    assert {loss.what: loss.count for loss in report.losses} == {
        "boxes to classes": 4, "crowds to classes": 4, "image ids": 4
    }  # fmt: skip
    index = open_index(tmp_path / "folder")
    assert index.paths == ["train/cat/0.png", "train/cat/2.png", "train/dog/1.png", "train/dog/3.png"]
    assert index.file(2).read_bytes() == (tmp_path / "coco" / "train" / "1.png").read_bytes()


@pytest.mark.part("format/convert")
def test_several_objects_a_picture_are_cut_out(tmp_path: Path) -> None:
    source = one_each(tmp_path, several=True)
    with pytest.raises(DataError, match="4 of 4 pictures have no object or several, and folder holds one class"):
        convert(source, tmp_path / "folder", "folder")
    report = convert(source, tmp_path / "folder", "folder", crop=True)
    assert {loss.what: loss.count for loss in report.losses}["boxes to pictures"] == 8
    index = open_index(tmp_path / "folder")
    assert len(index) == 8
    from torso.data.decode import decode

    cut = decode(tmp_path / "folder" / "train" / "dog" / "2_2.png")
    assert np.array_equal(cut, noise(40, 30, seed=2)[10:30, 10:20])
    whole = decode(tmp_path / "folder" / "train" / "cat" / "2_0.png")
    assert np.array_equal(whole, noise(40, 30, seed=2)[2:12, 1:22])


def test_data_for_another_task_have_no_class_a_picture(tmp_path: Path) -> None:
    index = replace(rich(tmp_path), task="segment")
    with pytest.raises(DataError, match="these pictures have none"):
        suited(index, "folder", False, Difference())

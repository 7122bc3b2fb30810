"""YOLO labels: rows, ids that start at 1, polygons, keypoints, and what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.data.pictures import noise, save, small_index
from torso import testing
from torso.config import DataError
from torso.data import Index, open_index
from torso.data.builder import Builder, Object
from torso.data.formats.yolo import Yolo


def made(folder: Path, lines: str, names: str = "[cat, dog, emu]", extra: str = "") -> Path:
    save(noise(40, 30), folder / "images" / "train" / "a.png")
    labels = folder / "labels" / "train"
    labels.mkdir(parents=True, exist_ok=True)
    (labels / "a.txt").write_bytes(lines.encode())
    (folder / "data.yaml").write_text(f"train: images/train\nnames: {names}\n{extra}", encoding="utf-8")
    return folder


def one_picture(folder: Path, objects: list[Object], size: tuple[int, int] = (640, 480), **columns: object) -> Index:
    builder = Builder(folder, ("a", "b"), **columns)  # type: ignore[arg-type]
    path = save(noise(*size), folder / "p.png")
    builder.image(path, size, 1)
    builder.objects(objects, path)
    return builder.finish()


@pytest.mark.part("format/yolo")
@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([1, 2, 3], "ids run from 1 to 3 and 0 is never used: they seem to start at 1"),
        ([3], "ids run from 3 to 3 and 0 is never used"),
        ([1, 2], "every class but 0 is used: do these ids start at 1?"),
        ([0, 3], ""),
        ([0, 1], ""),
        ([2], ""),
        ([1, 4], ""),
    ],
)
def test_ids_that_start_at_one_are_reported_and_not_guessed(ids: list[int], says: str, tmp_path: Path) -> None:
    lines = "".join(f"{number} .5 .5 .{k + 1} .1\n" for k, number in enumerate(ids))
    index = open_index(made(tmp_path, lines))
    found = [problem.message for problem in index.problems if problem.kind == "class ids from 1"]
    assert bool(found) == bool(says)
    assert all(says in message for message in found)
    assert index.labels.tolist() == [number for number in ids if number < 3]
    assert sum(problem.fatal for problem in index.problems) == sum(number > 2 for number in ids)


def test_a_class_for_the_background_is_named(tmp_path: Path) -> None:
    index = open_index(made(tmp_path, "1 .5 .5 .1 .1\n", "[__background__, cat, dog]"))
    (problem,) = index.problems
    assert problem.kind == "class ids from 1"
    assert "there is no class for the background here; take it out of names" in problem.message


def test_bom_crlf_tabs_old_line_ends_and_float_ids_are_read(tmp_path: Path) -> None:
    rows = "\ufeff0.0\t.5 .5 .1 .1\r\n\r\n 1  .25 .25 .1 .1 \r2 .75 .75 .1 .1\n"
    index = open_index(made(tmp_path, rows))
    assert index.labels.tolist() == [0, 1, 2]
    assert not index.problems


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1_0 .5 .5 .1 .1", "expected numbers"),
        ("nan .5 .5 .1 .1", "expected a whole class number, came nan"),
        ("0 .5 .5 .1 .1 .93", "the last looks like a confidence"),
        ("0 inf .5 .1 .1", "expected finite coordinates"),
        ("0 .1 .1 .9 .1 .9 .9 .5", "expected 5 columns .* or a polygon .*, came 8"),
        ("0 .1 .1 .9 .1 .9 nan", "expected finite coordinates"),
    ],
)
def test_a_wrong_row_is_named_and_the_others_stay(row: str, says: str, tmp_path: Path) -> None:
    index = open_index(made(tmp_path, f"0 .5 .5 .2 .2\n{row}\n1 .25 .25 .1 .1\n"))
    assert index.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=rf"labels/train/a\.txt:2: .*{says}"):
        index.raise_if_fatal()


def test_boxes_and_polygons_mix_in_one_file(tmp_path: Path) -> None:
    index = open_index(made(tmp_path, "0 .5 .5 .25 .5\n1 .1 .1 .9 .1 .9 .9\n"))
    assert np.allclose(index.boxes, [[15, 7.5, 25, 22.5], [4, 3, 36, 27]])
    assert index.masks is not None
    assert index.masks[0] is None
    assert np.allclose(index.masks[1], [[4, 3, 36, 3, 36, 27]])


@pytest.mark.parametrize(("values", "third"), [(3, (" 2", " 1", " 0")), (2, ("", "", ""))])
def test_keypoints_follow_the_box(values: int, third: tuple[str, str, str], tmp_path: Path) -> None:
    points = f".5 .5{third[0]} .25 .5{third[1]} 0 0{third[2]}"
    extra = f"kpt_shape: [3, {values}]\nkpt_names: [nose, eye, ear]\n"
    folder = made(tmp_path, f"0 .5 .5 .25 .5 {points}\n1 .5 .5 .1 .1\n0 .5 .5 .1 .2 .5 .5\n", extra=extra)
    index = open_index(folder)
    assert index.keypoint_names == ("nose", "eye", "ear")
    assert index.keypoints is not None
    assert index.keypoints[0].tolist() == [[20, 15, 2], [10, 15, 1 if values == 3 else 2], [0, 0, 0]]
    assert not index.keypoints[1].any()
    (problem,) = index.problems
    assert f"expected a box and 3 keypoints, {5 + 3 * values} columns in all, came 7" in problem.message
    Yolo.write(replace(index, problems=()), tmp_path / "again", "train")
    again = open_index(tmp_path / "again")
    assert again.keypoints is not None
    assert np.abs(again.keypoints - index.keypoints).max() < 1e-6
    assert again.keypoint_names == index.keypoint_names


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
    sides=st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(
        lambda s: abs(s[0] - s[2]) > 1e-6 < abs(s[1] - s[3])
    ),
)
def test_a_box_comes_back_within_a_millionth(
    size: tuple[int, int], sides: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    (x0, x1), (y0, y1) = sorted(sides[0::2]), sorted(sides[1::2])
    box = (x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1])
    folder = tmp_path_factory.mktemp("yolo")
    index = one_picture(folder / "source", [Object((0, 0, 1, 1), 1)], (1, 1))
    index = replace(index, sizes=np.array([size], np.int32), boxes=np.array([box]))
    Yolo.write(index, folder / "out", "train")
    cx, cy, w, h = map(float, (folder / "out" / "labels" / "train" / "p.txt").read_text().split()[1:])
    back = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]) * [*size, *size]
    assert np.abs(back - box).max() <= 1e-6


@pytest.mark.part("format/yolo")
def test_polygons_are_written_where_their_box_comes_back(tmp_path: Path) -> None:
    exact = [[10.0, 20, 60, 20, 60, 90.5]]
    rounded = [[10.004, 20, 59.996, 20.003, 60, 90.5]]
    outside = [[9.5, 20, 9.7, 50, 60, 20, 60, 90.5]]
    other = [[10.0, 20, 50, 20, 50, 80]]
    parts = [[10.0, 20, 30, 20, 30, 40], [40.0, 50, 60, 50, 60, 90.5]]
    box = (10, 20, 60, 90.5)
    masks = (exact, rounded, other, parts, None, outside)
    objects = [Object((x, *box[1:]), 0, mask=mask) for x, mask in zip([10] * 6, masks, strict=True)]
    objects = [replace(one, label=k % 2, crowd=True) for k, one in enumerate(objects)]  # equal boxes are kept of crowds
    index = one_picture(tmp_path / "source", objects)
    index = replace(index, crowd=np.zeros(len(index.labels), bool))
    Yolo.write(index, tmp_path / "out", "train")
    rows = (tmp_path / "out" / "labels" / "train" / "p.txt").read_text().splitlines()
    assert [len(row.split()) for row in rows] == [7, 7, 5, 5, 5, 9]
    values = np.array([row.split()[1:7] for row in rows[:2]], float) * ([640, 480] * 3)
    assert np.allclose(values[0], exact[0], atol=1e-6)
    assert np.allclose(
        values[1], [10, 20, 59.996, 20.003, 60, 90.5], atol=1e-6
    )  # the outermost points moved onto the box
    assert np.abs(open_index(tmp_path / "out").boxes - [box]).max() < 1e-6
    Yolo.write(index, tmp_path / "boxes", "train", polygons=False)
    rows = (tmp_path / "boxes" / "labels" / "train" / "p.txt").read_text().splitlines()
    assert {len(row.split()) for row in rows} == {5}
    Yolo.write(index, tmp_path / "all", "train", polygons=True)
    rows = (tmp_path / "all" / "labels" / "train" / "p.txt").read_text().splitlines()
    assert [len(row.split()) for row in rows] == [7, 7, 7, 5, 5, 9]


def test_splits_with_other_classes_are_not_written_side_by_side(tmp_path: Path) -> None:
    index = small_index(tmp_path / "source")
    Yolo.write(index, tmp_path / "out", "train")
    Yolo.write(index, tmp_path / "out", "val")
    assert Yolo.splits(tmp_path / "out") == ["train", "val"]
    with pytest.raises(DataError, match=r"data\.yaml: lists other classes than the split 'test'"):
        Yolo.write(replace(index, classes=("a", "b", "d")), tmp_path / "out", "test")


def test_pictures_of_one_stem_have_ids_of_their_own(tmp_path: Path) -> None:
    folder = made(tmp_path, "0 .5 .5 .1 .1\n")
    save(noise(8, 8), folder / "images" / "train" / "x" / "a.png")
    save(noise(8, 8), folder / "images" / "train" / "b.png")
    index = open_index(folder)
    testing.check_dataset(index)
    assert index.image_ids == ["images/train/a.png", "b", "images/train/x/a.png"]


def test_pictures_that_share_a_label_file_are_named(tmp_path: Path) -> None:
    folder = made(tmp_path, "0 .5 .5 .1 .1\n")
    save(noise(8, 8), folder / "images" / "train" / "a.bmp")
    index = open_index(folder)
    assert len(index.labels) == 2
    (problem,) = index.problems
    assert (problem.kind, problem.path) == ("shared labels", "labels/train/a.txt")


def test_a_label_file_without_its_picture_is_named(tmp_path: Path) -> None:
    folder = made(tmp_path, "0 .5 .5 .1 .1\n")
    (folder / "labels" / "train" / "gone.txt").write_text("0 .5 .5 .1 .1\n")
    (folder / "labels" / "train" / "classes.txt").write_text("cat\n")
    (problem,) = open_index(folder).problems
    assert (problem.kind, problem.path) == ("label without picture", "labels/train/gone.txt")


@pytest.mark.part("format/yolo")
def test_bccd_in_yolo_form_is_bccd_in_coco_form(shared_data: Path) -> None:
    for split, count in (("train", 60), ("val", 20)):
        yolo = open_index(shared_data / "bccd_yolo", split)
        coco = open_index(shared_data / "bccd" / "coco", split, classes=yolo.classes)
        assert len(yolo) == count
        at = {Path(path).stem: row for row, path in enumerate(coco.paths)}
        for row, path in enumerate(yolo.paths):
            other = coco.objects(at[Path(path).stem])
            ours = yolo.objects(row)
            assert np.abs(yolo.boxes[ours] - coco.boxes[other]).max(initial=0) < 0.01
            assert yolo.labels[ours].tolist() == coco.labels[other].tolist()
        assert not yolo.problems

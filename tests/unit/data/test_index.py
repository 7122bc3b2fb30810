from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.pictures import noise, save, small_index
from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.index import Problem


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    builder = Builder(tmp_path, ("cat", "dog"))
    builder.image(tmp_path / "a.png", (100, 50), 1)
    return builder


def kinds(builder: Builder) -> list[str]:
    return [problem.kind for problem in builder.problems]


def test_one_bad_row_never_discards_the_others(builder: Builder, tmp_path: Path) -> None:
    good = [(1.0, 2, 30, 40), (5.0, 5, 6, 6), (0.0, 0, 100, 50), (60.5, 1, 99, 49)]
    rows = [Object(box, 0, line) for line, box in enumerate(good, 1)] + [Object((1.0, 1, 9, 9), 7, 5)]
    builder.objects(rows, tmp_path / "a.txt")
    index = builder.finish()
    assert index.boxes.tolist() == [list(box) for box in good]
    assert [str(problem) for problem in index.problems] == ["a.txt:5: expected a class in 0..1, came 7"]
    with pytest.raises(DataError, match=r"1 error in the labels.*\n  a\.txt:5: expected a class in 0\.\.1, came 7"):
        index.raise_if_fatal()


@pytest.mark.parametrize("box", [(5.0, 5, 5, 9), (5.0, 5, 9, 5), (9.0, 5, 5, 9), (5.0, 5, 5, 5)])
def test_boxes_without_area_are_dropped_and_named(builder: Builder, tmp_path: Path, box: tuple[float, ...]) -> None:
    builder.objects([Object(box, 0, 3)], tmp_path / "a.txt")
    index = builder.finish()
    assert len(index.boxes) == 0
    assert index.problems[0].kind == "degenerate box"
    index.raise_if_fatal()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_a_number_is_fatal(builder: Builder, tmp_path: Path, value: float) -> None:
    builder.objects([Object((1, 1, value, 9), 0, 3)], tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"a\.txt:3"):
        builder.finish().raise_if_fatal()


@pytest.mark.parametrize(
    ("box", "kept", "kind"),
    [
        ((-10.0, 0, 90, 50), (0, 0, 90, 50), "box clipped"),
        ((90.0, 10, 130, 50), (90, 10, 100, 50), "box mostly outside"),
        ((-5.0, -5, 300, 300), (0, 0, 100, 50), "box mostly outside"),
        ((100.0, 0, 130, 50), None, "box outside"),
        ((0.0, 0, 100.004, 50), (0, 0, 100, 50), None),
    ],
)
def test_boxes_are_clipped_and_counted(
    builder: Builder, tmp_path: Path, box: tuple[float, ...], kept: tuple[float, ...] | None, kind: str | None
) -> None:
    builder.objects([Object(box, 0, 1)], tmp_path / "a.txt")
    index = builder.finish()
    assert index.boxes.tolist() == ([list(kept)] if kept else [])
    assert kinds(builder) == ([kind] if kind else [])
    index.raise_if_fatal()


def test_duplicates_count_once_unless_the_class_differs(builder: Builder, tmp_path: Path) -> None:
    box = (1.0, 1, 9, 9)
    builder.objects([Object(box, 0, 1), Object(box, 0, 2), Object(box, 1, 3)], tmp_path / "a.txt")
    assert builder.finish().labels.tolist() == [0, 1]
    assert [(problem.kind, problem.line) for problem in builder.problems] == [("duplicate row", 2)]
    assert not builder.finish().crowd.any()


def test_size_is_read_from_the_picture_and_compared(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(noise(40, 30), tmp_path / "a.jpg", exif=exif)
    builder = Builder(tmp_path, ("cat",))
    assert builder.size_of(path, (40, 30), tmp_path / "a.xml") == (30, 40)
    assert "EXIF rotation" in builder.problems[0].message
    assert builder.problems[0].path == "a.xml"
    assert builder.size_of(path, (0, 0)) == (30, 40)
    assert len(builder.problems) == 1


def test_too_many_missing_pictures_are_an_error_that_lists_five(tmp_path: Path) -> None:
    builder = Builder(tmp_path, ("cat",))
    for number in range(9):
        builder.size_of(tmp_path / f"{number}.jpg")
    builder.image(tmp_path / "a.png", (4, 4), 1)
    with pytest.raises(DataError, match=r"9 of 10 listed pictures.*(\n.*no such file){5}\n  and 4 more"):
        builder.finish()


def test_select_keeps_what_belongs_together(tmp_path: Path) -> None:
    index = small_index(tmp_path)
    part = index.select([7, 2])
    assert part.paths == ["07.png", "02.png"]
    assert np.array_equal(part.boxes[part.objects(0)], index.boxes[index.objects(7)])
    assert np.array_equal(part.labels[part.objects(1)], index.labels[index.objects(2)])
    assert part.offsets.tolist() == [0, 3, 5]
    assert part.fingerprint != index.fingerprint
    assert index.select(range(10)).fingerprint == index.fingerprint
    assert len(index.select([]).boxes) == 0


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    index = small_index(tmp_path / "one")
    assert small_index(tmp_path / "two").fingerprint == index.fingerprint
    boxes = index.boxes.copy()
    boxes[0, 0] += 1e-9
    changed = [
        {"boxes": boxes},
        {"classes": ("a", "b", "d")},
        {"difficult": ~index.difficult},
        {"paths": index.paths[::-1]},
    ]
    assert index.fingerprint not in {replace(index, fingerprint="", **change).fingerprint for change in changed}


def test_the_report_is_json_and_counts_everything(tmp_path: Path) -> None:
    index = replace(small_index(tmp_path), problems=(Problem("degenerate box", "a.xml", 3, "no area"),))
    report = json.loads(json.dumps(index.report()))
    assert report["images"] == 10
    assert report["images_without_objects"] == 3
    assert report["objects"] == 13
    assert report["classes"] == {"a": 7, "b": 4, "c": 2}
    assert report["ignored"] == {"crowd": 0, "difficult": 2}
    assert report["problem_counts"] == {"degenerate box": 1}
    assert report["problems"][0]["line"] == 3

"""COCO files that are wrong: each is told by its path inside the json, and nothing else is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.data.coco_files import content, row, written
from tests.unit.data.pictures import noise, save
from torso.config import DataError
from torso.data import Index, open_index
from torso.data.formats.coco import Coco

GOOD = row(id=99, bbox=[20, 10, 5, 5], area=25)


def told(index: Index) -> list[tuple[str, str, bool]]:
    assert all(problem.path == "annotations/instances_train.json" for problem in index.problems)
    return [(problem.kind, problem.message, problem.fatal) for problem in index.problems]


def images(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}, *rows]


ROWS = {
    "a box of three numbers": (
        [row(bbox=[1, 2, 3])],
        ("malformed row", "annotations[0].bbox: expected 4 numbers x y w h, came [1, 2, 3]", True),
    ),
    "a box of words": (
        [row(bbox=["a", 2, 3, 4])],
        ("malformed row", 'annotations[0].bbox: expected 4 numbers x y w h, came ["a", 2, 3, 4]', True),
    ),
    "a box with a number too large": (
        [row(bbox=[1, 2, 3, 10**400])],
        ("malformed row", f"annotations[0].bbox: expected 4 numbers x y w h, came [1, 2, 3, 1{'0' * 49}", True),
    ),
    "no box": (
        [{key: value for key, value in row().items() if key != "bbox"}],
        ("malformed row", "annotations[0].bbox: expected 4 numbers x y w h, came null", True),
    ),
    "a box that is not finite": (
        [row(bbox=[1, 2, float("nan"), 4])],
        ("not a number", "annotations[0]: expected finite coordinates, came (1.0, 2.0, nan, 6.0)", True),
    ),
    "a box without an area": (
        [row(bbox=[1, 2, 0, 4])],
        ("degenerate box", "annotations[0]: box (1, 2, 1, 6) has no area; dropped", False),
    ),
    "a box outside": (
        [row(bbox=[50, 2, 4, 4])],
        ("box outside", "annotations[0]: box (50, 2, 54, 6) in a picture of 40x30 lies outside of it; dropped", False),
    ),
    "no category": (
        [row(category_id=None)],
        ("class out of range", "annotations[0].category_id: None is not one of 3, 7", True),
    ),
    "a category that is not listed": (
        [row(category_id=4)],
        ("class out of range", "annotations[0].category_id: 4 is not one of 3, 7", True),
    ),
    "a category that is a list": (
        [row(category_id=[7])],
        ("class out of range", "annotations[0].category_id: [7] is not one of 3, 7", True),
    ),
    "no image": (
        [row(image_id=None)],
        ("malformed row", "annotations[0]: expected an object with an image_id", True),
    ),
    "an image that is not listed": (
        [row(image_id=6), row(id=2, image_id=6)],
        (
            "annotation without image",
            "annotations[0].image_id: there is no image 6; 2 of its annotations left out",
            False,
        ),
    ),
    "an image above 2^63 that is not listed": (
        [row(image_id=2**70)],
        (
            "annotation without image",
            f"annotations[0].image_id: there is no image {2**70}; 1 of its annotations left out",
            False,
        ),
    ),
    "no object": ([7], ("malformed row", "annotations[0]: expected an object with an image_id", True)),
}


@pytest.mark.part("format/coco_instances")
@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_row_is_named_and_the_others_stay(tmp_path: Path, name: str) -> None:
    rows, problem = ROWS[name]
    index = open_index(written(tmp_path, content(annotations=[*rows, GOOD])))
    assert told(index) == [problem]
    assert index.boxes.tolist() == [[20, 10, 25, 15]]
    assert index.labels.tolist() == [1]


MASKS = {
    "a polygon of two points": (
        [[1, 2, 3, 4]],
        "1 polygons have fewer than 3 points; left out, the box stays",
    ),
    "a polygon of words": (
        [["a", 2, 3, 4, 5, 6]],
        "expected a polygon of numbers, came ['a', 2, 3, 4, 5, 6]; left out, the box stays",
    ),
    "a polygon that is not finite": (
        [[1, 2, 3, 4, 5, float("inf")]],
        "expected finite coordinates near a picture of 16384x16384, came [1, 2, 3, 4, 5, inf]; left out, the box stays",
    ),
    "run lengths without a size": (
        {"counts": 3},
        "expected polygons or run lengths; left out, the box stays",
    ),
    "run lengths of another size": (
        {"counts": [0, 12], "size": [3, 4]},
        "expected run lengths of size [30, 40] (height, width), came [3, 4]; left out, the box stays",
    ),
    "run lengths that are too few": (
        {"counts": [0, 12], "size": [30, 40]},
        "expected run lengths that add up to 1200 pixels, came 12; left out, the box stays",
    ),
}


@pytest.mark.part("format/coco_instances")
@pytest.mark.parametrize("name", MASKS)
def test_a_wrong_mask_is_named_and_its_box_stays(tmp_path: Path, name: str) -> None:
    value, message = MASKS[name]
    good = [[1, 2, 11, 2, 11, 14]]
    index = open_index(written(tmp_path, content(annotations=[row(segmentation=value), GOOD | {"segmentation": good}])))
    assert told(index) == [("malformed mask", f"annotations[0].segmentation: {message}", False)]
    assert index.masks == [None, good]
    assert index.boxes.tolist() == [[1, 2, 11, 14], [20, 10, 25, 15]]


IMAGES = {
    "no name": (
        images({"id": 6}),
        ("malformed row", "images[1]: expected an object with id and file_name", True),
    ),
    "no id": (
        images({"file_name": "b.png"}),
        ("malformed row", "images[1]: expected an object with id and file_name", True),
    ),
    "a name with a zero byte": (
        images({"id": 6, "file_name": "b\0.png"}),
        ("malformed row", "images[1].file_name: expected the name of a file, came 'b\\x00.png'", True),
    ),
    "a width that is text": (
        images({"id": 6, "file_name": "a.png", "width": "wide"}),
        ("malformed row", "images[1].width: expected a number of pixels, came 'wide'", True),
    ),
    "a height that is endless": (
        images({"id": 6, "file_name": "a.png", "height": float("inf")}),
        ("malformed row", "images[1].height: expected a number of pixels, came inf", True),
    ),
    "an id twice": (
        images({"id": 5, "file_name": "b.png"}),
        ("duplicate image id", "images[1].id: 5 is the id of another picture, a.png", True),
    ),
    "an entry twice": (
        images({"id": 5, "file_name": "a.png"}),
        ("duplicate image", "images[1].id: 5 is listed again; counted once", False),
    ),
    "a name that leaves the folder": (
        images({"id": 6, "file_name": "../../secret.png"}),
        (
            "malformed row",
            "images[1].file_name: leaves the data set's folder; the option allow_outside lets it",
            True,
        ),
    ),
}


@pytest.mark.part("format/coco_instances")
@pytest.mark.parametrize("name", IMAGES)
def test_a_wrong_image_is_named_and_the_others_stay(tmp_path: Path, name: str) -> None:
    rows, problem = IMAGES[name]
    save(noise(40, 30), tmp_path / "secret.png")
    index = open_index(written(tmp_path / "set", content(images=rows)))
    assert told(index) == [problem]
    assert (index.image_ids, len(index.boxes)) == ([5], 1)


def test_a_name_may_leave_where_that_is_allowed(tmp_path: Path) -> None:
    save(noise(40, 30), tmp_path / "secret.png")
    folder = written(tmp_path / "set", content(images=images({"id": 6, "file_name": "../../secret.png"})))
    index = open_index(folder, options={"allow_outside": True})
    assert not index.problems
    assert index.file(1).samefile(tmp_path / "secret.png")
    inside = open_index(written(tmp_path / "set", content(images=images({"id": 6, "file_name": "../train/a.png"}))))
    assert (len(inside), inside.problems) == (2, ())


FILES = {
    "nothing": (b"", ":1: is not JSON at the start (Expecting value)"),
    "cut": (b'{"images": [{"id": 5', ":1: is not JSON at images[0] (Expecting ',' delimiter)"),
    "cut behind a row": (b'{"images": [{"id": 5}', ":1: is not JSON at images[0] (expected , or ])"),
    "cut inside a row": (
        b'{"images": [],\n"annotations": [{"id": 1},\n{"id": 2, "bb',
        ":3: is not JSON at annotations[1] (Unterminated string starting at)",
    ),
    "a comma too many": (b'{"images": [{"id": 1},]}', ":1: is not JSON at images[1] (Expecting value)"),
    "a comma too few": (
        b'{"images": [\n{"id": 1}\n{"id": 2}]}',
        ":3: is not JSON at images[0] (expected , or ])",
    ),
    "more behind the end": (
        json.dumps(content()).encode() + b"\n{}",
        ":2: is not JSON at the end (more follows after the end)",
    ),
    "no quotes": (b"{images: []}", ":1: is not JSON at the start (expected a key)"),
    "a number": (b"3", ": expected an object with images, annotations and categories, came a int"),
    "a list": (b"[1, 2]", ": expected an object with images, annotations and categories, came a list"),
    "no images": (b'{"annotations": [], "categories": []}', ": images: expected a list, came nothing"),
    "images that are none": (
        b'{"images": null, "annotations": [], "categories": []}',
        ": images: expected a list, came nothing",
    ),
    "annotations that are no list": (
        b'{"images": [], "annotations": {}, "categories": []}',
        ": annotations: expected a list, came dict",
    ),
    "images twice": (b'{"images": [], "images": []}', ": images: comes twice"),
    "not text": (b'{"images": [\n"\xff"]}', ":2: is not UTF-8 text (invalid start byte)"),
    "deep": (b'{"images": ' + b"[" * 200_000, ": is nested too deeply to be COCO"),
    "a number of 5000 digits": (
        b'{"images": [' + b"9" * 5000 + b"]}",
        ":1: is not JSON at images[0] (Exceeds the limit (4300 digits) for integer string conversion",
    ),
    "a category without a name": (
        json.dumps(content(categories=[{"id": 3}])).encode(),
        ": categories[0]: expected a whole number id and a name",
    ),
    "a category twice": (
        json.dumps(content(categories=[{"id": 3, "name": "a"}, {"id": 3, "name": "b"}])).encode(),
        ": categories[1]: id 3 or name 'b' is used twice",
    ),
}


@pytest.mark.part("format/coco_instances")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_coco_is_one_sentence(tmp_path: Path, name: str) -> None:
    raw, message = FILES[name]
    file = written(tmp_path, raw) / "annotations" / "instances_train.json"
    with pytest.raises(DataError) as caught:
        open_index(tmp_path)
    assert str(caught.value).startswith(f"{file}{message}")


def test_a_file_larger_than_asked_for_is_not_read(tmp_path: Path) -> None:
    folder = written(tmp_path, content())
    with pytest.raises(
        DataError, match=r"instances_train\.json: has \d+ bytes, at most 100 are read; raise the option"
    ):
        Coco.read(folder, "train", largest=100)
    assert len(Coco.read(folder, "train", largest=1000)) == 1


def test_a_missing_area_or_crowd_flag_is_said_once(tmp_path: Path) -> None:
    bare = {key: value for key, value in row(bbox=[1, 1, 4, 5]).items() if key not in ("area", "iscrowd")}
    rows = [
        row(id=1),
        bare | {"id": 2},
        row(id=3, bbox=[5, 5, 2, 2], area="large", iscrowd="0"),
        row(id=4, area=-1, bbox=[3, 3, 6, 6]),
    ]
    index = open_index(written(tmp_path, content(annotations=rows)))
    assert index.area.tolist() == [120, 20, 4, 36]
    assert not index.crowd.any()
    assert told(index) == [
        ("missing field", "annotations[1].area: missing in 3 of 4 annotations; its box's is taken", False),
        ("missing field", "annotations[1].iscrowd: missing in 2 of 4 annotations; 0 is taken", False),
    ]


def test_what_is_only_unusual_is_put_right(tmp_path: Path) -> None:
    runs = {"size": [30, 40], "counts": [31, 2, 28, 2, 1137]}
    rows = [
        row(bbox=["1", "2", "10", "12"]),
        row(id=2, bbox=None, segmentation=[[1, 2, 9, 2, 9, 8]], area=48),
        row(id=3, bbox=None, segmentation=runs, area=4),
        row(id=4, image_id=5.0, category_id=3.0, bbox=[1, 1, 3, 3]),
        row(id="five", bbox=[7, 7, 3, 3]),
    ]
    said = content(annotations=rows, images=[{"id": 5, "file_name": "a.png"}])
    del said["info"]
    index = open_index(written(tmp_path, said))
    assert index.problems == ()
    assert index.boxes.tolist() == [[1, 2, 11, 14], [1, 2, 9, 8], [1, 1, 3, 3], [1, 1, 4, 4], [7, 7, 10, 10]]
    assert index.labels.tolist() == [1, 1, 1, 0, 1]
    assert index.sizes.tolist() == [[40, 30]]


def test_ids_may_be_large_or_text(tmp_path: Path) -> None:
    for name in "bcd":
        save(noise(40, 30), tmp_path / "train" / f"{name}.png")
    ids: list[int | str] = [2**33, 2**70, "x-7", -4]
    listed = [{"id": image, "file_name": f"{name}.png"} for image, name in zip(ids, "abcd", strict=True)]
    rows = [row(id=n, image_id=image, bbox=[n, n, 9, 9]) for n, image in enumerate(reversed(ids))]
    index = open_index(written(tmp_path, content(images=listed, annotations=rows)))
    assert index.problems == ()
    assert index.image_ids == ids
    assert index.boxes[:, 0].tolist() == [3, 2, 1, 0]
    assert np.diff(index.offsets).tolist() == [1, 1, 1, 1]


def test_an_id_of_two_annotations_is_named(tmp_path: Path) -> None:
    rows = [row(), row(bbox=[4, 4, 5, 5]), row(id="u", bbox=[5, 5, 5, 5]), row(id="u", bbox=[6, 6, 5, 5])]
    index = open_index(written(tmp_path, content(annotations=rows)))
    assert told(index) == [
        ("duplicate annotation id", "annotations[1].id: 1 is used twice; both rows are kept", False),
        ("duplicate annotation id", "annotations[3].id: u is used twice; both rows are kept", False),
    ]
    assert len(index.boxes) == 4


def test_equal_names_in_two_folders_are_two_pictures(tmp_path: Path) -> None:
    for number, folder in enumerate(("x", "y")):
        save(noise(40, 30 + number), tmp_path / "train" / folder / "a.png")
    listed = [
        {"id": 1, "file_name": "x/a.png"},
        {"id": 2, "file_name": "y\\a.png"},
        {"id": 3, "file_name": "./x//a.png"},
    ]
    rows = [row(id=n, image_id=n, bbox=[n, n, 9, 9]) for n in (2, 1, 3)]
    index = open_index(written(tmp_path, content(images=listed, annotations=rows)))
    assert index.problems == ()
    assert index.paths == ["train/x/a.png", "train/y/a.png", "train/x/a.png"]
    assert index.sizes.tolist() == [[40, 30], [40, 31], [40, 30]]
    assert index.boxes[:, 0].tolist() == [1, 2, 3]

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as reference
from scipy.ndimage import binary_fill_holes

from torso.config import DataError
from torso.data.masks import area_of, box_of, encoded, encoded_each, polygons_of, problem, rasterise, runs_of_text

SIDE = st.integers(1, 40)
BITMAPS = st.tuples(SIDE, SIDE).flatmap(lambda shape: hnp.arrays(np.bool_, shape))
POLYGON = st.lists(st.floats(-30, 70, width=32), min_size=6, max_size=20).map(lambda v: v[: len(v) // 2 * 2])


def compressed(bitmap: np.ndarray) -> dict[str, Any]:
    answer: dict[str, Any] = reference.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return answer


@settings(max_examples=200, deadline=None)
@given(st.lists(POLYGON, min_size=1, max_size=3), SIDE, SIDE)
def test_polygons_set_the_pixels_that_pycocotools_sets(polygons: list[list[float]], width: int, height: int) -> None:
    expected = reference.decode(reference.merge(reference.frPyObjects(polygons, height, width)))
    found = rasterise(polygons, (width, height))
    assert found.dtype == np.bool_
    assert np.array_equal(found, expected)
    assert area_of(polygons, (width, height)) == expected.sum()


@settings(max_examples=200, deadline=None)
@given(BITMAPS)
def test_run_lengths_come_back_as_the_same_pixels(bitmap: np.ndarray) -> None:
    height, width = bitmap.shape
    theirs = compressed(bitmap)
    ours = encoded(bitmap)
    assert ours["size"] == theirs["size"]
    assert runs_of_text(theirs["counts"]) == ours["counts"]
    as_text = {"size": theirs["size"], "counts": theirs["counts"].decode()}
    for mask in (ours, theirs, as_text):
        assert problem(mask, (width, height)) == ""
        assert np.array_equal(rasterise(mask, (width, height)), bitmap)
        assert area_of(mask, (width, height)) == bitmap.sum()
    assert json.loads(json.dumps(ours)) == ours
    assert np.array_equal(reference.decode(reference.frPyObjects(ours, height, width)), bitmap)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 9), st.integers(0, 9)), elements=st.sampled_from([0, 1, 7, 255])))
def test_all_objects_of_a_picture_are_encoded_at_once(numbers: np.ndarray) -> None:
    assert encoded_each(numbers) == {int(n): encoded(numbers == n) for n in np.unique(numbers)}


@settings(max_examples=100, deadline=None)
@given(BITMAPS)
def test_the_box_is_the_one_around_the_pixels(bitmap: np.ndarray) -> None:
    x, y, width, height = reference.toBbox(compressed(bitmap))
    expected = (x, y, x + width, y + height) if bitmap.any() else (0, 0, 0, 0)
    assert box_of(bitmap) == expected


@settings(max_examples=200, deadline=None)
@given(BITMAPS)
def test_outlines_lose_nothing_but_holes(bitmap: np.ndarray) -> None:
    height, width = bitmap.shape
    assert np.array_equal(rasterise(polygons_of(bitmap), (width, height)), binary_fill_holes(bitmap))


def test_a_rectangle_has_four_corners() -> None:
    bitmap = np.zeros((20, 30), bool)
    bitmap[3:10, 4:21] = True
    (polygon,) = polygons_of(bitmap)
    corners = {(polygon[at], polygon[at + 1]) for at in range(0, len(polygon), 2)}
    assert corners == {(4, 3), (21, 3), (21, 10), (4, 10)}


def test_every_nucleus_has_its_stored_area(shared_data: Path) -> None:
    count = 0
    for split in ("train", "val"):
        content = json.loads((shared_data / "dsb2018" / "annotations" / f"instances_{split}.json").read_bytes())
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        for row in content["annotations"]:
            size = sizes[row["image_id"]]
            bitmap = rasterise(row["segmentation"], size)
            assert bitmap.sum() == row["area"] == area_of(row["segmentation"], size)
            x0, y0, x1, y1 = box_of(bitmap)
            assert [x0, y0, x1 - x0, y1 - y0] == row["bbox"]
            count += 1
    assert count == 7069


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "expected a mask, came none"),
        ([[0.0, 0, 5, 5]], "three points or more .* came 4 numbers"),
        ([[0.0, 0, 5, 5, 1, 1, 2]], "came 7 numbers"),
        ([5], "list of polygons"),
        ([[0, 0, 5, 5, "x", 1]], "polygon of numbers"),
        ([[0, 0, float("nan"), 5, 5, 5]], "finite coordinates near a picture of 4x3"),
        ([[0, 0, 1e9, 5, 5, 5]], "finite coordinates"),
        ([[1e9, 1e9, 1e9 + 1, 1e9, 1e9, 1e9 + 1]], "finite coordinates"),
        ({"size": [4, 3], "counts": [12]}, r"size \[3, 4\] \(height, width\), came \[4, 3\]"),
        ({"size": 12, "counts": [12]}, "size"),
        ({"size": [3, 4], "counts": [5, 6]}, "add up to 12 pixels, came 11"),
        ({"size": [3, 4], "counts": [13, -1]}, "add up to 12"),
        ({"size": [3, 4], "counts": [2**63 - 1, 2**63 - 1, 14]}, "add up to 12"),
        ({"size": [3, 4], "counts": [1.5, 10.5]}, "whole numbers"),
        ({"size": [3, 4], "counts": ["a"]}, "whole numbers"),
        ({"size": [3, 4], "counts": [[12]]}, "whole numbers"),
        ({"size": [3, 4], "counts": "\x00"}, "came text that is none"),
        ({"size": [3, 4], "counts": "o" * 20}, "came text that is none"),
        ({"size": [3, 4], "counts": "P"}, "came text that is none"),
        ({"size": [3, 4]}, "add up to 12"),
    ],
)
def test_what_is_no_mask_is_said(mask: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rasterise(mask, (4, 3))
    with pytest.raises(DataError, match=message):
        area_of(mask, (4, 3))
    assert f"mask: {problem(mask, (4, 3))}" != "mask: "


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=30))
def test_text_that_is_no_mask_never_ends_in_anything_else(text: bytes) -> None:
    mask = {"size": [3, 4], "counts": text}
    if problem(mask, (4, 3)):
        with pytest.raises(DataError):
            rasterise(mask, (4, 3))
    else:
        assert np.array_equal(rasterise(mask, (4, 3)), reference.decode(mask))


def test_no_polygons_are_no_pixels() -> None:
    assert area_of([], (4, 3)) == 0
    assert not rasterise([], (4, 3)).any()

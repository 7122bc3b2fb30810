"""The stream gives what ``json.loads`` gives, wherever its window happens to be cut."""

from __future__ import annotations

import gc
import json
import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.unit.data.coco_files import content, row, written
from torso.config import DataError
from torso.data import open_index
from torso.data.formats import coco_json
from torso.data.formats.coco_json import Kept, stream
from torso.data.formats.coco_numbers import numbers

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
ROWS = st.lists(
    st.dictionaries(st.sampled_from(["id", "bbox", "naïve", 'a"},{"id']), VALUES, max_size=4) | VALUES, max_size=9
)
SPACING = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}])
TINY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def streamed(file: Path, *keys: str) -> dict[str, list[Any]]:
    found = {key: Kept() for key in keys}
    stream(file, found)
    return {key: kept.found for key, kept in found.items()}


@TINY
@given(images=ROWS, annotations=ROWS, others=VALUES, spacing=SPACING, window=st.integers(1, 200))
def test_any_json_is_streamed_as_it_is_loaded(
    tmp_path: Path, images: Any, annotations: Any, others: Any, spacing: dict[str, Any], window: int
) -> None:
    said = {"info": others, "images": images, "lists": [others, others], "annotations": annotations}
    file = tmp_path / "a.json"
    file.write_bytes(json.dumps(said, **spacing).encode("utf-8", "surrogatepass"))
    try:
        expected = json.loads(file.read_bytes())
    except UnicodeDecodeError:  # half of a surrogate pair
        with pytest.raises(DataError, match="is not UTF-8 text"):
            streamed(file, "images", "annotations")
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_json, "_CHUNK", window)
        found = streamed(file, "images", "annotations")
    assert found == {key: expected[key] for key in found}


@TINY
@given(cut=st.integers(0, 400), byte=st.integers(0, 255), window=st.integers(1, 200))
def test_what_the_stream_takes_is_json(tmp_path: Path, cut: int, byte: int, window: int) -> None:
    """One byte is changed: the stream refuses exactly what is none any more."""
    raw = bytearray(json.dumps(content(annotations=[row(id=n) for n in range(3)])).encode())
    raw[cut % len(raw)] = byte
    file = tmp_path / "a.json"
    file.write_bytes(raw)
    try:
        expected = json.loads(bytes(raw).decode("utf-8"))
    except ValueError:
        expected = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_json, "_CHUNK", window)
        if not isinstance(expected, dict) or not expected.keys() >= {"images", "annotations"}:
            with pytest.raises(DataError):
                streamed(file, "images", "annotations")
        else:
            found = streamed(file, "images", "annotations")
            assert found == {key: expected[key] for key in found}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-le"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    said = content(categories=[{"id": 7, "name": "café"}])
    index = open_index(written(tmp_path, json.dumps(said, ensure_ascii=False).encode(encoding)))
    assert index.classes == ("café",)


def test_the_order_of_keys_is_free(tmp_path: Path) -> None:
    said = content()
    turned = open_index(written(tmp_path, {key: said[key] for key in reversed(said)}))
    assert turned.fingerprint == open_index(written(tmp_path, said)).fingerprint


def test_the_collector_is_as_it_was(tmp_path: Path) -> None:
    assert gc.isenabled()
    with pytest.raises(DataError):
        open_index(written(tmp_path, b'{"images": [{'))
    assert gc.isenabled()


NUMBERS = st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15, allow_nan=False).map(
    lambda x: math.copysign(round(abs(x), 3), x)
)


@TINY
@given(
    rows=st.lists(st.tuples(NUMBERS, NUMBERS, st.tuples(NUMBERS, NUMBERS), NUMBERS), min_size=1, max_size=20),
    spacing=SPACING,
)
def test_numbers_are_those_that_json_reads(rows: list[Any], spacing: dict[str, Any]) -> None:
    said = [{"id": a, "area": b, "bbox": list(c), "empty": [], "last": d} for a, b, c, d in rows]
    text = json.dumps(said, **spacing).strip()[1:-1].strip()
    found = numbers(text.encode())
    if "e" in text.replace("area", "").replace("empty", ""):
        assert found is None  # an exponent
        return
    assert found is not None
    slots, values = found
    assert slots == {
        "id": slice(0, 1), "area": slice(1, 2), "bbox": slice(2, 4), "empty": slice(4, 4), "last": slice(4, 5)
    }  # fmt: skip
    assert np.array_equal(values, [[a, b, *c, d] for a, b, c, d in rows])


@pytest.mark.parametrize(
    "second",
    [
        '{"id": 1, "bbox": [1, 2], "a": 1}',  # another key
        '{"id": 1, "bbox": [1, 2, 3]}',  # a number more
        '{"id": 1, "bbox": [1, ]}',  # a gap
        '{"id": , "bbox": [1, 2]}',
        '{"id": 1, "bbox": [1, -]}',
        '{"id": 1, "bbox": [1.2.3, 2]}',
        '{"id": 1-1, "bbox": [, 2]}',  # as many numbers, but not in their places
        '{"id3": , "bbox": [1, 2]}',
        '{"id3": 1, "bbox": [, 2]}',
        '{"id": "1", "bbox": [1, 2]}',
        '{"id": 1, "bbox": [1e3, 2]}',
        '{"id": null, "bbox": [1, 2]}',
        '{"id":  1, "bbox": [1, 2]}',  # other spaces
        '{"bbox": [1, 2], "id": 1}',  # another order
    ],
)
def test_rows_that_are_not_alike_are_left_to_the_decoder(second: str) -> None:
    first = '{"id": 7, "bbox": [3.5, 4]}'
    for texts in ([first, second], [second, first], [first, second, first]):
        assert numbers(", ".join(texts).encode()) is None
    if second != '{"id":  1, "bbox": [1, 2]}':
        assert numbers(",".join((first, second)).replace(" ", "").encode()) is None


@pytest.mark.parametrize("window", [64, 300, 1 << 21])
def test_rows_taken_as_numbers_and_as_objects_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    draw = np.random.default_rng(0)
    corners, sides = draw.uniform(0, 15, (60, 2)).round(2).tolist(), draw.uniform(0.5, 15, (60, 2)).round(2).tolist()
    rows = [
        row(id=n, category_id=(3, 7)[n % 2], bbox=[*corners[n], *sides[n]], area=n / 7, iscrowd=int(n % 5 == 0))
        for n in range(60)
    ]
    monkeypatch.setattr(coco_json, "_CHUNK", window)
    plain = open_index(written(tmp_path / "one", content(annotations=rows)))
    named = open_index(written(tmp_path / "two", content(annotations=[row | {"note": "x"} for row in rows])))
    assert plain.problems == named.problems == ()
    assert plain.fingerprint == named.fingerprint
    assert np.array_equal(plain.area, named.area)
    assert plain.area.tolist() == [row["area"] for row in rows]
    assert plain.boxes[:, :2].tolist() == corners
    assert plain.crowd.tolist() == [row["iscrowd"] == 1 for row in rows]


@pytest.mark.parametrize("large", [6, 2**53 + 1])  # the first whole number that floating point rounds
def test_ids_that_numbers_cannot_hold_are_read_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(coco_json, "_CHUNK", 300)  # so that several rows are taken at once
    images = [large, 5.5, large, 5.0, *[5] * 30]
    rows = [row(id=n, bbox=[n, 1, 5, 5], image_id=image) for n, image in enumerate(images)]
    said = content(images=[{"id": large, "file_name": "a.png"}, {"id": 5, "file_name": "./a.png"}], annotations=rows)
    index = open_index(written(tmp_path, said))
    assert (index.image_ids, index.offsets.tolist()) == ([large, 5], [0, 2, 33])
    assert index.boxes[:, 0].tolist() == [0, *range(2, 34)]
    (problem,) = index.problems
    assert problem.message == "annotations[1]: expected an object with an image_id"

"""From VOC to COCO to YOLO and back in every order: nothing moves, and what is lost is what the report says."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from torso.data import Index, open_index
from torso.data.builder import Builder, Object
from torso.data.convert import Report, convert
from torso.data.formats import FORMATS

SIZES = [(1, 1), (7, 5), (33, 400), (640, 480), (4000, 3000)]
CLASSES = ("cat", "Ärger & <b>", "no", "7")
IDS = (3, 7, 8, 90)
# What is known of the formats, said here a second time and in other words than the code's.
FLAGS = {
    "voc": {"difficult", "truncated", "occluded"},
    "coco": {"difficult", "crowd"},
    "yolo": set(),
}
ROUTES = [*permutations(FLAGS, 2), *permutations(FLAGS, 3)]


@dataclass(frozen=True)
class Thing:
    """One object as a test draws it."""

    box: tuple[float, float, float, float]
    label: int
    flags: frozenset[str]
    polygon: tuple[float, ...] = ()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate(SIZES):
        Image.new("L", size, 40 * number).save(folder / f"picture {number}.png")
    return folder


@st.composite
def things(draw: st.DrawFn, size: tuple[int, int], flags: set[str]) -> list[Thing]:
    """Up to five different objects on a picture, down to a hundredth of a pixel, some on its edges."""
    found = []
    for _ in range(draw(st.integers(0, 5))):
        sides = []
        for length in size:
            low = draw(st.floats(0, length - 0.01) | st.just(0.0))
            sides.append((low, draw(st.floats(low + 0.01, length) | st.just(float(length)))))
        (x0, x1), (y0, y1) = sides
        said = draw(st.sets(st.sampled_from(sorted(flags)))) if flags else set()
        found.append(Thing((x0, y0, x1, y1), draw(st.integers(0, 3)), frozenset(said)))
    # The same box twice is a fault of its own, and counted once.
    return list({(tuple(np.round(one.box, 3)), one.label): one for one in found}.values())


def index_of(folder: Path, rows: list[tuple[int, list[Thing]]]) -> Index:
    builder = Builder(folder, CLASSES, IDS)
    for number, (which, objects) in enumerate(rows):
        path = folder / f"picture {which}.png"
        builder.image(path, SIZES[which], 1000 - number)
        flagged = [
            Object(
                one.box, one.label, mask=[list(one.polygon)] if one.polygon else None, **dict.fromkeys(one.flags, True)
            )
            for one in objects
        ]
        builder.objects(flagged, path)
    return builder.finish()


def said(index: Index) -> dict[str, list[tuple[str, tuple[float, ...], frozenset[str]]]]:
    """Names, boxes and flags of the objects of each picture, in order."""
    names = ("difficult", "crowd", "truncated", "occluded")
    found = {}
    for row in range(len(index)):
        at = index.objects(row)
        flags = [
            frozenset(name for name in names if getattr(index, name) is not None and getattr(index, name)[k])
            for k in range(at.start, at.stop)
        ]
        boxes = [tuple(box) for box in index.boxes[at].tolist()]
        labels = [index.classes[label] for label in index.labels[at]]
        found[Path(index.paths[row]).stem] = list(zip(labels, boxes, flags, strict=True))
    return found


def check_same(before: Index, after: Index, through: list[str]) -> None:
    """Every object that all formats on the way can hold is there, in its order, at its place, with its flags."""
    kept = set.intersection(*({*FLAGS[name]} for name in through))
    expected, came = said(before), said(after)
    assert came.keys() == expected.keys()
    unseen = {"difficult", "crowd"} if "yolo" in through else set()  # which has no place for what counts neither way
    for stem, drawn in expected.items():
        objects = [one for one in drawn if not one[2] & unseen]
        assert [one[0] for one in came[stem]] == [one[0] for one in objects]
        for (_, box, flags), (_, other, others) in zip(objects, came[stem], strict=True):
            assert np.abs(np.subtract(box, other)).max() <= 1e-6
            assert others == flags & kept
    # Who draws only classes above 0 is asked whether they meant to.
    assert {problem.kind for problem in after.problems} <= {"class ids from 1"}


@pytest.mark.part("format/convert")
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_boxes_names_and_flags_come_back(pictures: Path, route: tuple[str, ...]) -> None:
    @given(st.data())
    @settings(max_examples=12, deadline=None)
    def travel(data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(range(5)), min_size=1, max_size=3, unique=True))
        flags = FLAGS[route[0]] - {"crowd"}
        rows = [(which, data.draw(things(SIZES[which], flags))) for which in chosen]
        before = index_of(pictures, rows)
        with tempfile.TemporaryDirectory() as place:
            FORMATS[route[0]].write(before, Path(place) / "0", "train")
            # There and back again, so that three formats are a circle.
            for step, name in enumerate([*route[1:], route[0]], 1):
                report = convert(Path(place) / str(step - 1), Path(place) / str(step), name, format=None)
                assert report.max_difference <= 1e-6
            check_same(before, open_index(Path(place) / str(len(route))), list(route))

    travel()


@pytest.mark.part("format/convert")
@given(data=st.data(), to=st.sampled_from(["voc", "yolo"]))
@settings(max_examples=40, deadline=None)
def test_the_report_counts_exactly_what_is_lost(pictures: Path, data: st.DataObject, to: str) -> None:
    rows = [(which, data.draw(things(SIZES[which], {"crowd", "difficult"}))) for which in (1, 3)]
    before = index_of(pictures, rows)
    with tempfile.TemporaryDirectory() as place:
        FORMATS["coco"].write(before, Path(place) / "coco", "train")
        report = convert(Path(place) / "coco", Path(place) / "other", to)
    lost = {loss.what: loss.count for loss in report.losses}
    expected: Counter[str] = Counter({"image ids": 2, "class ids": 4})
    if to == "voc":  # crowds become difficult
        expected["crowd"] = int(before.crowd.sum())
        expected["not difficult"] = int((before.crowd & ~before.difficult).sum())
    else:
        expected["objects"] = int((before.crowd | before.difficult).sum())
        expected["objects that are crowd"] = int(before.crowd.sum())
        expected["objects that are difficult"] = int(before.difficult.sum())
    assert lost == dict(+expected)


def triangle(box: tuple[float, float, float, float]) -> tuple[float, ...]:
    x0, y0, x1, y1 = box
    return (x0, y0, x1, y0, (x0 + x1) / 2, y1)


@pytest.mark.part("format/convert")
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_polygons_travel_between_coco_and_yolo(pictures: Path, data: st.DataObject) -> None:
    drawn = data.draw(things(SIZES[3], set()))
    rows = [(3, [Thing(one.box, one.label, one.flags, triangle(one.box)) for one in drawn])]
    before = index_of(pictures, rows)
    with tempfile.TemporaryDirectory() as place:
        FORMATS["coco"].write(before, Path(place) / "coco", "train")
        for source, to in (("coco", "yolo"), ("yolo", "again")):
            report = convert(Path(place) / source, Path(place) / to, "yolo" if to == "yolo" else "coco")
            assert not {"masks", "boxes", "objects"} & {loss.what for loss in report.losses}
        after = open_index(Path(place) / "again")
    assert len(after.labels) == len(before.labels)
    for mask, other in zip(before.masks or [], after.masks or [], strict=True):
        assert np.abs(np.subtract(mask, other)).max() <= 1e-6


# ---------------------------------------------------------------- real data


def state(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kinds_of(report: Report) -> set[str]:
    return {loss.what for loss in report.losses}


@pytest.mark.part("format/convert")
def test_the_three_forms_of_the_blood_cells_are_one(shared_data: Path, tmp_path: Path) -> None:
    before = state(shared_data / "bccd_yolo")
    forms = {
        "voc": open_index(shared_data / "bccd", "val"),
        "coco": open_index(shared_data / "bccd", "val", format="coco"),
        "yolo": open_index(shared_data / "bccd_yolo", "val"),
    }
    # Each of them, read, written in the other forms and read again, is one and the same index.
    for name in ("voc", "coco", "yolo"):
        source = shared_data / ("bccd_yolo" if name == "yolo" else "bccd")
        for to in {"voc", "coco", "yolo"} - {name}:
            folder = tmp_path / f"{name}-{to}"
            report = convert(source, folder, to, format=name, splits=["val"], link=True)
            assert report.max_difference < 1e-9
            assert not {"boxes", "objects", "classes", "pictures", "not difficult"} & kinds_of(report)
            forms[f"{name} as {to}"] = open_index(folder, "val", format=to)
    few = said(forms["yolo"])
    for name, index in forms.items():
        for stem, objects in said(index).items():
            if stem not in few:
                assert "yolo" not in name.split()[0]
                continue
            ours, theirs = (sorted((label, *box) for label, box, _ in some) for some in (objects, few[stem]))
            ours, theirs = (sorted(some, key=lambda row: (row[0], *np.round(row[1:]))) for some in (ours, theirs))
            assert [row[0] for row in ours] == [row[0] for row in theirs], (name, stem)
            assert np.abs(np.subtract([row[1:] for row in ours], [row[1:] for row in theirs])).max() <= 0.01
    assert state(shared_data / "bccd_yolo") == before


@pytest.mark.part("format/convert")
def test_nuclei_come_back_from_voc_pixel_by_pixel(shared_data: Path, tmp_path: Path) -> None:
    there = convert(shared_data / "dsb2018", tmp_path / "voc", "voc", splits=["val"], link=True)
    assert not {"masks", "pixels of masks", "boxes"} & kinds_of(there)
    assert there.notes == ["masks are read with the split Segmentation/val"]
    convert(tmp_path / "voc", tmp_path / "coco", "coco", splits=["Segmentation/val"], link=True)
    before, after = open_index(shared_data / "dsb2018", "val"), open_index(tmp_path / "coco", "val")
    assert np.array_equal(before.area, after.area)
    assert np.array_equal(before.boxes, after.boxes)


@pytest.mark.part("format/convert")
def test_nuclei_in_yolo_lose_the_masks_in_several_parts(shared_data: Path, tmp_path: Path) -> None:
    source = open_index(shared_data / "dsb2018", "val")
    report = convert(shared_data / "dsb2018", tmp_path / "yolo", "yolo", splits=["val"], link=True)
    lost = {loss.what: loss.count for loss in report.losses}
    several = sum(isinstance(mask, dict) or len(mask or []) != 1 for mask in source.masks or [])
    assert lost["masks"] == several
    assert "pixels of masks" not in lost

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import VOCDetection

from torso.config import DataError
from torso.data.formats.voc_xml import MAX_XML, VocObject, VocPage, box_of, read_page, sides_of, write_page

TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
NUMBER = st.floats(0, 5000).map(lambda value: f"{value:.12g}")
OBJECTS = st.builds(
    VocObject,
    name=TEXT,
    sides=st.tuples(NUMBER, NUMBER, NUMBER, NUMBER),
    pose=st.sampled_from(["", "Left", "Frontal", "très <oblique> & co"]),
    truncated=st.booleans(),
    difficult=st.booleans(),
    occluded=st.booleans(),
    parts=st.just(0),
    line=st.just(1),
)
SIDE = st.integers(0, 10**6)


@pytest.mark.part("format/voc_xml")
@given(TEXT, st.tuples(SIDE, SIDE), st.booleans(), st.lists(OBJECTS, max_size=4))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    size: tuple[int, int],
    segmented: bool,
    objects: list[VocObject],
) -> None:
    file = tmp_path_factory.getbasetemp() / "page.xml"
    page = VocPage(file, name, size, segmented, tuple(objects))
    text = write_page(page)
    file.write_text(text, encoding="utf-8")
    again = read_page(file)
    assert again._replace(objects=()) == page._replace(objects=())
    assert [item._replace(line=1) for item in again.objects] == objects
    assert [text.splitlines()[item.line - 1].strip() for item in again.objects] == ["<object>"] * len(objects)


def test_others_read_the_same_file(tmp_path: Path) -> None:
    item = VocObject("dog & cat", ("1", "2.5", "30", "40"), "Left", truncated=True, difficult=False, occluded=True)
    page = VocPage(tmp_path, "a.jpg", (40, 50), True, (item, item._replace(name="x", pose="")))
    said = VOCDetection.parse_voc_xml(ET.fromstring(write_page(page)))["annotation"]
    assert said["filename"] == "a.jpg"
    assert said["size"] == {"width": "40", "height": "50", "depth": "3"}
    assert said["segmented"] == "1"
    assert said["object"][0] == {
        "name": "dog & cat",
        "pose": "Left",
        "truncated": "1",
        "occluded": "1",
        "difficult": "0",
        "bndbox": {"xmin": "1", "ymin": "2.5", "xmax": "30", "ymax": "40"},
    }
    assert said["object"][1]["pose"] == "Unspecified"


@pytest.mark.part("format/voc_xml")
def test_a_file_of_the_development_kit_is_read_whole(shared_data: Path) -> None:
    file = shared_data / "format_fixtures/voc_dataset/voc_dataset1/Annotations/2007_000001.xml"
    assert read_page(file) == VocPage(
        file,
        "2007_000001.jpg",
        (20, 10),
        True,
        (
            VocObject("cat", ("1", "2", "3", "4"), truncated=True, line=11),
            VocObject("person", ("4", "5", "6", "7"), parts=1, line=23),
        ),
    )


BOX = st.tuples(*[st.floats(0, 4000)] * 2, *[st.floats(1e-3, 3000)] * 2).map(
    lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3])
)


@given(BOX, st.sampled_from([0, 1]))
def test_boxes_come_back_to_a_millionth_even_those_narrower_than_a_pixel(
    box: tuple[float, float, float, float], offset: int
) -> None:
    again = box_of(sides_of(box, offset), offset)
    assert again == pytest.approx(box, abs=1e-6)
    assert again[2] > again[0]
    assert again[3] > again[1]


@pytest.mark.parametrize(
    ("sides", "offset", "box"),
    [
        (("1", "1", "40", "30"), 1, (0, 0, 40, 30)),  # a whole picture of 40 x 30
        (("69", "172", "270", "330"), 1, (68, 171, 270, 330)),
        (("0", "0", "40", "30"), 0, (0, 0, 40, 30)),
        (("5", "5", "5", "9"), 1, (5, 5, 5, 9)),  # a slip: no area, as the file says it
        (("9", "5", "5", "8"), 1, (9, 5, 5, 8)),
        (("5.0", "5", "5", "9"), 1, (4, 4, 5, 9)),
        (("5", "5.6", "9", "5.2"), 1, (4, pytest.approx(4.6), 9, 5.2)),
    ],
)
def test_numbers_mean_boxes(sides: tuple[str, str, str, str], offset: int, box: tuple[float, ...]) -> None:
    assert box_of(sides, offset) == box


def test_odd_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    file.write_text(
        """\ufeff<annotation><!-- <object> --><filename> a.jpg </filename>
<size><width>0</width><height>x</height></size>
<object><name> the dog
</name><pose>unspecified</pose><truncated>Unspecified</truncated><difficult>True</difficult>
<occluded>1</occluded><part><name>head</name></part><name>other</name></object></annotation>""",
        encoding="utf-8",
    )
    page = read_page(file)
    item = VocObject("the dog", ("", "", "", ""), difficult=True, occluded=True, parts=1)
    assert page == VocPage(file, "a.jpg", objects=(item,))


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b'<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', "has a DOCTYPE"),
        (b"<!DOCTYPE annotation><annotation/>", "has a DOCTYPE"),
        (b"<annotation>", "is not XML"),
        (b"", "is not XML"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "is not XML"),
        (b" " * (MAX_XML + 1), "larger than 16 MiB"),
        ("<annotation/>".encode("utf-16"), "expected UTF-8"),
    ],
)
def test_what_is_not_read_says_why(tmp_path: Path, content: bytes, wrong: str) -> None:
    (tmp_path / "a.xml").write_bytes(content)
    assert wrong in read_page(tmp_path / "a.xml").wrong


@pytest.mark.parametrize("name", ["a\x01b", "a\nb", " a"])
def test_names_that_xml_would_change_are_refused(name: str) -> None:
    item = VocObject(name, ("1", "1", "2", "2"))
    with pytest.raises(DataError, match=r"a\.jpg.* has characters that XML does not keep"):
        write_page(VocPage(Path("x"), "a.jpg", (1, 1), False, (item,)))

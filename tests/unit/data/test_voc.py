from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import VOCDetection

from tests.unit.data.pictures import noise, save, small_index
from tests.unit.data.test_voc_lists import year
from torso.config import DataError
from torso.data import Index, open_index
from torso.data.builder import Builder, Object
from torso.data.formats import FORMATS

VOC = FORMATS["voc"]
BOX = st.tuples(st.floats(0, 30), st.floats(0, 20), st.floats(0.01, 30), st.floats(0.01, 20)).map(
    lambda v: (v[0], v[1], min(v[0] + v[2], 40.0), min(v[1] + v[3], 30.0))
)
OBJECTS = st.builds(
    Object,
    box=BOX,
    label=st.integers(0, 2),
    difficult=st.booleans(),
    truncated=st.booleans(),
    occluded=st.booleans(),
    pose=st.sampled_from(["", "Left", "Rear"]),
)


def index_of(folder: Path, rows: list[Object]) -> Index:
    builder = Builder(folder, ("b", "c", "a & d"))
    builder.image(save(noise(40, 30), folder / "a.png"), (40, 30), 1)
    builder.objects(rows, folder)
    return builder.finish()


@pytest.mark.part("format/voc", "format/voc2012", "format/voc_xml")
@settings(max_examples=60, deadline=None)
@given(st.lists(OBJECTS, max_size=4, unique_by=lambda row: row.box))
def test_boxes_flags_poses_and_classes_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Object]) -> None:
    folder = tmp_path_factory.getbasetemp() / "voc"
    index = index_of(folder / "source", rows)
    VOC.write(index, folder / "out", "train")
    again = open_index(folder / "out", "train")
    assert not again.problems
    assert again.classes == index.classes
    assert np.abs(again.boxes - index.boxes).max(initial=0) <= 1e-6
    for name in ("labels", "difficult", "truncated", "occluded", "poses", "sizes"):
        assert np.array_equal(getattr(again, name), getattr(index, name)), name


@pytest.mark.part("format/voc", "format/voc2012")
def test_torchvision_reads_what_is_written(tmp_path: Path) -> None:
    index = small_index(tmp_path / "source")
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    VOC.write(index, folder, "train")
    (folder / "JPEGImages").rename(folder / "png")
    for file in (folder / "png").iterdir():  # torchvision knows .jpg only, and Pillow tells a file by its content
        save(noise(48, 32), folder / "JPEGImages" / f"{file.stem}.jpg")
    peer = VOCDetection(str(tmp_path), year="2012", image_set="train")
    assert len(peer) == len(index) == 10
    for row in range(10):
        said = peer[row][1]["annotation"]
        found = [[float(item["bndbox"][key]) for key in ("xmin", "ymin", "xmax", "ymax")] for item in said["object"]]
        boxes = np.array(found).reshape(-1, 4) - [1, 1, 0, 0]
        assert np.allclose(boxes, index.boxes[index.objects(row)])
        assert [item["difficult"] == "1" for item in said["object"]] == index.difficult[index.objects(row)].tolist()


@pytest.mark.part("format/voc")
def test_torchvision_and_torso_read_the_same_real_files(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit" / "VOC2007").symlink_to(shared_data / "bccd")
    index = open_index(tmp_path, "2007_val", format="voc")
    peer = VOCDetection(str(tmp_path), year="2007", image_set="val")
    assert len(peer) == len(index) == 87
    for row in range(len(index)):
        with Path(peer.annotations[row]).open() as file:
            assert file.name.endswith(f"{Path(index.paths[row]).stem}.xml")
        said = peer[row][1]["annotation"]["object"]
        here = index.objects(row)
        named = [index.classes[label] for label in index.labels[here]]
        boxes = [[float(one["bndbox"][key]) for key in ("xmin", "ymin", "xmax", "ymax")] for one in said]
        expected = [
            (one["name"], [a - 1, b - 1, c, d])
            for one, (a, b, c, d) in zip(said, boxes, strict=True)
            if a < c and b < d
        ]
        assert list(zip(named, index.boxes[here].tolist(), strict=True)) == expected


@pytest.mark.part("format/voc")
def test_files_that_count_from_zero_are_read_by_an_option(tmp_path: Path) -> None:
    year(tmp_path, {"Main/train": "a\n"}, "a")
    assert open_index(tmp_path).boxes.tolist() == [[0, 0, 5, 5]]
    assert open_index(tmp_path, options={"offset": 0}).boxes.tolist() == [[1, 1, 5, 5]]
    with pytest.raises(DataError, match="no such option; did you mean 'offset'"):
        open_index(tmp_path, options={"ofset": 0})


def test_parts_are_counted_once_and_left_out(tmp_path: Path) -> None:
    year(tmp_path, {"Main/train": "a\nb\n"}, "ab")
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    for stem in "ab":
        file = tmp_path / "Annotations" / f"{stem}.xml"
        file.write_text(file.read_text().replace("</bndbox>", f"</bndbox>{part}"))
    index = open_index(tmp_path)
    assert index.boxes.tolist() == [[0, 0, 5, 5]] * 2
    (problem,) = index.problems
    assert (problem.kind, problem.fatal) == ("ignored", False)
    assert problem.message == "boxes of parts (head, hand, foot) are not read; 2 in all files"


def test_lists_of_all_twenty_classes_make_the_classes_of_voc(tmp_path: Path) -> None:
    """Then only the pages of the split are opened: another one may be broken."""
    from torso.data.formats.voc_lists import VOC_CLASSES

    lists = {f"Main/{name}_train": "a 1\n" for name in VOC_CLASSES} | {"Main/train": "a\n"}
    year(tmp_path, lists, "ab")
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation>")
    index = open_index(tmp_path)
    assert index.classes == VOC_CLASSES
    assert index.labels.tolist() == [VOC_CLASSES.index("cat")]
    year(tmp_path, {}, "a", "unicorn")
    with pytest.raises(DataError, match="class 'unicorn' is not one of aeroplane"):
        open_index(tmp_path).raise_if_fatal()


def test_the_classes_of_the_training_split_win(tmp_path: Path) -> None:
    year(tmp_path, {"Main/train": "a\n"}, "a")
    assert open_index(tmp_path, classes=("dog", "cat")).labels.tolist() == [1]


def test_a_missing_picture_and_a_missing_page_are_named(tmp_path: Path) -> None:
    year(tmp_path, {"Main/train": "a\nb\nc\nx\n"}, "abc")
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    index = open_index(tmp_path)
    assert [(p.kind, p.path) for p in index.problems] == [
        ("missing image", "JPEGImages/a.jpg"),
        ("missing label file", "Annotations/x.xml"),
    ]
    assert len(index) == 2


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "../../a.jpg", "C:\\photos\\a.jpg", "b.png", "", "&#8;"])
def test_whatever_the_xml_calls_it_the_picture_is_found_by_the_name_of_the_file(tmp_path: Path, name: str) -> None:
    year(tmp_path, {"Main/train": "a\n"}, "ab")
    file = tmp_path / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("a.jpg", name))
    if name != "&#8;":
        assert open_index(tmp_path).paths == ["JPEGImages/a.jpg"]
        (tmp_path / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"missing or cannot be read|is not XML"):
        open_index(tmp_path).raise_if_fatal()


def test_a_folder_called_like_a_page_is_a_damaged_page(tmp_path: Path) -> None:
    year(tmp_path, {"Main/train": "a\nb\n"}, "a")
    (tmp_path / "Annotations" / "b.xml").mkdir()
    (problem,) = open_index(tmp_path).problems
    assert (problem.kind, problem.path, problem.fatal) == ("malformed file", "Annotations/b.xml", True)

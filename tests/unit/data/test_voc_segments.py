from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCSegmentation

from tests.unit.data.pictures import noise, save, small_index
from torso.config import DataError
from torso.data import Index, open_index
from torso.data.builder import Builder, Object
from torso.data.formats import FORMATS
from torso.data.formats.opening import recognise
from torso.data.formats.voc_instances import instances
from torso.data.formats.voc_lists import voc_classes
from torso.data.formats.voc_segments import read_label_map
from torso.data.index import joined
from torso.data.masks import encoded, rasterise
from torso.data.palette import Legend, voc_colormap, write_numbers

SEGMENTS, VOC = FORMATS["voc_segmentation"], FORMATS["voc"]
CAT, DOG = voc_classes(background=True).index("cat"), voc_classes(background=True).index("dog")
# Two cats and a dog, borders between them.
OBJECTS = np.array([[0, 1, 1, 255, 2, 2], [0, 1, 1, 255, 2, 2], [0, 255, 255, 255, 255, 255], [0, 3, 3, 3, 3, 0]])
CLASSES = np.array([[0, 8, 8, 255, 8, 8], [0, 8, 8, 255, 8, 8], [0, 255, 255, 255, 255, 255], [0, 12, 12, 12, 12, 0]])
XML = """<annotation><filename>a.jpg</filename><size><width>6</width><height>4</height></size>
<object><name>cat</name><difficult>1</difficult><pose>Left</pose>
<bndbox><xmin>2</xmin><ymin>1</ymin><xmax>3</xmax><ymax>2</ymax></bndbox></object>
<object><name>cat</name><bndbox><xmin>5</xmin><ymin>1</ymin><xmax>6</xmax><ymax>2</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>5</xmax><ymax>4</ymax></bndbox></object>
</annotation>"""


def year(root: Path, *, xml: bool = True, colored: bool = False) -> Path:
    save(noise(6, 4), root / "JPEGImages" / "a.jpg")
    for kind, numbers in (("SegmentationObject", OBJECTS), ("SegmentationClass", CLASSES)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        file = root / kind / "a.png"
        write_numbers(numbers, file)
        if colored:
            save(np.array(voc_colormap(), np.uint8)[numbers], file)
    for place in ("Segmentation", "Main"):
        (root / "ImageSets" / place).mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / place / "train.txt").write_text("a\n")
    if xml:
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / "a.xml").write_text(XML)
    return root


def masks_of(index: Index) -> list[np.ndarray]:
    assert index.masks is not None
    return [rasterise(mask, (6, 4)) for mask in index.masks]


def segment(index: Index, row: int = 0) -> np.ndarray:
    labels = index.segment(row)
    assert labels is not None
    assert labels.dtype == np.uint8
    return labels


@pytest.mark.part("format/voc_segmentation", "format/masks")
@pytest.mark.parametrize("colored", [False, True])
def test_the_numbers_of_the_png_are_the_classes(tmp_path: Path, colored: bool) -> None:
    year(tmp_path / "VOCdevkit" / "VOC2012", colored=colored)
    index = open_index(tmp_path, "train", format="voc_segmentation")
    assert (index.task, index.classes) == ("segment", voc_classes(background=True))
    assert np.array_equal(segment(index), CLASSES)
    assert not index.problems
    if not colored:
        peer = VOCSegmentation(str(tmp_path), year="2012", image_set="train")
        assert np.array_equal(np.asarray(peer[0][1]), segment(index))
    assert SEGMENTS.splits(tmp_path) == ["train"]


@pytest.mark.part("format/instance_masks")
@pytest.mark.parametrize("colored", [False, True])
def test_the_numbers_of_the_png_are_the_objects_of_the_xml(tmp_path: Path, colored: bool) -> None:
    year(tmp_path, colored=colored)
    found = instances(tmp_path / "SegmentationObject" / "a.png")
    assert found == {n: encoded(n == OBJECTS) for n in (1, 2, 3)}
    index = open_index(tmp_path, "Segmentation/train", format="voc")
    assert index.task == "detect"
    assert [index.classes[label] for label in index.labels] == ["cat", "cat", "dog"]
    assert index.boxes.tolist() == [[1, 0, 3, 2], [4, 0, 6, 2], [1, 2, 5, 4]]
    for number, mask in enumerate(masks_of(index), 1):
        assert np.array_equal(mask, number == OBJECTS)
    assert index.area.tolist() == [4, 4, 4]
    assert index.difficult.tolist() == [True, False, False]
    assert open_index(tmp_path, "train", format="voc").masks is None


@pytest.mark.part("format/voc_segmentation", "format/instance_masks")
@pytest.mark.parametrize("xml", [True, False])
def test_objects_get_class_and_box_from_the_xml_or_else_from_the_png(tmp_path: Path, xml: bool) -> None:
    index = open_index(year(tmp_path, xml=xml), "train", format="voc_segmentation")
    assert index.labels.tolist() == [CAT, CAT, DOG]
    assert index.boxes.tolist() == [[1, 0, 3, 2], [4, 0, 6, 2], [1, 2, 5, 4] if xml else [1, 3, 5, 4]]
    assert index.difficult.tolist() == [xml, False, False]
    assert index.poses == (["Left", "", ""] if xml else None)
    assert all(np.array_equal(mask, number == OBJECTS) for number, mask in enumerate(masks_of(index), 1))


@pytest.mark.part("format/voc_segmentation", "format/masks", "format/instance_masks")
def test_a_segmentation_comes_back_the_same(tmp_path: Path) -> None:
    index = open_index(year(tmp_path / "source"), "train", format="voc_segmentation")
    SEGMENTS.write(index, tmp_path / "out", "val")
    with Image.open(tmp_path / "out" / "SegmentationClass" / "a.png") as image:
        assert image.mode == "P"
        assert image.getpalette() == [value for color in voc_colormap() for value in color]
        assert np.array_equal(np.asarray(image), CLASSES)
    again = open_index(tmp_path / "out", "val", format="voc_segmentation")
    assert not again.problems
    assert again.classes == index.classes
    assert np.array_equal(segment(again), CLASSES)
    assert again.masks == index.masks
    assert again.boxes.tolist() == index.boxes.tolist()
    assert again.poses == index.poses
    with pytest.raises(DataError, match="convert to voc"):
        SEGMENTS.write(small_index(tmp_path / "boxes"), tmp_path / "other", "val")


@pytest.mark.part("format/voc", "format/instance_masks", "format/masks")
def test_masks_of_any_format_become_instance_png(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "source", ("a", "b"))
    first, second = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    first[2:12, 3:13], second[10:20, 10:20] = True, True  # they overlap in 2 x 3 pixels: the later one wins
    polygon = [[3.0, 2.0, 13.0, 2.0, 13.0, 12.0, 3.0, 12.0]]
    rows = [Object((3, 2, 13, 12), 1, mask=polygon), Object((10, 10, 20, 20), 0, mask=encoded(second))]
    for number, objects in enumerate((rows, [Object((1, 1, 9, 9), 0)], [])):
        builder.image(save(noise(40, 30), tmp_path / "source" / f"{number}.png"), (40, 30), number)
        builder.objects(objects, tmp_path)
    VOC.write(builder.finish(), tmp_path / "out", "train")
    assert [file.name for file in (tmp_path / "out" / "SegmentationObject").iterdir()] == ["0.png"]
    again = open_index(tmp_path / "out", "Segmentation/train", format="voc")
    assert again.masks is not None
    assert np.array_equal(rasterise(again.masks[0], (40, 30)), first & ~second)
    assert np.array_equal(rasterise(again.masks[1], (40, 30)), second)
    assert again.labels.tolist() == [1, 0]
    assert "<segmented>1" in (tmp_path / "out" / "Annotations" / "0.xml").read_text()
    assert "<segmented>0" in (tmp_path / "out" / "Annotations" / "1.xml").read_text()
    whole = open_index(tmp_path / "out", "train", format="voc_segmentation")
    assert whole.classes == ("background", "a", "b")
    assert np.array_equal(segment(whole), np.where(second, 1, np.where(first, 2, 0)))


def test_three_hundred_objects_are_kept_apart(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "source", ("a",))
    builder.image(save(noise(60, 40), tmp_path / "source" / "a.png"), (60, 40), 1)
    spots = [(x, y) for y in range(0, 40, 2) for x in range(0, 30, 2)]
    rows = []
    for x, y in spots:
        bitmap = np.zeros((40, 60), bool)
        bitmap[y, x] = True
        rows.append(Object((x, y, x + 1, y + 1), 0, mask=encoded(bitmap)))
    builder.objects(rows, tmp_path)
    index = builder.finish()
    VOC.write(index, tmp_path / "out", "train")
    assert [*instances(tmp_path / "out" / "SegmentationObject" / "a.png")] == list(range(1, 301))
    again = open_index(tmp_path / "out", "Segmentation/train", format="voc")
    # A box of whole numbers one pixel wide is written with decimals, and so is not taken for a slip.
    assert np.array_equal(again.boxes, index.boxes)
    assert again.masks == index.masks


def test_real_instances_are_counted_right(shared_data: Path) -> None:
    """16-bit files, and as many objects as their json says."""
    import json

    content = json.loads((shared_data / "dsb2018" / "annotations" / "instances_val.json").read_bytes())
    for image in content["images"]:
        areas = [row["area"] for row in content["annotations"] if row["image_id"] == image["id"]]
        stem = Path(image["file_name"]).stem
        found = instances(shared_data / "dsb2018" / "instance" / "val" / f"{stem}.png")
        assert sorted(sum(runs["counts"][1::2]) for runs in found.values()) == sorted(areas)


@pytest.mark.part("format/voc_segmentation")
def test_a_coloured_png_of_others_is_read(shared_data: Path) -> None:
    root = shared_data / "format_fixtures" / "voc_dataset" / "voc_dataset1"
    index = open_index(root, "train", format="voc_segmentation")
    assert index.classes[2] == "bicycle"
    assert np.array_equal(segment(index), np.full((10, 20), 2))
    assert [index.classes[label] for label in index.labels] == ["cat"]  # object 1 of its XML


@pytest.mark.part("format/voc_segmentation")
def test_a_label_map_names_colours(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "format_fixtures" / "voc_dataset" / "voc_dataset2" / "labelmap.txt"
    names, colors = read_label_map(file)
    assert names[:21] == list(voc_classes(background=True))
    assert colors[:21] == list(voc_colormap()[:21])
    root = year(tmp_path, xml=False)
    (root / "labelmap.txt").write_text("# name\nvoid:224,224,192::\nsky:9,9,9::\nsea:1,2,3::\n")
    save(np.array([[[9, 9, 9]] * 6, [[1, 2, 3]] * 6, [[224, 224, 192]] * 6, [[9, 9, 9]] * 6], np.uint8), root / "x.png")
    (root / "x.png").rename(root / "SegmentationClass" / "a.png")
    index = open_index(root, "train", format="voc_segmentation")
    assert index.classes == ("sky", "sea")
    assert segment(index)[:, 0].tolist() == [0, 1, 255, 0]
    (root / "labelmap.txt").write_text("sky:9,9::\n")
    with pytest.raises(DataError, match=r"labelmap\.txt:1: expected name:red,green,blue::"):
        open_index(root, "train", format="voc_segmentation")


def test_wrong_png_are_named(tmp_path: Path) -> None:
    root = year(tmp_path, xml=False)
    (root / "SegmentationObject" / "a.png").unlink()
    for stem in "bcde":
        save(noise(6, 4), root / "JPEGImages" / f"{stem}.jpg")
    write_numbers(np.full((4, 6), 21), root / "SegmentationClass" / "b.png")
    write_numbers(np.zeros((6, 4)), root / "SegmentationClass" / "c.png")
    (root / "SegmentationClass" / "d.png").write_bytes(b"\x89PNG")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\nb\nc\nd\ne\n")
    index = open_index(root, "train", format="voc_segmentation")
    assert [(p.kind, p.path, p.fatal) for p in index.problems] == [
        ("class out of range", "SegmentationClass/b.png", True),
        ("wrong size", "SegmentationClass/c.png", False),
        ("damaged image", "SegmentationClass/d.png", False),
        ("missing label file", "SegmentationClass/e.png", False),
    ]
    assert index.image_ids == ["a", "b"]
    with pytest.raises(DataError, match=r"b\.png: expected classes in 0\.\.20 or 255, came 21"):
        index.raise_if_fatal()


def test_an_instance_png_of_another_size_is_left_out(tmp_path: Path) -> None:
    root = year(tmp_path)
    write_numbers(OBJECTS.T, root / "SegmentationObject" / "a.png")
    for form, split in (("voc", "Segmentation/train"), ("voc_segmentation", "train")):
        index = open_index(root, split, format=form)
        assert index.masks is None
        assert [(p.kind, p.message) for p in index.problems] == [("wrong size", "is 4x6, its picture 6x4; left out")]
    (root / "SegmentationObject" / "a.png").write_bytes(b"x")
    assert [p.kind for p in open_index(root, "Segmentation/train", format="voc").problems] == ["damaged image"]


def test_labels_follow_the_classes_of_the_training_split(tmp_path: Path) -> None:
    root = year(tmp_path, xml=False)
    index = open_index(root, "train", format="voc_segmentation", classes=("dog", "cat", "background"))
    assert not index.problems
    assert segment(index)[3].tolist() == [2, 0, 0, 0, 0, 2]
    assert segment(index)[0].tolist() == [2, 1, 1, 255, 1, 1]
    assert index.labels.tolist() == [1, 1, 0]
    without = open_index(root, "train", format="voc_segmentation", classes=("background", "cat"))
    with pytest.raises(DataError, match="came 12"):
        without.raise_if_fatal()


def test_recognised_where_there_are_no_boxes(tmp_path: Path) -> None:
    root = year(tmp_path / "VOC2012", xml=False)
    assert recognise(root) == recognise(tmp_path) == "voc_segmentation"
    year(root)
    assert recognise(root) == "voc"


def test_png_that_mean_different_things_are_not_joined(tmp_path: Path) -> None:
    index = open_index(year(tmp_path), "train", format="voc_segmentation")
    assert len(joined([index, index])) == 2
    plain = small_index(tmp_path / "other", count=1)
    plain = replace(plain, task="segment", classes=index.classes)
    legend = Legend(labels=tuple(range(21)))
    named = replace(index, legend=legend)
    assert joined([plain, named]).legend == legend
    with pytest.raises(DataError, match="mean other classes"):
        joined([index, named])

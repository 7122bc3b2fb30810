"""Instances, keypoints, captions, stuff and panoptic segments, against pycocotools and torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from tests.unit.data.coco_files import content, row, written
from tests.unit.data.pictures import noise, save, small_index
from torso.config import DataError
from torso.data import Index, open_index, recognise
from torso.data.formats import FORMATS
from torso.data.formats.coco import Coco
from torso.data.masks import area_of, encoded, rasterise


def compare_with_pycocotools(index: Index, file: Path) -> None:
    """Every id, class, box, area, flag, mask and keypoint is what pycocotools has."""
    coco = COCO(str(file))
    assert sorted(map(int, index.image_ids)) == sorted(coco.getImgIds())
    assert list(index.class_ids) == sorted(coco.getCatIds())
    assert list(index.classes) == [coco.cats[number]["name"] for number in index.class_ids]
    for picture, image in enumerate(index.image_ids):
        rows, objects = coco.loadAnns(coco.getAnnIds(imgIds=[image])), index.objects(picture)
        said = coco.imgs[image]
        assert index.paths[picture].endswith(said["file_name"])
        assert [index.class_ids[label] for label in index.labels[objects]] == [one["category_id"] for one in rows]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in rows)]
        assert np.array_equal(index.boxes[objects], np.array(boxes, float).reshape(-1, 4))
        assert index.area[objects].tolist() == [one["area"] for one in rows]
        assert index.crowd[objects].tolist() == [one["iscrowd"] == 1 for one in rows]
        for at, one in zip(range(objects.start, objects.stop), rows, strict=True):
            mask = None if index.masks is None else index.masks[at]
            assert mask == (one.get("segmentation") or None)
            if mask is not None:
                assert np.array_equal(rasterise(mask, (said["width"], said["height"])), coco.annToMask(one))


@pytest.mark.part("format/coco")
@pytest.mark.part("format/coco_instances")
@pytest.mark.parametrize("layout", ["coco", "coco_instances", "mmdet_coco", "coco_roboflow"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_instances_of_every_layout_are_those_of_pycocotools(shared_data: Path, layout: str, split: str) -> None:
    folder = shared_data / "format_fixtures" / "coco_dataset" / layout
    assert recognise(folder) == "coco"
    assert Coco.splits(folder) == ["train", "val"]
    file = folder / "annotations" / f"instances_{split}.json"
    index = open_index(folder, split)
    assert index.problems == ()
    compare_with_pycocotools(index, file if file.exists() else folder / split / "_annotations.coco.json")


@pytest.mark.part("format/coco_instances")
def test_roboflow_exports_and_real_data_are_those_of_pycocotools(shared_data: Path) -> None:
    folder = shared_data / "format_fixtures" / "roboflow_dataset" / "coco"
    for split in ("train", "val"):
        compare_with_pycocotools(open_index(folder, split), folder / split / "_annotations.coco.json")
    file = shared_data / "bccd" / "coco" / "instances_test.json"
    compare_with_pycocotools(open_index(shared_data / "bccd", "test", format="coco"), file)


@pytest.mark.part("format/coco_instances")
def test_nuclei_rasterise_to_their_areas(shared_data: Path) -> None:
    """Polygons and run lengths; written and read again they are the same."""
    index = open_index(shared_data / "dsb2018", "val")
    assert index.masks is not None
    assert {type(mask) for mask in index.masks} == {list, dict}
    for picture in range(0, len(index), 3):
        width, height = index.sizes[picture].tolist()
        rows = index.objects(picture)
        assert [area_of(mask, (width, height)) for mask in index.masks[rows]] == index.area[rows].tolist()


@pytest.mark.part("format/coco_instances")
def test_torchvision_sees_the_same_objects(shared_data: Path) -> None:
    from torchvision.datasets import CocoDetection

    folder = shared_data / "dsb2018"
    index = open_index(folder, "val")
    theirs = CocoDetection(str(folder / "images" / "val"), str(folder / "annotations" / "instances_val.json"))
    assert len(theirs) == len(index)
    for position in (0, 17, 43):
        picture, rows = theirs[position]
        at = index.image_ids.index(theirs.ids[position])
        assert picture.size == tuple(index.sizes[at])
        assert [one["category_id"] for one in rows] == [index.class_ids[n] for n in index.labels[index.objects(at)]]


@pytest.mark.part("format/coco_instances")
def test_pycocotools_reads_what_is_written(tmp_path: Path) -> None:
    index = small_index(tmp_path / "source")
    Coco.write(index, tmp_path / "out", "train")
    again = open_index(tmp_path / "out")
    compare_with_pycocotools(again, tmp_path / "out" / "annotations" / "instances_train.json")
    assert (again.class_ids, again.image_ids) == ((3, 7, 90), index.image_ids)
    assert np.abs(again.boxes - index.boxes).max() < 1e-9
    assert np.array_equal(again.difficult, index.difficult)


@pytest.mark.part("format/coco_instances")
def test_both_kinds_of_run_lengths_are_kept(tmp_path: Path) -> None:
    pixels = np.zeros((30, 40), np.uint8)
    pixels[5:9, 7:20] = 1
    short = rle.encode(np.asfortranarray(pixels)) | {}
    short["counts"] = short["counts"].decode()
    rows = [
        row(segmentation=short, area=52, iscrowd=1),
        row(id=2, segmentation=encoded(pixels), area=52, category_id=3),
    ]
    index = open_index(written(tmp_path, content(annotations=rows)))
    assert index.problems == ()
    assert index.masks is not None
    assert index.crowd.tolist() == [True, False]
    for mask in index.masks:
        assert np.array_equal(rasterise(mask, (40, 30)), pixels == 1)


@pytest.mark.part("format/coco_instances")
def test_roboflows_parent_class_is_kept_and_said(tmp_path: Path) -> None:
    kinds = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "red", "supercategory": "cells"},
        {"id": 2, "name": "white", "supercategory": "cells"},
    ]
    said = content(categories=kinds, annotations=[row(category_id=2)])
    save(noise(40, 30), tmp_path / "train" / "a.png")
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(said))
    index = open_index(tmp_path)
    assert (index.classes, index.class_ids, index.labels.tolist()) == (("cells", "red", "white"), (0, 1, 2), [2])
    (problem,) = index.problems
    assert (problem.kind, problem.fatal) == ("unused parent class", False)
    assert problem.message.startswith("categories[0]: 'cells' (id 0) is only the parent of the others")
    used = content(categories=kinds, annotations=[row(category_id=0)])
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(used))
    assert open_index(tmp_path).problems == ()


def persons() -> dict[str, Any]:
    kind = {"id": 1, "name": "person", "keypoints": ["nose", "left_eye", "tail"], "skeleton": [[1, 2], [3, 1]]}
    rows = [
        row(category_id=1, keypoints=[5, 6, 2, 7, 8.5, 1, 0, 0, 0], num_keypoints=2),
        row(id=2, category_id=1, bbox=[3, 3, 9, 9], keypoints=[0] * 9, num_keypoints=0),
        row(id=3, category_id=1, bbox=[4, 3, 9, 9]),
    ]
    return content(categories=[kind], annotations=rows)


@pytest.mark.part("format/coco_keypoints")
def test_keypoints_are_those_of_pycocotools_and_come_back(tmp_path: Path) -> None:
    folder = written(tmp_path / "set", persons(), "person_keypoints_train2017.json")
    assert recognise(folder) == "coco_keypoints"
    index = open_index(folder)
    assert index.problems == ()
    assert (index.keypoint_names, index.skeleton) == (("nose", "left_eye", "tail"), ((0, 1), (2, 0)))
    assert index.keypoints is not None
    coco = COCO(str(folder / "annotations" / "person_keypoints_train2017.json"))
    for at, one in enumerate(coco.loadAnns([1, 2, 3])):
        assert index.keypoints[at].ravel().tolist() == one.get("keypoints", [0] * 9)
        assert int((index.keypoints[at, :, 2] > 0).sum()) == one.get("num_keypoints", 0)
    FORMATS["coco_keypoints"].write(index, tmp_path / "out", "val")
    again = open_index(tmp_path / "out", "val")
    assert np.array_equal(again.keypoints, index.keypoints)
    assert (again.skeleton, again.keypoint_names) == (index.skeleton, index.keypoint_names)
    loaded = COCO(str(tmp_path / "out" / "annotations" / "person_keypoints_val.json"))
    assert loaded.cats[1]["skeleton"] == [[1, 2], [3, 1]]
    assert [one["num_keypoints"] for one in loaded.loadAnns(loaded.getAnnIds())] == [2, 0, 0]
    with pytest.raises(DataError, match="have no keypoints; convert to coco"):
        FORMATS["coco_keypoints"].write(small_index(tmp_path / "none"), tmp_path / "x", "val")


@pytest.mark.part("format/coco_keypoints")
def test_keypoints_without_names_are_numbered(shared_data: Path) -> None:
    folder = shared_data / "format_fixtures" / "coco_dataset" / "coco_person_keypoints"
    assert recognise(folder) == "coco_keypoints"
    index = open_index(folder, "val")
    assert index.keypoint_names == ("0", "1", "2")
    assert [problem.kind for problem in index.problems] == ["unnamed keypoints"]
    coco = COCO(str(folder / "annotations" / "person_keypoints_val.json"))
    assert index.keypoints is not None
    for at, one in enumerate(coco.loadAnns(coco.getAnnIds())):
        assert index.keypoints[at].ravel().tolist() == one.get("keypoints", [0] * 9)


@pytest.mark.part("format/coco_keypoints")
@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"keypoints": [1, 2]}, "malformed keypoints", "keypoints: expected 9 numbers (x y v of 3), came 2 numbers"),
        ({"keypoints": "x"}, "malformed keypoints", "keypoints: expected 9 numbers (x y v of 3), came str"),
        ({"keypoints": ["a"] * 9}, "malformed keypoints", "keypoints: expected numbers, came ['a', 'a'"),
        ({"keypoints": [1, 2, 3] * 3}, "malformed keypoints", "keypoints: expected a visibility of 0, 1 or 2"),
        ({"keypoints": [1e999, 2, 2] * 3}, "malformed keypoints", "keypoints: expected finite numbers"),
        (
            {"keypoints": [1, 2, 2] * 3, "num_keypoints": 2},
            "wrong num_keypoints",
            "num_keypoints: says 2, 3 are labelled",
        ),
    ],
)
def test_wrong_keypoints_are_named_and_the_box_stays(
    tmp_path: Path, changes: dict[str, Any], kind: str, message: str
) -> None:
    said = persons()
    said["annotations"][0] |= changes
    index = open_index(written(tmp_path, said, "person_keypoints_train.json"))
    assert [(problem.kind, problem.fatal) for problem in index.problems] == [(kind, False)]
    assert index.problems[0].message.startswith(f"annotations[0].{message}")
    assert len(index.boxes) == 3


@pytest.mark.part("format/coco_keypoints")
@pytest.mark.parametrize(
    ("skeleton", "kept", "kind"),
    [
        ([[0, 1], [1, 2]], ((0, 1), (1, 2)), "skeleton from 0"),
        ([[1, 2], [3, 4]], (), "malformed skeleton"),
        ([[1, 2, 3]], (), "malformed skeleton"),
    ],
)
def test_a_skeleton_that_is_not_coco_s_is_named(tmp_path: Path, skeleton: Any, kept: Any, kind: str) -> None:
    said = persons()
    said["categories"][0]["skeleton"] = skeleton
    index = open_index(written(tmp_path, said, "person_keypoints_train.json"))
    assert index.skeleton == kept
    assert [problem.kind for problem in index.problems] == [kind]


@pytest.mark.part("format/coco_captions")
@pytest.mark.parametrize("split", ["train", "val"])
def test_captions_are_those_of_torchvision(shared_data: Path, split: str) -> None:
    from torchvision.datasets import CocoCaptions

    folder = shared_data / "format_fixtures" / "coco_dataset" / "coco_captions"
    assert recognise(folder) == "coco_captions"
    index = open_index(folder, split)
    assert (index.task, index.classes, index.problems) == ("unlabeled", (), ())
    theirs = CocoCaptions(str(folder / "images" / split), str(folder / "annotations" / f"captions_{split}.json"))
    assert index.captions == [theirs[at][1] for at in range(len(theirs))]
    assert index.image_ids == theirs.ids


@pytest.mark.part("format/coco_captions")
def test_captions_stand_beside_instances_where_asked(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "format_fixtures" / "coco_dataset" / "coco"
    assert open_index(folder, "val").captions is None
    index = open_index(folder, "val", options={"captions": True})
    assert (index.captions, len(index.boxes)) == ([["world", "text"]], 2)
    Coco.write(index, tmp_path / "out", "val")
    again = open_index(tmp_path / "out", "val", options={"captions": True})
    assert (again.captions, again.problems) == (index.captions, ())
    alone = open_index(tmp_path / "out", "val", format="coco_captions")
    assert alone.captions == index.captions
    FORMATS["coco_captions"].write(alone, tmp_path / "again", "train")
    assert open_index(tmp_path / "again").captions == index.captions
    with pytest.raises(DataError, match="have no captions"):
        FORMATS["coco_captions"].write(open_index(folder, "val"), tmp_path / "x", "val")


@pytest.mark.part("format/coco_captions")
def test_wrong_captions_are_named(tmp_path: Path) -> None:
    rows = [
        {"image_id": 5, "caption": " a cat "}, {"image_id": 5, "caption": ""}, {"image_id": 5},
        {"image_id": 5, "caption": "\ud800"}, {"image_id": 6, "caption": "b"}, {"image_id": 6, "caption": "c"}, 7,
    ]  # fmt: skip
    index = open_index(written(tmp_path, {"images": content()["images"], "annotations": rows}, "captions_train.json"))
    assert index.captions == [["a cat"]]
    assert [problem.message for problem in index.problems] == [
        "annotations[1].caption: expected a sentence, came ''; left out",
        "annotations[2].caption: expected a sentence, came None; left out",
        "annotations[3].caption: expected a sentence, came '\\ud800'; left out",
        "annotations[6]: expected an object with an image_id",
        "annotations[4].image_id: there is no image 6; 2 of its annotations left out",
    ]


@pytest.mark.part("format/coco_stuff")
@pytest.mark.parametrize("split", ["train", "val"])
def test_stuff_is_that_of_pycocotools(shared_data: Path, tmp_path: Path, split: str) -> None:
    folder = shared_data / "format_fixtures" / "coco_dataset" / "coco_stuff"
    assert recognise(folder) == "coco_stuff"
    index = open_index(folder, split)
    assert index.problems == ()
    compare_with_pycocotools(index, folder / "annotations" / f"stuff_{split}.json")
    FORMATS["coco_stuff"].write(index, tmp_path, split)
    assert open_index(tmp_path, split).masks == index.masks


@pytest.mark.part("format/coco_stuff")
def test_stuff_keeps_its_ids(tmp_path: Path) -> None:
    runs = {"size": [30, 40], "counts": [0, 600, 600]}
    kinds = [{"id": 183, "name": "other"}, {"id": 92, "name": "banner"}, {"id": 157, "name": "sky-other"}]
    rows = [row(category_id=157, segmentation=runs, bbox=[0, 0, 20, 30], area=600)]
    index = open_index(written(tmp_path, content(categories=kinds, annotations=rows), "stuff_train2017.json"))
    assert (index.classes, index.class_ids) == (("banner", "sky-other", "other"), (92, 157, 183))
    assert (index.labels.tolist(), index.masks, index.problems) == ([1], [runs], ())


@pytest.mark.part("format/coco_panoptic")
def test_segments_are_the_pixels_of_their_png(shared_data: Path) -> None:
    folder = shared_data / "format_fixtures" / "coco_dataset" / "coco_panoptic"
    assert recognise(folder) == "coco_panoptic"
    index = open_index(folder, "val")
    assert index.problems == ()
    pixels = np.asarray(Image.open(folder / "annotations" / "panoptic_val" / "b.png")).astype(int)
    assert index.masks is not None
    for at, (identity, crowd) in enumerate([(7, False), (20, True)]):
        seen = rasterise(index.masks[at], (5, 10))
        assert np.array_equal(seen, pixels[..., 0] == identity)
        assert (index.area[at], bool(index.crowd[at])) == (20, crowd)
    assert index.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="only read; convert to coco"):
        FORMATS["coco_panoptic"].write(index, folder / "x", "val")
    # The PNG of the other split is not of its picture's size.
    wrong = open_index(folder, "train")
    assert [(problem.kind, problem.message) for problem in wrong.problems] == [
        ("malformed file", "is 5x5, its picture is 10x5")
    ]


@pytest.mark.part("format/coco_panoptic")
def test_a_segment_counts_in_three_bytes_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[2:5, 3:9] = (1, 2, 3)
    pixels[10:12, 3:9] = (9, 0, 0)
    save(pixels, tmp_path / "annotations" / "panoptic_train" / "a.png")
    large = 1 + 2 * 256 + 3 * 65536
    infos = [{"id": large, "category_id": 7, "area": 17}, {"id": 4, "category_id": 7}, {"id": 5, "category_id": 8}, 6]
    rows = [
        {"image_id": 5, "file_name": "a.png", "segments_info": infos},
        {"image_id": 6, "file_name": "a.png", "segments_info": infos},
        {"image_id": 5, "file_name": "b.png", "segments_info": infos},
        {"image_id": 5},
    ]
    index = open_index(written(tmp_path, content(annotations=rows), "panoptic_train.json"))
    assert index.boxes.tolist() == [[3, 2, 9, 5]]
    assert (index.area.tolist(), index.labels.tolist()) == ([18], [1])
    assert [(problem.path.rpartition("/")[2], problem.message) for problem in index.problems] == [
        ("panoptic_train.json", "annotations[0].segments_info[0].area: says 17, 18 pixels have the id"),
        ("panoptic_train.json", "annotations[0].segments_info[1]: no pixel has the id 4; dropped"),
        ("panoptic_train.json", "annotations[0].segments_info[2].category_id: 8 is not one of 3, 7"),
        ("panoptic_train.json", "annotations[0].segments_info[3]: expected an object with an id"),
        ("panoptic_train.json", "annotations[0].segments_info: 1 ids of pixels are not listed, the first is 9"),
        ("panoptic_train.json", "annotations[1].image_id: there is no image 6; its segments are left out"),
        ("b.png", "no such file"),
        ("panoptic_train.json", "annotations[3]: expected an object with image_id, file_name and segments_info"),
    ]

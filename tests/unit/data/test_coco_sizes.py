"""Where COCO's pictures lie and how large they are: asked of the files, or of the json where that is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.data.coco_files import content, row, written
from tests.unit.data.pictures import noise, save
from torso.config import DataError
from torso.data import open_index
from torso.data.formats import coco_columns
from torso.data.formats.listing import Listing

TRUST = {"trust_sizes": True}


def pictures(*names: str, **changes: Any) -> dict[str, Any]:
    listed = [{"id": n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(names)]
    rows = [row(id=n, image_id=n) for n in range(len(names))]
    return content(images=listed, annotations=rows) | changes


@pytest.mark.part("format/coco_instances")
def test_trusted_sizes_open_no_picture(tmp_path: Path) -> None:
    folder = written(tmp_path, pictures("a.png", "turned.jpg", "empty.jpg", "gone.jpg", "b.png"))
    save(noise(40, 30), tmp_path / "train" / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(noise(40, 30), tmp_path / "train" / "turned.jpg", exif=exif)
    (tmp_path / "train" / "empty.jpg").touch()
    seen = open_index(folder)
    assert seen.sizes.tolist() == [[40, 30], [30, 40], [40, 30]]
    assert [problem.kind for problem in seen.problems] == ["missing image", "wrong size", "damaged image"]
    trusted = open_index(folder, options=TRUST)
    assert trusted.sizes.tolist() == [[40, 30]] * 4
    assert [(problem.kind, problem.path) for problem in trusted.problems] == [("missing image", "train/gone.jpg")]
    assert trusted.image_ids == [0, 1, 2, 4]
    assert len(trusted.boxes) == 4  # what is on the missing picture goes with it


@pytest.mark.part("format/coco_instances")
def test_a_size_that_is_not_said_is_asked_of_the_picture(tmp_path: Path) -> None:
    listed = [{"id": 5, "file_name": "a.png", "width": 0}, {"id": 6, "file_name": "b.png", "width": 9, "height": 8}]
    save(noise(20, 10), tmp_path / "train" / "b.png")
    index = open_index(written(tmp_path, content(images=listed)), options=TRUST)
    assert index.sizes.tolist() == [[40, 30], [9, 8]]


def test_pictures_that_are_nearly_all_missing_are_an_error(tmp_path: Path) -> None:
    folder = written(tmp_path, pictures("a.png", "b.png", "c.png"))
    for options in ({}, TRUST):
        with pytest.raises(DataError, match=r"2 of 3 listed pictures are missing(.|\n)*train/b\.png: no such file"):
            open_index(folder, options=options)


@pytest.mark.parametrize(
    "place", ["train", "train2017", "images", "images/train2017", "annotations", "JPEGImages", "."]
)
def test_pictures_are_found_in_the_usual_places(tmp_path: Path, place: str) -> None:
    folder = written(tmp_path, content(images=[{"id": 5, "file_name": "b.png"}]), "instances_train2017.json")
    save(noise(40, 30), tmp_path / place / "b.png")
    index = open_index(folder)
    assert index.file(0).samefile(tmp_path / place / "b.png")
    assert not Path(index.paths[0]).is_absolute()


def test_a_relative_root_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, content())
    monkeypatch.chdir(tmp_path)
    index = open_index(".")
    assert index.paths == ["train/a.png"]
    assert index.file(0).exists()
    assert open_index("annotations/instances_train.json").file(0).exists()


def test_a_listing_finds_what_the_disk_has(tmp_path: Path) -> None:
    save(noise(4, 4), tmp_path / "one" / "x" / "a.png")
    save(noise(4, 4), tmp_path / "two" / "a.png")
    (tmp_path / "two" / "folder.png").mkdir()
    (tmp_path / "two" / "link.png").symlink_to(tmp_path / "two" / "a.png")
    (tmp_path / "two" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    places = [tmp_path / "one", tmp_path / "two"]
    for name in (
        "x/a.png",
        "a.png",
        "x\\a.png",
        "./x//a.png",
        "link.png",
        "folder.png",
        "dangling.png",
        "no/a.png",
        "",
        "x",
    ):
        found = Listing(places).find(name)
        there = [place / name.replace("\\", "/") for place in places if (place / name.replace("\\", "/")).is_file()]
        assert (found is None) == (not there), name
        assert found is None or Path(found).samefile(there[0])
    assert Listing(places).find(str(tmp_path / "two" / "a.png")) == str(tmp_path / "two" / "a.png")
    assert Listing(places).find_all(["a.png", "b.png"]) == [str(tmp_path / "two" / "a.png"), None]


@pytest.mark.parametrize("dense", [0, 1 << 21])
def test_ids_are_found_by_table_and_by_search(monkeypatch: pytest.MonkeyPatch, dense: int) -> None:
    import numpy as np

    monkeypatch.setattr(coco_columns, "_DENSE", dense)
    draw = np.random.default_rng(0)
    known = draw.permutation(np.unique(draw.integers(-50, 50, 40)))
    ids = draw.integers(-60, 60, 300)
    values = np.arange(len(known)) * 3
    lookup = dict(zip(known.tolist(), values.tolist(), strict=True))
    assert coco_columns.found(known, values, ids, -7).tolist() == [lookup.get(one, -7) for one in ids.tolist()]
    assert coco_columns.found(known[:0], values[:0], ids, -7).tolist() == [-7] * 300


def test_a_picture_may_be_listed_without_labels(tmp_path: Path) -> None:
    for name in ("b", "c"):
        save(noise(40, 30), tmp_path / "train" / f"{name}.png")
    rows = [row(id=n, image_id=2, bbox=[n, n, 5, 5]) for n in range(3)]
    index = open_index(written(tmp_path, pictures("a.png", "b.png", "c.png", annotations=rows)))
    assert index.offsets.tolist() == [0, 0, 0, 3]
    empty = open_index(written(tmp_path, pictures("a.png", "b.png", annotations=[])))
    assert (empty.offsets.tolist(), empty.boxes.shape) == ([0, 0, 0], (0, 4))


def test_rows_keep_their_order_inside_a_picture_and_doubles_are_named(tmp_path: Path) -> None:
    save(noise(40, 30), tmp_path / "train" / "b.png")
    rows = [
        row(id=n, image_id=n % 2, bbox=[n // 2 % 3, 1, 5, 5], iscrowd=int(n in (6, 9)), category_id=(3, 7)[n == 10])
        for n in range(12)
    ]
    index = open_index(written(tmp_path, pictures("a.png", "b.png", annotations=rows)))
    # Numbers 7, 8 and 11 say again what 1, 2 and 5 said; 6 and 9 are crowds, and the class of 10 is another one.
    assert [problem.message for problem in index.problems] == [
        f"annotations[{n}]: the same box and class again; counted once" for n in (8, 7, 11)
    ]
    assert index.boxes[:, 0].tolist() == [0, 1, 2, 0, 2, 0, 1, 2, 1]
    assert index.offsets.tolist() == [0, 5, 9]

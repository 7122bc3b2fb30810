"""The page, the lines and the JSON of a diagnosis, and what a set may not do to them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.data_faults import faultset
from tests.data_faults.plan import encoded, pixels
from torso.config import DataError
from torso.data.doctor import examine, page

EVIL = "<img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """All tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(text)
    return parser.found


def evil_set(folder: Path) -> Path:
    """Class folders, files and damage whose names are HTML."""
    for split in ("train", "val"):
        for name in (EVIL.replace("/", ""), "b"):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(3):
                seed = number + 10 * (name == "b") + 100 * (split == "val")
                (place / f"{number}<script>.jpg").write_bytes(encoded(pixels(seed)))
    (folder / "train" / "b" / "<script>alert(2)<").mkdir()
    (folder / "train" / "b" / "x<script>alert(3).jpg").write_bytes(b"<script>alert(4)</script>")
    (folder / "val" / "b" / "copy<b>.jpg").write_bytes(encoded(pixels(0)))
    return folder


def test_names_of_files_and_classes_are_only_text_on_the_page(tmp_path: Path) -> None:
    diagnosis = examine(evil_set(tmp_path / "<set>"))
    assert {one.kind for one in diagnosis.findings} >= {"not a picture", "same picture in two splits"}
    text = page(diagnosis, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "&lt;script&gt;" in text
    found = tags(text)
    assert not [tag for tag, _ in found if tag in ("script", "iframe", "object", "embed", "base", "form", "a b")]
    assert not [attrs for _, attrs in found if any(name.startswith("on") for name in attrs)]
    assert all(str(attrs["src"]).startswith("data:image/jpeg;base64,") for tag, attrs in found if tag == "img")
    assert all(str(attrs["href"]).startswith("#") for tag, attrs in found if "href" in attrs)


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "yolo", ["almost", "outside", "no_such_class"])
    text = page(examine(path), tmp_path / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.findall(r"""(?:https?:)?//[a-z]|@import|url\(""", re.sub(r'base64,[^"]*', "", text))


def test_the_page_says_first_what_matters_and_shows_it(tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "voc", ["almost", "outside", "no_such_class", "odd_modes"])
    diagnosis = examine(path)
    text = page(diagnosis, tmp_path / "page.html").read_text(encoding="utf-8")
    places = [text.index(word) for word in ("Not fit for training", "What to do first", "unicorn", 'id="warning"')]
    assert places == sorted(places)
    for group in diagnosis.groups:
        assert f"{group.kind} <i>" in text
        assert group.advice in text
    pairs = re.findall(r'<div class="both"><img[^>]*>\s*<img', text)
    assert len(pairs) == sum(one.kind.startswith("near dup") for one in diagnosis.findings)
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        ET.fromstring(drawing)  # well formed
    assert text.count('class="data"') > 10


def test_a_name_that_is_no_text_does_not_keep_the_page_from_being_written(tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "folder")
    (path / "train" / "cat" / "caf\udce9.jpg").write_bytes(b"no picture")
    diagnosis = examine(path)
    assert [one.kind for one in diagnosis.findings] == ["not a picture"]
    assert "caf\\udce9.jpg" in page(diagnosis, tmp_path / "page.html").read_text(encoding="utf-8")
    json.dumps(diagnosis.as_dict())


def test_a_page_needs_a_folder_that_is_there(tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "folder")
    with pytest.raises(DataError, match="there is no folder"):
        page(examine(path), tmp_path / "gone" / "page.html")


def test_the_lines_are_short_and_the_json_has_everything(tmp_path: Path) -> None:
    path, expected = faultset(tmp_path, "coco", ["odd_modes", "no_such_class", "turned_by_exif", "uneven"])
    diagnosis = examine(path)
    lines = "\n".join(diagnosis.lines())
    assert "ERROR   class out of range (1)" in lines
    assert "annotations/instances_train.json: annotations[4].category_id" in lines
    assert lines.endswith("Not fit for training: 1 thing to correct first.")
    said = json.loads(json.dumps(diagnosis.as_dict()))
    assert said["fatal"] is True
    assert sum(group["count"] for group in said["findings"]) == len(diagnosis.findings) == sum(said["numbers"].values())
    kinds = {one.kind for one in expected}
    assert kinds <= {group["kind"] for group in said["findings"]}
    assert {group["severity"] for group in said["findings"]} == {"error", "warning", "note"}
    assert said["remedy"]["sampler"]["name"] == "repeat_factor"
    assert set(said["splits"]) == {"train", "val"}


def test_one_split_without_the_search_for_near_duplicates(tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "voc", ["almost", "missing_in_val"])
    done: list[tuple[int, int]] = []
    diagnosis = examine(path, split="train", near=False, progress=lambda *numbers: done.append(numbers))
    assert diagnosis.findings == ()
    assert list(diagnosis.splits) == ["train"]
    assert done[-1] == (30, 30)


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "voc")
    with pytest.raises(DataError, match="no such file or folder; the nearest folder that exists"):
        examine(tmp_path / "gone")
    with pytest.raises(DataError, match=r"data\.format: expected one of"):
        examine(path, format="vox")
    diagnosis = examine(path, split="tset")
    assert diagnosis.fatal
    assert "no split 'tset'" in diagnosis.findings[0].message

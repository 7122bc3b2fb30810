"""A repaired copy: what was wrong is gone, the rest is the same, the original untouched, and no guesses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data_faults import FAULTS, faultset
from tests.system.test_doctor import digests
from torso.config import DataError
from torso.data import open_index
from torso.data.doctor import examine, repair
from torso.data.doctor.repair import REPAIRED

MENDED = ["truncated", "not_numbers", "degenerate", "outside", "twice", "no_pictures"]


@pytest.mark.part("format/doctor")
@pytest.mark.parametrize("form", ["voc", "coco", "yolo", "csv"])
def test_a_copy_has_nothing_left_to_repair(form: str, tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, form, MENDED)
    before = digests(path)
    diagnosis = examine(path)
    assert diagnosis.fatal
    result = repair(diagnosis, tmp_path / "copy")
    assert digests(path) == before
    again = examine(tmp_path / "copy")
    assert [one for one in again.findings if one.kind in REPAIRED] == []
    assert not again.fatal
    changed = [(one["path"], one["line"], one["kind"]) for one in result["changes"]]
    assert changed == [(one.path, one.line, one.kind) for one in diagnosis.findings if one.kind in REPAIRED]
    assert result["splits"]["train"]["pictures"] == [27, 26]  # three are no pictures, one is cut off
    assert result["splits"]["val"]["pictures"] == [10, 10]


@pytest.mark.parametrize("form", ["voc", "coco", "yolo", "csv"])
def test_what_was_right_is_the_same_in_the_copy(form: str, tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, form, ["truncated", "degenerate", "outside"])
    repair(examine(path), tmp_path / "copy")
    old, new = open_index(path), open_index(tmp_path / "copy")
    old = old.select([row for row in range(len(old)) if not old.paths[row].endswith("003.jpg")])
    assert [Path(name).name for name in new.paths] == [Path(name).name for name in old.paths]
    assert (new.classes, new.class_ids) == (old.classes, old.class_ids)
    assert new.labels.tolist() == old.labels.tolist()
    assert np.abs(new.boxes - old.boxes).max() < 1e-6
    for row in range(len(new)):
        assert new.file(row).read_bytes() == old.file(row).read_bytes()


def test_class_folders_lose_what_cannot_be_decoded(tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "folder", ["truncated", "many_damaged"])
    result = repair(examine(path), tmp_path / "copy")
    assert result["splits"]["train"]["pictures"] == [30, 23]
    assert examine(tmp_path / "copy").findings == ()


def test_masks_are_copied_with_their_pictures(tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "mask_folder", ["truncated", "mask_sizes"])
    result = repair(examine(path), tmp_path / "copy")
    assert result["splits"]["train"]["pictures"] == [29, 28]  # the mask that does not fit was left out when read
    assert examine(tmp_path / "copy").findings == ()
    old, new = open_index(path), open_index(tmp_path / "copy")
    rows = {Path(name).name: row for row, name in enumerate(old.paths)}
    for row, name in enumerate(new.paths):
        assert (new.segment(row) == old.segment(rows[Path(name).name])).all()


GUESSES = [(name, form) for name, one in FAULTS.items() for form in one.forms if one.fatal]
GUESSES = [(name, form) for name, form in GUESSES if name not in ("not_numbers", "many_damaged")]


@pytest.mark.parametrize(("name", "form"), GUESSES)
def test_what_would_be_a_guess_is_refused(name: str, form: str, tmp_path: Path) -> None:
    path, expected = faultset(tmp_path, form, [name])
    with pytest.raises(DataError, match="cannot be repaired without guessing") as caught:
        repair(examine(path), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    wrong = next(one for one in expected if one.kind not in ("class without objects",))
    assert wrong.path in str(caught.value)


def test_a_copy_never_lands_in_the_set_or_on_something_else(tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "voc", ["twice"])
    before = digests(tmp_path)
    diagnosis = examine(path)
    for inside in (path, path / "repaired", tmp_path / "set" / ".." / "set" / "x"):
        with pytest.raises(DataError, match="lies inside the data set"):
            repair(diagnosis, inside)
    (tmp_path / "link").symlink_to(path / "Annotations")
    with pytest.raises(DataError, match="lies inside the data set"):
        repair(diagnosis, tmp_path / "link")
    (tmp_path / "link").unlink()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        repair(diagnosis, tmp_path / "full")
    (tmp_path / "full" / "mine.txt").unlink()
    (tmp_path / "full").rmdir()
    assert digests(tmp_path) == before

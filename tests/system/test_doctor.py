"""The doctor finds what was planted, with its place, and nothing else; training copes with it or does not start."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path

import pytest

from tests.data_faults import FAULTS, Expected, faultset
from tests.data_faults.faults import ALL
from torso.config import DataError
from torso.data import open_index
from torso.data.doctor import Diagnosis, Finding, examine
from torso.data.loader import Loader

PAIRS = [(name, form) for name, one in FAULTS.items() for form in one.forms]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of everything below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_found(diagnosis: Diagnosis, expected: list[Expected]) -> None:
    """Each expectation is met by a finding of its own, and there are no other findings."""

    def key(one: Finding) -> tuple[str, str, int | None]:
        return one.kind, one.path, one.line

    told = Counter(key(one) for one in diagnosis.findings)
    assert told == Counter(one.key for one in expected), diagnosis.findings
    for one in expected:
        said = [finding.message for finding in diagnosis.findings if key(finding) == one.key]
        assert any(one.text in message for message in said), (one, said)


@pytest.mark.part("format/doctor")
@pytest.mark.parametrize(("name", "form"), PAIRS)
def test_what_was_planted_is_found_and_nothing_else(name: str, form: str, tmp_path: Path) -> None:
    path, expected = faultset(tmp_path, form, [name])
    before = digests(tmp_path)
    diagnosis = examine(path)
    check_found(diagnosis, expected)
    assert diagnosis.format == form
    assert diagnosis.fatal is FAULTS[name].fatal
    assert digests(tmp_path) == before


@pytest.mark.parametrize("form", ALL)
def test_a_clean_set_has_no_findings(form: str, tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, form)
    diagnosis = examine(path)
    assert diagnosis.findings == ()
    assert len(diagnosis.scan) == 40
    assert diagnosis.verdict == "Fit for training."


@pytest.mark.parametrize(("name", "form"), [pair for pair in PAIRS if FAULTS[pair[0]].number <= 18])
def test_an_epoch_has_all_its_steps_and_names_what_it_skipped(name: str, form: str, tmp_path: Path) -> None:
    path, expected = faultset(tmp_path, form, [name])
    before = digests(tmp_path)
    bad = {one.path for one in expected if one.skipped}
    if FAULTS[name].fatal:
        with pytest.raises(DataError):
            train(path)
        assert digests(tmp_path) == before
        return
    loader, seen = train(path)
    assert seen == len(loader.index), "a picture that cannot be read is replaced"
    assert {name for name, _ in loader.skipped} == bad
    reported = {problem["path"] for problem in loader.index.report()["problems"]}
    gone = {one.path for one in expected if one.kind in ("not a picture", "picture too large", "missing image")}
    assert gone <= reported
    assert digests(tmp_path) == before


def train(path: Path) -> tuple[Loader, int]:
    """An epoch without a model, after what every training does first: both splits are read."""
    index = open_index(path, "train")
    for one in (index, open_index(path, "val", classes=index.classes)):
        one.raise_if_fatal()
    if index.task == "detect" and not len(index.labels):
        raise DataError("nothing to learn")
    loader = Loader(index, size=(32, 32), batch=4, shuffle=True)
    batches = list(loader.epoch(0))
    assert len(batches) == math.ceil(len(index) / 4)
    return loader, sum(map(len, batches))

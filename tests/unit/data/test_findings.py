"""Every kind a reader reports is known to the doctor, and what stops a training is an error."""

from __future__ import annotations

import ast

import pytest

from tests.shape import source
from torso.data.builder import FATAL
from torso.data.doctor.findings import KINDS, SEVERITIES, grouped, kind_of_reason, of_problem
from torso.data.doctor.repair import REPAIRED
from torso.data.index import Problem


def reported() -> dict[str, str]:
    """The kinds of problems that are written out anywhere in torso.data, and a file that has each."""
    kinds = {}
    for path in source.files("torso/data"):
        for node in ast.walk(source.tree(path)):
            if isinstance(node, ast.Call) and source.dotted(node.func).rpartition(".")[2] in ("report", "Problem"):
                given = [one.value for one in node.args[:1] if isinstance(one, ast.Constant)]
                kinds |= {kind: source.name(path) for kind in given if isinstance(kind, str)}
    return kinds


def test_every_kind_that_is_reported_has_its_advice() -> None:
    kinds = reported()
    assert len(kinds) > 20
    assert {kind: file for kind, file in kinds.items() if kind not in KINDS} == {}


def test_what_stops_a_training_is_an_error() -> None:
    assert {kind: KINDS[kind].severity for kind in FATAL} == dict.fromkeys(FATAL, "error")


def test_every_kind_says_what_training_does_and_what_to_do() -> None:
    for kind, known in KINDS.items():
        assert known.severity in SEVERITIES, kind
        assert known.training, kind
        assert known.advice, kind
    assert set(REPAIRED) <= set(KINDS)


@pytest.mark.parametrize(("fatal", "severity"), [(True, "error"), (False, "warning")])
def test_a_kind_of_somebody_elses_format_is_told_all_the_same(fatal: bool, severity: str) -> None:
    finding = of_problem(Problem("strange moon", "a.txt", 3, "it is full", fatal), "train", "detect")
    assert (finding.severity, finding.row, finding.where) == (severity, None, "a.txt:3")
    (group,) = grouped([finding])
    assert group.advice
    assert group.training
    assert group.as_dict()["count"] == 1


def test_a_known_kind_that_a_reader_calls_fatal_is_an_error() -> None:
    assert of_problem(Problem("box clipped", "a.txt", 3, "", fatal=True), "train", "detect").severity == "error"
    assert of_problem(Problem("box clipped", "a.txt", 3, ""), "train", "detect").severity == "note"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("is not a picture (starts with '<html>')", "not a picture"),
        ("is a git-LFS pointer, not the picture; run git lfs pull", "not a picture"),
        ("is empty (0 bytes)", "not a picture"),
        ("20000x20000 is more than 178956970 pixels; tile it or make it smaller", "picture too large"),
        ("too large (Image size exceeds limit); tile it or make it smaller", "picture too large"),
        ("damaged picture (OSError: truncated)", "damaged image"),
    ],
)
def test_why_a_picture_cannot_be_read_decides_what_to_do(reason: str, kind: str) -> None:
    assert kind_of_reason(reason) == kind
    assert of_problem(Problem("damaged image", "a.jpg", None, reason), "train", "classify").kind == kind


def test_readers_of_masks_have_the_words_of_boxes() -> None:
    for kind, other in (("class out of range", "mask value"), ("wrong size", "mask size")):
        assert of_problem(Problem(kind, "m.png", None, ""), "train", "segment").kind == other
        assert of_problem(Problem(kind, "m.png", None, ""), "train", "detect").kind == kind

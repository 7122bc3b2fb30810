"""One idea a file, one thought a function, and a file is called after its idea."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import pytest

from tests.shape import source

FORBIDDEN = re.compile(r"(utils?|misc|core|common|helpers?|base_.*|.*_utils?)")


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end; a docstring is a page of the handbook and does not count."""
    total = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        total -= (first.end_lineno or 0) - first.lineno + 1
    return total


@pytest.mark.parametrize("path", source.files(), ids=source.name)
def test_a_file_holds_one_idea(path: Path) -> None:
    limit = 350 if path.is_relative_to(source.ROOT / "torso") else 500
    assert lines(path) <= limit, f"{source.name(path)} has more than {limit} lines: does it hold two ideas?"


@pytest.mark.parametrize("path", source.files(), ids=source.name)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    long = [
        f"{node.name}:{node.lineno} ({length(node)} lines)" for node in source.functions(path) if length(node) >= 60
    ]
    assert not long, f"{source.name(path)}: functions of 60 lines and more: {long}"


def test_most_files_are_short() -> None:
    sizes = [size for path in source.files("torso") if (size := lines(path)) > 10]
    assert statistics.median(sizes) <= 165, "the median file of torso/ should have about 150 lines"


def test_names_of_files_say_what_is_in_them() -> None:
    empty = [source.name(path) for path in source.files() if FORBIDDEN.fullmatch(path.stem)]
    empty += [source.name(path.parent) for path in source.files() if FORBIDDEN.fullmatch(path.parent.name)]
    assert not empty, f"these names say nothing about the content: {empty}"


def test_classes_are_abstract_or_final() -> None:
    """At most one class of torso above any class of torso: wrap instead of override."""
    bases = {
        node.name: [source.dotted(base).rsplit(".", 1)[-1] for base in node.bases]
        for path in source.files("torso")
        for node in ast.walk(source.tree(path))
        if isinstance(node, ast.ClassDef)
    }
    errors = {"TorsoError"}  # exceptions are told apart by what they inherit, and override nothing
    deep = [
        f"{name} < {base} < {above}"
        for name, above_it in bases.items()
        for base in above_it
        for above in bases.get(base, [])
        if above in bases and above not in errors and name != base
    ]
    assert not deep, f"chains of more than two classes: {deep}"

"""What every part owes: a page, a source, a typed signature, and a test that speaks for it."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import pytest

from tests.shape import source
from tests.shape.parts import all_parts, own_parts, parameters

OWN = pytest.mark.parametrize("part", [pytest.param(part, id=key) for key, part in own_parts().items()])


@OWN
def test_its_docstring_is_a_page(part: Any) -> None:
    page = inspect.cleandoc(part.__doc__ or "")
    sentence = page.partition("\n\n")[0].replace("\n", " ")
    assert sentence.endswith("."), f"{part.__qualname__}: the docstring begins with a sentence"
    assert len(sentence) <= 250, f"{part.__qualname__}: one sentence, then a blank line, then the rest"
    origin = page.split("\n\n")[-1]
    assert re.match(r"Source: \S", origin), f"{part.__qualname__}: the last paragraph is 'Source: ...', not {origin!r}"


@OWN
def test_its_signature_is_its_schema(part: Any) -> None:
    loose = [
        name for name, given in parameters(part).items() if given.kind in (given.VAR_KEYWORD, given.VAR_POSITIONAL)
    ]
    assert not loose, f"{part.__qualname__}: *{loose} swallows misspelled arguments"
    bare = [name for name, given in parameters(part).items() if given.annotation is inspect.Parameter.empty]
    assert not bare, f"{part.__qualname__}: no type for {bare}"


def test_names_are_words() -> None:
    odd = [key for key in all_parts() if not re.fullmatch(r"[a-z]+/[a-z0-9]+(_[a-z0-9]+)*", key)]
    assert not odd


def marked() -> set[str]:
    """Ids that the marks called ``part`` of all tests name."""
    return {
        argument.value
        for path in source.files("tests")
        for node in ast.walk(source.tree(path))
        if isinstance(node, ast.Call) and source.dotted(node.func) == "pytest.mark.part"
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def test_every_part_has_a_test_that_speaks_for_it() -> None:
    missing = sorted(set(all_parts()) - marked())
    assert not missing, f"no test carries the mark `part` for {missing}"

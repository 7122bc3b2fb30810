"""YAML without traps, and overrides."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torso.config import Problem, RecipeError, dump, node, override, parse
from torso.config.nodes import MAX_CHARACTERS, scalar

if TYPE_CHECKING:
    pass  # type: ignore[import-not-found]
from tests.unit.config.world import SMALL, checked, said

# ---------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-3", -3), ("+3", 3), ("0", 0), ("0x1F", 31), ("0o17", 15),
        ("1e-3", 1e-3), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-0.0", -0.0), (".inf", math.inf),
        ("-.inf", -math.inf), ("+.INF", math.inf),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("no", "no"), ("No", "No"), ("on", "on"), ("off", "off"), ("yes", "yes"), ("y", "y"), ("n", "n"),
        ("012", "012"), ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("1_000", "1_000"), ("0b11", "0b11"),
        ("2001-12-14", "2001-12-14"), ("=", "="), ("<<", "<<"), ("1e", "1e"), ("e5", "e5"), (".", "."), ("inf", "inf"),
        ("nan", "nan"), ("\u0661", "\u0661"), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)
    if "\n" not in text and text not in ("", "=", "<<"):
        assert parse(f"a: {text}", "f").plain() == {"a": value}


def test_nan_is_a_number_that_no_setting_accepts() -> None:
    assert math.isnan(scalar(".nan"))
    assert said(SMALL, "model.backbone.rate=.nan") == [
        "override model.backbone.rate=.nan: model.backbone.rate: expected a number, got nan"
    ]


def test_quoted_scalars_stay_text() -> None:
    assert parse("[\"1\", 'true', '', \"~\"]", "f").plain() == ["1", "true", "", "~"]
    assert parse("a: |-\n  12\n", "f").plain() == {"a": "12"}


def test_the_norway_problem() -> None:
    assert parse("names: [no, yes, on, off, NO, 012, 1:30]", "f").plain() == {
        "names": ["no", "yes", "on", "off", "NO", "012", "1:30"]
    }
    # Numbers in a list of names stay as they are written.
    assert checked(SMALL + "# ", "data.names=[no, 1, 1e3, 012, 0x1F]")["data"].args["names"] == [
        "no", "1", "1e3", "012", "0x1F",
    ]  # fmt: skip
    assert "got true" in said(SMALL, "data.names=[no, true]")[0]


def test_places() -> None:
    tree = parse("a:\n  b: 1\n  c:\n  - x\n  - {d: [1,\n     2]}\n", "f.yaml").value["a"]
    assert tree.where == "f.yaml:1"
    assert {key: value.where for key, value in tree.value.items()} == {"b": "f.yaml:2", "c": "f.yaml:3"}
    second = tree.value["c"].value[1]
    assert second.where == "f.yaml:5"
    assert [item.where for item in second.value["d"].value] == ["f.yaml:5", "f.yaml:6"]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: 2\na: 3", ["f.yaml:3: the key 'a' is there already (f.yaml:1); remove one"]),
        ("a: {x: 1, x: 1}", ["f.yaml:1: the key 'x' is there already (f.yaml:1); remove one"]),
        (
            "a: &x 1\nb: *x",
            [
                "f.yaml:1: anchors (&x) are not allowed",
                "f.yaml:2: aliases (*x) are not allowed: write the value again",
            ],
        ),
        (
            "a: !!python/object/apply:os.system [echo]",
            [
                "f.yaml:1: tags (tag:yaml.org,2002:python/object/apply:os.system) are not allowed: "
                "a recipe holds plain values only"
            ],
        ),
        (
            "a: !!float 1",
            ["f.yaml:1: tags (tag:yaml.org,2002:float) are not allowed: a recipe holds plain values only"],
        ),
        ("a: !x 1", ["f.yaml:1: tags (!x) are not allowed: a recipe holds plain values only"]),
        ("a: 1\n---\nb: 1", ["f.yaml:2: a second document begins; a recipe is one"]),
        ("a: [1, 2", ["f.yaml:1: this is not YAML: expected ',' or ']', but got '<stream end>'"]),
        ("a: 1\n  b: 2", ["f.yaml:2: this is not YAML: mapping values are not allowed here"]),
        ("a:\n\t- b", ["f.yaml:2: this is not YAML: found character '\\t' that cannot start any token"]),
        ("a: \x07", ["f.yaml: this is not YAML: unacceptable character #x0007: special characters are not allowed"]),
        ("{[1, 2]: 3}", ["f.yaml:1: a key must be a word, got a list of 2"]),
        ('a: "\\ud800"', ["f.yaml:1: half of a surrogate pair is not text"]),
        ("[" * 60 + "]" * 60, ["f.yaml: this is not YAML: more than 50 levels are nested"]),
    ],
)
def test_what_is_refused_in_yaml(text: str, problems: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text, "f.yaml")
    assert [str(problem) for problem in caught.value.problems] == problems


def test_a_bomb_of_aliases_and_a_deep_or_huge_text_end_at_once() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    for text in (bomb, "[" * 100_000, "{a: " * 100_000, "- " * 50_000, "a: " + "x" * MAX_CHARACTERS):
        with pytest.raises(RecipeError):
            parse(text, "f")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(
        ["no", "1e-3", "012", "1:30", "~", "", " ", "null", "0x1", ".inf", "- a", "a: b", "#", "'", "\x85"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
@settings(deadline=None)
def test_what_is_written_is_read_back(tree: Any) -> None:
    found = parse(dump(tree), "f").plain()
    assert found == tree
    assert repr(found) == repr(tree)  # 1 is not 1.0 is not True


@given(st.text() | st.text(alphabet="ab:{}[]-,#&*!|>'\"%@`?. \n\t\\019eE~<=u"))
@settings(deadline=None, max_examples=400)
def test_random_text_is_nodes_or_a_recipe_error(text: str) -> None:
    with contextlib.suppress(RecipeError):
        tree = parse(text, "f").plain()
        assert repr(parse(dump(tree), "f").plain()) == repr(tree)


@pytest.mark.parametrize(
    "text", ['"\\UFFFFFFFF"', "%YAML " + "9" * 5000 + ".1\n---\na", '"\\x"', "%", "? ? ?", "\ufeff"]
)
def test_what_makes_pyyaml_itself_stumble(text: str) -> None:
    with contextlib.suppress(RecipeError):
        parse(text, "f")


# ---------------------------------------------------------------- overrides


def applied(tree: Any, *texts: str) -> Any:
    problems: list[Problem] = []
    found = override(node(tree, "f"), texts, problems).plain()
    assert not problems
    return found


@pytest.mark.parametrize(
    ("tree", "text", "expected"),
    [
        ({"a": {"b": 1}}, "a.b=2", {"a": {"b": 2}}),
        ({"a": {"b": 1}}, "a.c=x", {"a": {"b": 1, "c": "x"}}),
        ({}, "a.b.c=1e-3", {"a": {"b": {"c": 1e-3}}}),
        ({"a": "fpn"}, "a.channels=8", {"a": {"name": "fpn", "channels": 8}}),
        ({"a": {"name": "fpn", "channels": 8}}, "a=pan", {"a": "pan"}),
        ({"a": {"name": "fpn", "channels": 8}}, "a.name=pan", {"a": {"name": "pan"}}),
        ({"a": {"name": "fpn", "channels": 8}}, "a={name: pan, x: 1}", {"a": {"name": "pan", "x": 1}}),
        ({"a": {"name": "fpn", "channels": 8}}, "a={x: 1}", {"a": {"name": "fpn", "channels": 8, "x": 1}}),
        ({"a": {"name": "fpn"}}, "a=null", {"a": None}),
        ({"a": [{"name": "clip", "norm": 35}]}, "a.0.norm=10", {"a": [{"name": "clip", "norm": 10}]}),
        ({"a": ["x", "y"]}, "a.1.p=0", {"a": ["x", {"name": "y", "p": 0}]}),
        ({"a": ["x"]}, "a.1=y", {"a": ["x", "y"]}),
        ({"a": ["x"]}, "a=[]", {"a": []}),
        ({"a": 1}, "a=[1, {b: no}]", {"a": [1, {"b": "no"}]}),
        ({}, "a='1'", {"a": "1"}),
        ({}, 'a="x y"', {"a": "x y"}),
        # A path needs no quotes, whatever is in it.
        ({}, "a=C:\\Users\\x: y #1 & z", {"a": "C:\\Users\\x: y #1 & z"}),
        ({}, "a=$HOME/*.jpg", {"a": "$HOME/*.jpg"}),
        ({}, "a=~/x", {"a": "~/x"}),
        ({}, "a=数据/图 片", {"a": "数据/图 片"}),
        ({}, "a=b=c", {"a": "b=c"}),
        ({}, "a=", {"a": None}),
        ({}, "--a.b=1", {"a": {"b": 1}}),
    ],
)
def test_overrides(tree: Any, text: str, expected: Any) -> None:
    assert applied(tree, text) == expected


def test_an_override_leaves_the_tree_it_was_given() -> None:
    tree = node({"a": {"b": [1]}}, "f")
    override(tree, ["a.b.0=2", "a.c=1"], [])
    assert tree.plain() == {"a": {"b": [1]}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a", "override a: expected key=value, for example data.path=DIR"),
        ("=1", "override =1: expected key=value, for example data.path=DIR"),
        ("a..b=1", "override a..b=1: expected key=value, for example data.path=DIR"),
        (".".join("a" * 60) + "=1", f"override {'.'.join('a' * 60)}=1: expected key=value, for example data.path=DIR"),
        ("a=[1", "override a=[1: this is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("b.2=x", "override b.2=x: b is a list of 1: it has no item 2 (they count from 0)"),
        ("a=\udcff", "'override a=\\udcff': this is not UTF-8"),
    ],
)
def test_overrides_that_cannot_be(text: str, problem: str) -> None:
    problems: list[Problem] = []
    override(node({"b": [1]}, "f"), text, problems)
    assert [str(one) for one in problems] == [problem]

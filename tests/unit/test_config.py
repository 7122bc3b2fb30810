"""Recipe text to parts: YAML without traps, signatures as schema, every problem at once and in words."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torso import config
from torso.config import Problem, RecipeError, Role, Spec, check, dump, node, override, parse
from torso.config import roles as roles_module
from torso.config.nodes import MAX_CHARACTERS, scalar
from torso.config.signatures import kind_of

if TYPE_CHECKING:
    from nowhere import Hidden  # type: ignore[import-not-found]

# ---------------------------------------------------------------- a small world of parts


class Relu:
    def __init__(self, inplace: bool = False):
        self.inplace = inplace


class Norm:
    def __init__(self, num_features: int, eps: float = 1e-5):
        self.num_features, self.eps = num_features, eps


class Ema:
    def __init__(self, decay: float = 0.9):
        self.decay = decay


class Clip:
    def __init__(self, norm: float):
        self.norm = norm


class Fpn:
    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        mode: Literal["nearest", "bilinear"] = "nearest",
        norm: Annotated[Callable[[int], Norm] | None, Role("norm", factory=True)] = None,
    ):
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        self.in_channels, self.strides, self.channels, self.mode, self.norm = in_channels, strides, channels, mode, norm


class Plain:
    def __init__(self, in_channels: Sequence[int], act: Annotated[Relu, Role("act")] = Relu):  # type: ignore[assignment]
        self.in_channels, self.act = in_channels, act


class Tiny:
    def __init__(self, widths: Sequence[int] = (16, 32), weights: str | None = None, rate: float = 0):
        self.widths, self.weights, self.rate, self.channels = widths, weights, rate, list(widths)


class Sgd:
    """As a library would have it: nothing annotated."""

    def __init__(self, params, lr=1e-3, momentum=0, nesterov=False, betas=(0.9, 0.999), foreach=None, **more):
        self.params, self.lr, self.momentum = params, lr, momentum


def detector(
    num_classes: int,
    *,
    backbone: Annotated[Spec, Role("backbone")],
    neck: Annotated[Spec, Role("neck")] = "fpn",  # type: ignore[assignment]
    topk: int = 100,
) -> tuple[Any, ...]:
    body = backbone.build()
    return body, neck.build(in_channels=body.channels, strides=[4, 8]), num_classes, topk


def data(*, path: str, size: int | tuple[int, int] = 64, names: Sequence[str] = ()) -> dict[str, Any]:
    return dict(locals())


def training(
    *,
    epochs: int = 3,
    optimizer: Annotated[Spec, Role("optimizer")] = "sgd",  # type: ignore[assignment]
    tricks: Annotated[Sequence[Any], Role("trick")] = ("ema",),
    best: str | None = None,
) -> dict[str, Any]:
    return dict(locals())


WORLD = {
    "act": {"relu": Relu},
    "norm": {"norm": Norm},
    "trick": {"ema": Ema, "clip": Clip},
    "neck": {"fpn": Fpn, "plain": Plain},
    "backbone": {"tiny": Tiny},
    "optimizer": {"sgd": Sgd},
    "model": {"detector": detector},
}
SECTIONS: dict[str, Any] = {"model": Role("model"), "data": data, "train": training}
SMALL = "model: {name: detector, backbone: tiny}\ndata: {path: here}\n"


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("small_world")
    for role, listed in WORLD.items():
        setattr(module, role.upper(), listed)
    monkeypatch.setitem(sys.modules, "small_world", module)
    for role in list(config.ROLES):
        monkeypatch.delitem(config.ROLES, role)
    for role in WORLD:
        monkeypatch.setitem(config.ROLES, role, f"small_world:{role.upper()}")
    monkeypatch.setattr(roles_module, "_added", {})
    monkeypatch.setattr(roles_module, "_installed", lambda: ())
    yield
    config.parameters.cache_clear()


def checked(text: str, *overrides: str) -> dict[str, Spec]:
    problems: list[Problem] = []
    tree = override(parse(text, "my.yaml"), overrides, problems)
    return check(tree, SECTIONS, problems=problems)


def said(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        checked(text, *overrides)
    return [str(problem) for problem in caught.value.problems]


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


# ---------------------------------------------------------------- what is wrong, in words


GOLDEN = """\
model:
  name: detector
  backbone: {name: tiny, widths: [16, many], wieghts: x}
  nek: fpn
  neck:
    name: fpn
    in_channels: [1, 2]
    channels: 1.5
    mode: bilinaer
    norm: nrom
  topk: true
data:
  size: [1, 2, 3]
  names: cat
train:
  epochs: lots
  lr: 0.1
  optimizer: {name: sdg}
  tricks: [ema, {name: clip}, {norm: 3}, 7, {name: 8}]
epoch: 3
"""


def test_all_problems_at_once() -> None:
    assert said(GOLDEN) == [
        "my.yaml:20: a recipe has no section 'epoch'; choose from model, data, train",
        "my.yaml:3: model.backbone.widths.1: expected a whole number, got 'many'",
        "my.yaml:3: model.backbone.wieghts: backbone 'tiny' has no 'wieghts'; did you mean 'weights'?",
        "my.yaml:8: model.neck.channels: expected a whole number, got 1.5",
        "my.yaml:9: model.neck.mode: expected 'nearest' or 'bilinear', got 'bilinaer'; did you mean 'bilinear'?",
        "my.yaml:10: model.neck.norm: no norm is called 'nrom'; did you mean 'norm'?",
        "my.yaml:7: model.neck.in_channels: decided by the other parts; it cannot be set, remove it",
        "my.yaml:11: model.topk: expected a whole number, got true",
        "my.yaml:4: model.nek: model 'detector' has no 'nek'; did you mean 'neck'?",
        "my.yaml:12: data.path: missing; data needs it: text",
        "my.yaml:13: data.size: expected a whole number or a list of 2 (a whole number, a whole number), "
        "got a list of 3",
        "my.yaml:14: data.names: expected a list (each item text), got 'cat'",
        "my.yaml:16: train.epochs: expected a whole number, got 'lots'",
        "my.yaml:18: train.optimizer: no optimizer is called 'sdg'; did you mean 'sgd'?",
        "my.yaml:19: train.tricks.1.norm: missing; trick 'clip' needs it: a number",
        "my.yaml:19: train.tricks.2: the name of a trick is missing",
        "my.yaml:19: train.tricks.3: expected a trick, got 7",
        "my.yaml:19: train.tricks.4.name: expected the name of a trick, got 8",
        "my.yaml:17: train.lr: train has no 'lr'; it takes epochs, optimizer, tricks, best",
    ]


def test_one_problem_is_one_sentence_and_many_are_a_list() -> None:
    with pytest.raises(RecipeError) as one:
        checked(SMALL, "model.topk=x")
    assert str(one.value) == "override model.topk=x: model.topk: expected a whole number, got 'x'"
    with pytest.raises(RecipeError) as two:
        checked(SMALL, "model.topk=x", "train.epochs=y")
    assert str(two.value).startswith("2 problems in the recipe\n  override model.topk=x: ")
    assert two.value.code == 2


OWN = ", or bring your own with --import MODULE"
WIRED = "decided by the other parts; it cannot be set, remove it"


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["model.nek=fpn"], "model.nek: model 'detector' has no 'nek'; did you mean 'neck'?"),
        (["epochs=3"], "a recipe has no section 'epochs'; did you mean 'train.epochs'?"),
        (["train.lr=3"], "train.lr: train has no 'lr'; did you mean 'train.optimizer.lr'?"),
        (["model.num_classes=3"], f"model.num_classes: {WIRED}"),
        (["train.optimizer.params=[]"], f"train.optimizer.params: {WIRED}"),
        (["train.optimizer.foreach=true"], f"train.optimizer.foreach: {WIRED}"),
        (["model.neck.norm=norm", "model.neck.norm.num_features=3"], f"model.neck.norm.num_features: {WIRED}"),
        (
            ["model.neck=plain", "model.neck.channels=3"],
            "model.neck.channels: neck 'plain' has no 'channels'; it takes act",
        ),
        (["model=null"], "model: expected a model, got null"),
        (["data=3"], "data: expected a mapping, got 3"),
        (["model.neck=[fpn]"], "model.neck: expected a neck, got a list of 1"),
        (["model.neck.norm=3"], "model.neck.norm: expected a norm or null, got 3"),
        (["model.neck.name=null"], "model.neck.name: expected the name of a neck, got null"),
        (["train.tricks.4=ema"], "train.tricks is a list of 1: it has no item 4 (they count from 0)"),
        (["train.best=[1]"], "train.best: expected text or null, got a list of 1"),
    ],
)
def test_the_message_of_an_override(overrides: list[str], problem: str) -> None:
    assert said(SMALL, *overrides) == [f"override {overrides[-1]}: {problem}"]


def test_what_no_override_can_be_is_told_with_what_it_says() -> None:
    assert said(SMALL, "train.tricks=[]", "train.tricks.1=ema", "a", "model.topk=x") == [
        "override train.tricks.1=ema: train.tricks is a list of 0: it has no item 1 (they count from 0)",
        "override a: expected key=value, for example data.path=DIR",
        "override model.topk=x: model.topk: expected a whole number, got 'x'",
    ]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["my.yaml: expected the sections model, data, train, got null"]),
        ("- a", ["my.yaml:1: expected the sections model, data, train, got a list of 1"]),
        ("data: {path: x}", ["my.yaml:1: model: missing; expected a model"]),
        (
            "model: detector\ndata: {path: x}",
            ["my.yaml:1: model.backbone: missing; model 'detector' needs it: a backbone"],
        ),
        ("model: x\ndata: {path: x}", [f"my.yaml:1: model: no model is called 'x'; choose from detector{OWN}"]),
        ("model:\n  backbone: tiny\ndata: {path: x}", ["my.yaml:1: model: the name of a model is missing"]),
        (
            "model: {name: [x]}\ndata: {path: x}",
            ["my.yaml:1: model.name: expected the name of a model, got a list of 1"],
        ),
    ],
)
def test_messages_of_small_recipes(text: str, problems: list[str]) -> None:
    assert said(text) == problems


def test_a_role_that_cannot_be_loaded_is_a_problem_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.ROLES, "neck", "no_such_module:NECKS")
    assert said(SMALL, "train.epochs=x") == [
        "my.yaml:1: the parts of role 'neck' (no_such_module:NECKS) cannot be loaded: No module named 'no_such_module'",
        "override train.epochs=x: train.epochs: expected a whole number, got 'x'",
    ]


# ---------------------------------------------------------------- what comes out


def test_defaults_are_visible_and_parts_know_their_place() -> None:
    found = checked(SMALL)
    assert found["model"].tree() == {
        "name": "detector",
        "backbone": {"name": "tiny", "widths": [16, 32], "weights": None, "rate": 0.0},
        "neck": {"name": "fpn", "channels": 256, "mode": "nearest", "norm": None},
        "topk": 100,
    }
    assert found["data"].tree() == {"path": "here", "size": 64, "names": []}
    assert found["train"].tree() == {
        "epochs": 3,
        "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0, "nesterov": False, "betas": [0.9, 0.999]},
        "tricks": [{"name": "ema", "decay": 0.9}],
        "best": None,
    }
    backbone = found["model"].args["backbone"]
    assert (backbone.where, backbone.path, backbone.role, backbone.name) == (
        "my.yaml:1",
        "model.backbone",
        "backbone",
        "tiny",
    )


def test_the_resolved_tree_is_a_fixed_point() -> None:
    overrides = [
        "model.neck=plain",
        "train.tricks=[{name: clip, norm: 3}, ema]",
        "data.size=[3, 4]",
        "model.backbone.rate=1",
    ]
    trees = {name: spec.tree() for name, spec in checked(SMALL, *overrides).items()}
    again = {name: spec.tree() for name, spec in checked(dump(trees)).items()}
    assert again == trees
    assert dump(again) == dump(trees)


def test_build() -> None:
    found = checked(
        SMALL, "model.neck={name: fpn, channels: 8, norm: {name: norm, eps: 1}}", "train.tricks.0.decay=0.5"
    )
    body, neck, classes, topk = found["model"].build(num_classes=7)
    assert isinstance(body, Tiny)
    assert (body.widths, classes, topk) == ([16, 32], 7, 100)
    assert (neck.in_channels, neck.strides, neck.channels) == ([16, 32], [4, 8], 8)
    layer = neck.norm(64)  # a factory: the layer that uses it says how wide
    assert (layer.num_features, layer.eps) == (64, 1.0)
    assert isinstance(layer.eps, float)
    train = found["train"].build()
    assert isinstance(train["tricks"][0], Ema)
    assert train["tricks"][0].decay == 0.5
    assert isinstance(train["optimizer"], Spec)  # the signature asks for the Spec, to build it when the model is there
    assert train["optimizer"].build(params=[1]).params == [1]
    assert checked(SMALL, "data.size=[3, 4]")["data"].build()["size"] == (3, 4)


def test_a_part_gets_only_the_wiring_it_asks_for_and_only_known_names_are_dropped() -> None:
    spec = config.spec("neck", "plain")
    assert spec.build(in_channels=[1], strides=[2]).in_channels == [1]
    assert isinstance(spec.build(in_channels=[1]).act, Relu)
    with pytest.raises(TypeError, match="chanels"):
        spec.build(in_channels=[1], chanels=3)


def test_a_value_the_constructor_refuses_is_told_with_its_place() -> None:
    with pytest.raises(RecipeError) as caught:
        checked(SMALL, "model.neck.channels=0")["model"].build(num_classes=2)
    assert str(caught.value) == (
        "my.yaml:1, override model.neck.channels=0: model.neck (fpn): channels must be positive, got 0"
    )


def test_arguments_without_a_name_change_the_part_that_is_there() -> None:
    assert checked(SMALL, "model.neck.channels=8")["model"].args["neck"].args["channels"] == 8
    assert checked(SMALL, "model.neck=plain", "model.neck=fpn")["model"].args["neck"].args["channels"] == 256
    assert checked(SMALL + "train: {tricks: [{name: clip, norm: 1}]}", "train.tricks.0.norm=10")["train"].tree()[
        "tricks"
    ] == [{"name": "clip", "norm": 10.0}]


def test_a_class_as_default_is_shown_by_its_name() -> None:
    assert config.spec("neck", "plain").tree() == {"name": "plain", "act": {"name": "relu", "inplace": False}}


def test_spec_of_plain_data_and_its_problems() -> None:
    assert config.spec("neck", {"name": "fpn", "channels": 3}).args["channels"] == 3
    with pytest.raises(RecipeError, match=r"neck\.channels: expected a whole number, got 'x'"):
        config.spec("neck", {"name": "fpn", "channels": "x"})
    with pytest.raises(RecipeError, match="neck: expected a neck, got 3"):
        config.spec("neck", 3)


# ---------------------------------------------------------------- kinds


def read(annotation: Any, text: str) -> Any:
    """The value that text gives for an annotation, or the message."""

    def target(x: Any) -> None: ...

    target.__annotations__["x"] = annotation
    try:
        return check(parse(f"s: {{x: {text}}}", "f"), {"s": target})["s"].args["x"]
    except RecipeError as error:
        return str(error).removeprefix("f:1: s.x: ")


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (int, "3", 3),
        (int, "3.0", "expected a whole number, got 3.0"),
        (int, "true", "expected a whole number, got true"),
        (float, "3", 3.0),
        (float, "1e-3", 1e-3),
        (float, ".inf", math.inf),
        (float, "'3'", "expected a number, got '3'"),
        (float, "false", "expected a number, got false"),
        (float, "1" + "0" * 310, "expected a number, got 1" + "0" * 310),
        (bool, "true", True),
        (bool, "1", "expected true or false, got 1"),
        (bool, "yes", "expected true or false, got 'yes'"),
        (str, "no", "no"),
        (str, "2024", "2024"),
        (str, "012", "012"),
        (str, "1e3", "1e3"),
        (str, "true", "expected text, got true"),
        (str, "null", "expected text, got null"),
        (str | None, "null", None),
        (Optional[int], "~", None),  # noqa: UP045
        (int | str, "3", 3),
        (str | int, "3", 3),
        (int | float, "3", 3),
        (float | int, "3", 3),
        (float | str, "a", "a"),
        (bool | int, "true", True),
        (int | bool, "true", True),
        (float | None, "x", "expected a number or null, got 'x'"),
        (Literal["a", "b"], "a", "a"),
        (Literal[18, 50], "50", 50),
        (Literal[18, 50], "34", "expected 18 or 50, got 34"),
        (Literal[1], "true", "expected 1, got true"),
        (Literal["a"] | None, "null", None),
        (Literal["batch", "image"], "bach", "expected 'batch' or 'image', got 'bach'; did you mean 'batch'?"),
        (list[int], "[1, 2]", [1, 2]),
        (Sequence[int], "[]", []),
        (list[int], "[1, x]", "f:1: s.x.1: expected a whole number, got 'x'"),
        (list[int], "1", "expected a list (each item a whole number), got 1"),
        (tuple[int, ...], "[1, 2]", (1, 2)),
        (tuple[int, str], "[1, 2]", (1, "2")),
        (tuple[int, str], "[1]", "expected a list of 2 (a whole number, text), got a list of 1"),
        (Sequence[tuple[float, float]], "[[1, 2], [3, 4]]", [(1.0, 2.0), (3.0, 4.0)]),
        (Sequence[Sequence[float]] | None, "[[1], []]", [[1.0], []]),
        (list, "[1, a]", [1, "a"]),
        (dict[str, int], "{a: 1}", {"a": 1}),
        (Mapping[str, int], "{a: b}", "f:1: s.x.a: expected a whole number, got 'b'"),
        (dict[str, int], "[a]", "expected a mapping (each value a whole number), got a list of 1"),
        (dict, "{a: [1]}", {"a": [1]}),
        (Any, "{a: [1, no]}", {"a": [1, "no"]}),
        (int | tuple[int, int], "[1, 2]", (1, 2)),
        (int | tuple[str, str], "[1]", "expected a whole number or a list of 2 (text, text), got a list of 1"),
        (int | Sequence[int], "[1, x]", "f:1: s.x.1: expected a whole number, got 'x'"),
        (Annotated[int, "metres"], "3", 3),
        (float | ModuleType, "3", 3.0),
    ],
)  # fmt: skip
def test_kinds(annotation: Any, text: str, expected: Any) -> None:
    found = read(annotation, text)
    found = found.removeprefix("f:1: s.x: ") if isinstance(found, str) else found
    expected = expected.removeprefix("f:1: s.x: ") if isinstance(expected, str) else expected
    assert found == expected
    assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    "annotation", [ModuleType, Callable[[], int], list[ModuleType], dict[str, ModuleType], ModuleType | None]
)
def test_what_a_recipe_cannot_express_is_for_code(annotation: Any) -> None:
    assert kind_of(annotation) is None


def test_parts_within_lists_mappings_and_unions() -> None:
    assert isinstance(read(Annotated[dict[str, Ema], Role("trick")], "{a: ema}")["a"], Spec)
    assert read(Annotated[list[Ema] | None, Role("trick")], "null") is None
    assert (
        read(list[Annotated[Ema, Role("trick")]], "[emma]")
        == "f:1: s.x.0: no trick is called 'emma'; did you mean 'ema'?"
    )
    assert read(Annotated[Ema | Clip | None, Role("trick")], "{name: clip}") == (
        "f:1: s.x.norm: missing; trick 'clip' needs it: a number"
    )


# ---------------------------------------------------------------- signatures


def test_annotations_of_dataclasses_partials_and_inherited_constructors() -> None:
    @dataclass
    class Point:
        x: int
        y: Annotated[float, "m"] = 0.0

    class Inherits(Fpn):
        pass

    assert {name: one.kind.says() for name, one in config.parameters(Point).items() if one.kind} == {
        "x": "a whole number",
        "y": "a number",
    }
    assert list(config.parameters(Inherits)) == list(config.parameters(Fpn))
    bound = config.parameters(partial(Tiny, rate=0.5))
    assert bound["rate"].default == 0.5
    assert bound["widths"].kind is not None


def test_a_hint_for_type_checkers_only_hides_no_other() -> None:
    def target(hidden: Hidden, seen: int = 3) -> None: ...

    found = config.parameters(target)
    assert found["hidden"].wired
    assert found["seen"].kind is not None
    assert found["seen"].kind.says() == "a whole number"


def test_unannotated_arguments_are_inferred_from_their_defaults() -> None:
    says = {name: one.kind.says() for name, one in config.parameters(Sgd).items() if one.kind and not one.wired}
    assert says == {
        "lr": "a whole number or a number",
        "momentum": "a whole number or a number",
        "nesterov": "true or false",
        "betas": "a list (each item a whole number or a number)",
    }
    assert config.spec("optimizer", {"name": "sgd", "momentum": 0.9}).build(params=[]).momentum == 0.9


def test_the_signatures_of_torch() -> None:
    import torch

    sgd, adamw = config.parameters(torch.optim.SGD), config.parameters(torch.optim.AdamW)
    assert sgd["params"].wired
    assert sgd["lr"].kind == adamw["eps"].kind == kind_of(float)
    assert adamw["betas"].kind == kind_of(tuple[float, float])
    norm = config.parameters(torch.nn.BatchNorm2d, factory=True)
    assert norm["num_features"].wired
    assert not norm["eps"].wired
    assert norm["device"].wired
    assert [name for name, one in config.parameters(torch.nn.LeakyReLU, factory=True).items() if not one.wired] == [
        "negative_slope",
        "inplace",
    ]


def test_a_default_of_none_may_be_null_whatever_the_annotation_says() -> None:
    def target(x: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert check(parse("s: {}", "f"), {"s": target})["s"].tree() == {"x": None}
    assert check(parse("s: {x: null}", "f"), {"s": target})["s"].tree() == {"x": None}


# ---------------------------------------------------------------- roles


def test_find() -> None:
    assert config.find("neck", "fpn") is Fpn
    with pytest.raises(RecipeError, match="no neck is called 'fnp'; did you mean 'fpn'\\?"):
        config.find("neck", "fnp")
    with pytest.raises(RecipeError, match="there is no role 'nek'; did you mean 'neck'\\?"):
        config.find("nek", "fpn")


def test_long_lists_of_names_are_cut() -> None:
    assert config.suggestion("?", [f"part{i}" for i in range(100)]).endswith("part23, ...")


def test_a_module_of_the_user_adds_parts(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylab_for_test.py").write_text(
        "class MyNeck:\n    def __init__(self, width: int = 3): self.width = width\n"
        "PARTS = {'neck': {'my_neck': MyNeck}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    config.add_module("mylab_for_test")
    config.add_module("mylab_for_test")  # twice is no harm
    assert checked(SMALL, "model.neck=my_neck", "model.neck.width=4")["model"].args["neck"].args == {"width": 4}
    sys.modules.pop("mylab_for_test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PARTS = 3", "expected PARTS ="),
        ("", "expected PARTS ="),
        ("PARTS = {'nek': {}}", "there is no role 'nek'; did you mean 'neck'"),
        ("PARTS = {'neck': {'x': 3}}", "neck 'x' must be a class or a function, got int"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
    ],
)
def test_a_module_that_cannot_be_used(text: str, message: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylab_broken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mylab_broken", None)
    with pytest.raises(RecipeError) as caught:
        config.add_module("mylab_broken")
    assert message in str(caught.value)
    sys.modules.pop("mylab_broken", None)


def test_a_name_that_is_taken_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylab_taken.py").write_text("PARTS = {'neck': {'fpn': dict}}")
    monkeypatch.syspath_prepend(tmp_path)
    config.add_module("mylab_taken")
    with pytest.raises(RecipeError, match="--import brings a neck 'fpn', but there is one already"):
        config.parts("neck")
    sys.modules.pop("mylab_taken")


def test_an_installed_package_adds_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    sys.modules["small_world"].MORE = {"theirs": Plain}  # type: ignore[attr-defined]
    entry = importlib.metadata.EntryPoint("neck", "small_world:MORE", "torso.parts")
    monkeypatch.setattr(roles_module, "_installed", lambda: (entry,))
    assert config.find("neck", "theirs") is Plain
    assert "theirs" not in config.parts("trick")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_package:X", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_package'"),
        ("small_world:NOTHING", "cannot be loaded: AttributeError"),
        ("sys:path", "must be a dict of names to classes"),
    ],
)
def test_an_installed_package_that_is_broken(value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("neck", value, "torso.parts")
    monkeypatch.setattr(roles_module, "_installed", lambda: (entry,))
    with pytest.raises(config.TorsoError) as caught:
        config.parts("neck")
    assert message in str(caught.value)
    assert value in str(caught.value)
    assert message in said(SMALL)[0]


def test_config_imports_no_torch() -> None:
    code = "import sys, torso.config; print([m for m in ('torch', 'numpy', 'timm', 'torchvision') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

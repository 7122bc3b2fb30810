"""Signatures as schema, and where parts are found."""

from __future__ import annotations

import importlib.metadata
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest

from torso import config
from torso.config import RecipeError, Role, Spec, check, parse
from torso.config import roles as roles_module
from torso.config.signatures import kind_of

if TYPE_CHECKING:
    from nowhere import Hidden  # type: ignore[import-not-found]
from tests.unit.config.world import (
    SMALL,
    Clip,
    Ema,
    Fpn,
    Plain,
    Sgd,
    Tiny,
    checked,
    said,
)

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

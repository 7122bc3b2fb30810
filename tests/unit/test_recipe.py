"""Recipes: base, header, overrides, the resolved tree and its text; nothing but a RecipeError ever comes out."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torso.config import RecipeError
from torso.recipes import recipe as recipe_module
from torso.recipes.recipe import Recipe, shipped

HEADER = "# A paper, 2017, arXiv:1708.02002.\n#\n# Cost: not measured: é 图\n"
TEXT = (
    HEADER
    + """\
model:
  name: detector
  backbone: {name: tiny, widths: [8, 16, 16], levels: [2, 3]}
  neck: {name: fpn, channels: 16, extra: 1}
data: {path: here, size: 64, transforms: [horizontal_flip]}
train:
  epochs: 2
  optimizer: {name: sgd, lr: 1e-2, weight_decay: 1e-4}
  schedule: cosine
  tricks: [{name: clip_gradients, norm: 35}]
"""
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my.yaml").write_text(TEXT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(name: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(name, overrides)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.usefixtures("folder")
def test_load() -> None:
    recipe = Recipe.load("my.yaml", ["train.tricks.0.norm=10", "model.neck.channels=8"])
    assert recipe.name == "my"
    assert recipe.header == "A paper, 2017, arXiv:1708.02002.\n\nCost: not measured: é 图"
    assert list(recipe.tree) == ["model", "data", "train"]
    assert recipe.tree["train"]["tricks"] == [{"name": "clip_gradients", "norm": 10.0}]
    assert recipe.tree["model"]["neck"]["channels"] == 8
    assert recipe.tree["model"]["neck"]["extra_from"] == "output"  # a default
    assert recipe.tree["train"]["optimizer"]["lr"] == 0.01
    assert recipe.model.where == "my.yaml:4"
    assert json.loads(json.dumps(recipe.tree)) == recipe.tree


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_text_of_a_recipe_gives_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name, ["data.path=数 据/no"])
    (tmp_path / "again.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    again = Recipe.load(str(tmp_path / "again.yaml"))
    assert again.tree == recipe.tree
    assert again.header == recipe.header
    assert again.to_yaml() == recipe.to_yaml()
    assert Recipe.from_tree(json.loads(json.dumps(recipe.tree)), name, recipe.header).to_yaml() == recipe.to_yaml()


@pytest.mark.usefixtures("folder")
def test_from_tree_takes_overrides_and_tells_problems() -> None:
    tree = Recipe.load("my.yaml").tree
    assert Recipe.from_tree(tree, overrides=["data.path=x"]).tree["data"]["path"] == "x"
    tree["model"]["nek"] = "fpn"
    with pytest.raises(RecipeError, match=r"^run: model\.nek: model 'detector' has no 'nek'; did you mean 'neck'"):
        Recipe.from_tree(tree, "run")
    for broken in ({"model": object()}, [1], {1: 2}, None):
        with pytest.raises(RecipeError):
            Recipe.from_tree(broken)  # type: ignore[arg-type]


def test_a_recipe_that_does_not_say_where_its_data_is() -> None:
    (problem,) = problems("retinanet")
    assert problem.startswith("retinanet.yaml:")
    assert problem.endswith(": data.path: missing; data needs it: text")
    recipe = Recipe.load("retinanet", without_data=True)
    assert "path" not in recipe.tree["data"]
    assert Recipe.from_tree(recipe.tree, without_data=True).tree == recipe.tree


def test_the_recipes_model_can_be_built(folder: Path) -> None:
    model = Recipe.load(str(folder / "my.yaml")).model.build(num_classes=3)
    assert model.num_classes == 3


# ---------------------------------------------------------------- base


def test_base_is_a_recipe_with_changes(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "child.yaml").write_text(
        "# child\nbase: ../my.yaml\nmodel:\n  neck: {extra: 0}\ntrain: {schedule: {name: step}, tricks: []}\n"
    )
    recipe = Recipe.load("sub/child.yaml", ["train.epochs=9"])
    assert recipe.header == "child"
    assert recipe.tree["model"]["neck"] | {"channels": 16, "extra": 0} == recipe.tree["model"]["neck"]
    assert recipe.tree["model"]["backbone"]["widths"] == [8, 16, 16]
    assert recipe.tree["train"]["schedule"]["name"] == "step"
    assert recipe.tree["train"]["tricks"] == []
    assert recipe.tree["train"]["epochs"] == 9
    assert "base" not in recipe.tree


def test_problems_are_told_with_the_file_they_are_in(folder: Path) -> None:
    (folder / "my.yaml").write_text(TEXT.replace("extra: 1", "extar: 1"), encoding="utf-8")
    (folder / "child.yaml").write_text("base: my.yaml\n\nmodel:\n  nek: fpn\n")
    assert problems("child.yaml") == [
        "my.yaml:7: model.neck.extar: neck 'fpn' has no 'extar'; did you mean 'extra'?",
        "child.yaml:4: model.nek: model 'detector' has no 'nek'; did you mean 'neck'?",
    ]


def test_a_shipped_recipe_as_base(folder: Path) -> None:
    (folder / "child.yaml").write_text("base: retinanet\ndata: {path: x}\n")
    assert Recipe.load("child.yaml").tree["model"] == Recipe.load("retinanet", without_data=True).tree["model"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("base: child.yaml", "child.yaml:1: base: 'child.yaml' leads back to itself"),
        ("base: ./other.yaml", "other.yaml:1: base: 'child.yaml' leads back to itself"),
        ("base: [my.yaml, my.yaml]", "child.yaml:1: base: expected one recipe, got a list of 2"),
        ("base: my.yaml\nbase: my.yaml", "child.yaml:2: the key 'base' is there already (child.yaml:1); remove one"),
        ("base: retinnet", "child.yaml:1: base: no recipe is called 'retinnet'; did you mean 'retinanet'?"),
        ("base: retinanett.yaml", "child.yaml:1: base: there is no file 'retinanett.yaml'; did you mean 'retinanet'?"),
        ("base: .", "child.yaml:1: base: no recipe is called '.'"),
        ("base: ./", "child.yaml:1: base: the recipe './' cannot be read: Is a directory"),
    ],
)
def test_bases_that_cannot_be(text: str, problem: str, folder: Path) -> None:
    (folder / "child.yaml").write_text(text)
    (folder / "other.yaml").write_text("base: child.yaml")
    found = problems("child.yaml")
    assert len(found) == 1
    assert found[0].startswith(problem)


# ---------------------------------------------------------------- files


def test_recipes_that_cannot_be_read(folder: Path) -> None:
    assert problems("retinanot") == [
        "no recipe is called 'retinanot'; did you mean 'retinanet'? (a file's name ends in .yaml)"
    ]
    assert problems("no/such.yaml")[0].startswith("there is no file 'no/such.yaml'; the recipes are ")
    assert problems("x\0.yaml") == ["the recipe 'x\\x00.yaml' cannot be read: embedded null byte"]
    assert problems("x" * 5000 + ".yaml")[0].endswith("cannot be read: File name too long")
    (folder / "bad.yaml").write_bytes(b"a: 1\nb: \xff\n")
    assert problems("bad.yaml") == ["bad.yaml:2: this is not UTF-8 text"]
    (folder / "empty.yaml").touch()
    assert problems("empty.yaml") == ["empty.yaml: expected the sections model, data, train, got null"]
    (folder / "large.yaml").write_bytes(b"#" * 2_000_000)
    assert problems("large.yaml") == ["large.yaml: a recipe of more than 200,000 characters is not read"]


@pytest.mark.usefixtures("folder")
def test_a_byte_order_mark_and_windows_lines_do_no_harm() -> None:
    Path("win.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert Recipe.load("win.yaml").tree == Recipe.load("my.yaml").tree
    assert Recipe.load("win.yaml").header == Recipe.load("my.yaml").header


def test_a_recipe_causes_no_import_no_call_and_no_look_at_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "evil_module_of_a_recipe.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("SECRET", "told")
    for name in ("evil_module_of_a_recipe:X", "evil_module_of_a_recipe.X", "!!python/name:os.system ''"):
        (folder / "evil.yaml").write_text(TEXT.replace("neck: {name: fpn,", f"neck: {{name: {name},"), encoding="utf-8")
        with pytest.raises(RecipeError):
            Recipe.load("evil.yaml")
    assert "evil_module_of_a_recipe" not in sys.modules
    recipe = Recipe.load("my.yaml", ["data.path=$SECRET/${SECRET}/{SECRET}/`id`"])
    assert recipe.tree["data"]["path"] == "$SECRET/${SECRET}/{SECRET}/`id`"
    with pytest.raises(RecipeError, match="a recipe has no section 'import'"):
        Recipe.load("my.yaml", ["import=evil_module_of_a_recipe"])


# ---------------------------------------------------------------- fuzz


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place) / "fuzz.yaml"


def check_only_recipe_errors(path: Path) -> None:
    with contextlib.suppress(RecipeError):
        recipe = Recipe.load(str(path))
        text = recipe.to_yaml()
        path.write_text(text, encoding="utf-8")
        assert Recipe.load(str(path)).to_yaml() == text


@given(text=st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_recipe_or_a_recipe_error(text: bytes, scratch: Path) -> None:
    scratch.write_bytes(text)
    check_only_recipe_errors(scratch)


WORDS = ["name: ", "tiny", "fpn", "null", "[", "]", "{", "}", "\n", "  ", ": ", ", ", "1", "1e9", "true", "base: ", "-"]
WORDS += ["&a", "*a", "0", "'", "\x85"]


@given(data=st.data())
@settings(deadline=None, max_examples=300)
def test_a_recipe_with_random_changes_is_a_recipe_or_a_recipe_error(data: st.DataObject, scratch: Path) -> None:
    text = TEXT
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + data.draw(st.sampled_from(WORDS) | st.text(max_size=3)) + text[end:]
    scratch.write_bytes(text.encode("utf-8", "replace"))
    check_only_recipe_errors(scratch)


KEYS = st.lists(
    st.sampled_from(["model", "data", "train", "neck", "backbone", "tricks", "0", "name", "size", "x", ""]), max_size=4
)


@given(
    overrides=st.lists(
        st.builds(lambda keys, value: f"{'.'.join(keys)}={value}", KEYS, st.text() | st.sampled_from(WORDS))
    )
)
@settings(deadline=None, max_examples=200)
def test_random_overrides_are_a_recipe_or_a_recipe_error(overrides: list[str], scratch: Path) -> None:
    scratch.write_text(TEXT, encoding="utf-8")
    with contextlib.suppress(RecipeError):
        Recipe.load(str(scratch), overrides).to_yaml().encode()


@given(name=st.text())
@settings(deadline=None, max_examples=100)
def test_any_name_is_a_recipe_or_a_recipe_error(name: str) -> None:
    if not os.path.exists(name):  # noqa: PTH110
        with pytest.raises(RecipeError):
            Recipe.load(name)


def test_shipped_recipes_stand_beside_the_code() -> None:
    assert {"demo", "retinanet"} <= set(shipped())
    assert all(path.parent == recipe_module.FOLDER for path in shipped().values())

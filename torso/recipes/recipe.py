"""A recipe: a text that names the parts of a model, its data and its training, checked against their signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torso.config import (
    Node,
    Problem,
    RecipeError,
    Role,
    Spec,
    check,
    dump,
    merge,
    node,
    override,
    parse,
    suggestion,
)
from torso.config.check import Section
from torso.config.nodes import MAX_CHARACTERS

FOLDER = Path(__file__).parent


def shipped() -> dict[str, Path]:
    """The recipes that come with torso, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def sections() -> dict[str, Section]:
    """What a recipe may hold: a family of models, and the arguments of two functions of `torso.recipes.assemble`."""
    assemble = import_module("torso.recipes.assemble")  # here, because it imports torch and all parts
    return {"model": Role("model"), "data": assemble.data, "train": assemble.training}


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; ``model``, ``data`` and ``train`` are ready to be built."""

    name: str
    model: Spec
    data: Spec
    train: Spec
    header: str = ""  # the comment at the top: paper, command, cost and score

    @classmethod
    def load(cls, name_or_path: str, overrides: Sequence[str] = (), *, without_data: bool = False) -> Recipe:
        """The recipe of this name or in this file, after overrides like ``model.neck=bifpn``.

        Args:
            name_or_path: a name of `shipped`, or a file; a word without ``/`` and ``.yaml`` is a name.
            overrides: changes in order; see `torso.config.override`.
            without_data: accept a recipe that does not say where its data is (to look at it, or to build the model).

        Raises:
            RecipeError: everything that is wrong with it.
        """
        path = _locate(name_or_path, Path())
        text = _read(path, name_or_path)
        problems: list[Problem] = []
        tree = override(_with_base(text, path, (path,), problems), overrides, problems)
        return cls._checked(tree, path.stem, header_of(text), without_data, problems)

    @classmethod
    def from_tree(
        cls,
        tree: Mapping[str, Any],
        name: str = "recipe",
        header: str = "",
        *,
        overrides: Sequence[str] = (),
        without_data: bool = False,
    ) -> Recipe:
        """The recipe in plain data, as a checkpoint keeps it (`tree`), after overrides.

        Raises:
            RecipeError: everything that is wrong with it.
        """
        try:
            nodes = node(dict(tree), name)
        except TypeError as error:
            raise RecipeError([Problem(name, str(error))]) from error
        problems: list[Problem] = []
        return cls._checked(override(nodes, overrides, problems), name, header, without_data, problems)

    @classmethod
    def _checked(cls, tree: Node, name: str, header: str, without_data: bool, problems: list[Problem]) -> Recipe:
        optional = frozenset({"data"}) if without_data else frozenset()
        found = check(tree, sections(), optional=optional, problems=problems)
        return cls(name, found["model"], found["data"], found["train"], header)

    @property
    def tree(self) -> dict[str, Any]:
        """The whole recipe as plain data (JSON), every default in it."""
        return {"model": self.model.tree(), "data": self.data.tree(), "train": self.train.tree()}

    def to_yaml(self) -> str:
        """The whole recipe as text; loading it gives the same recipe."""
        comment = "".join(f"# {line}".rstrip() + "\n" for line in self.header.splitlines())
        return comment + dump(self.tree)


def _with_base(text: str, path: Path, seen: tuple[Path, ...], problems: list[Problem]) -> Node:
    """The tree of a text over that of its ``base:``."""
    source = path.name if path.parent == FOLDER else str(path)
    tree = parse(text, source)
    if not isinstance(tree.value, dict) or "base" not in tree.value:
        return tree
    rest = dict(tree.value)
    named = rest.pop("base")
    if not isinstance(named.value, str):
        raise RecipeError([Problem(named.where, f"base: expected one recipe, got {named.described()}")])
    try:
        base = _locate(named.value, path.parent)
        base_text = _read(base, named.value)
    except RecipeError as error:
        raise RecipeError([Problem(named.where, f"base: {problem.message}") for problem in error.problems]) from None
    if base.resolve() in {known.resolve() for known in seen}:
        raise RecipeError([Problem(named.where, f"base: {named.value!r} leads back to itself")])
    below = _with_base(base_text, base, (*seen, base), problems)
    return merge(below, Node(rest, tree.where), problems)


def _locate(name: str, folder: Path) -> Path:
    """The file of a recipe; paths count from ``folder``."""
    known = shipped()
    if name in known:
        return known[name]
    if "/" in name or "\\" in name or name.endswith((".yaml", ".yml")):
        return folder / name
    raise RecipeError(f"no recipe is called {name!r}{suggestion(name, known)} (a file's name ends in .yaml)")


def _read(path: Path, asked: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(4 * MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise RecipeError(f"there is no file {asked!r}{suggestion(path.stem, shipped(), 'the recipes are')}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(f"the recipe {asked!r} cannot be read: {reason}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RecipeError([Problem(f"{asked}:{line}", "this is not UTF-8 text")]) from error


def header_of(text: str) -> str:
    """The comment at the top of a recipe's text, without its signs."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)

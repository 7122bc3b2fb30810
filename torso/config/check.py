"""A tree of nodes against the signatures of the parts it names: checked parts, or all problems at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torso.config.errors import Problem, RecipeError, TorsoError, nearest, suggestion
from torso.config.kinds import FAILED, Failed, Kind, PartOf
from torso.config.nodes import Node, node
from torso.config.overrides import merge
from torso.config.roles import WIRED, Role, parts, unknown
from torso.config.signatures import MISSING, Parameter, has_part, parameters
from torso.config.spec import Spec

Section = Role | Callable[..., Any]


def check(
    tree: Node,
    sections: Mapping[str, Section],
    *,
    optional: frozenset[str] = frozenset(),
    problems: Sequence[Problem] = (),
) -> dict[str, Spec]:
    """The sections of a recipe, checked.

    Args:
        tree: the whole recipe; see `torso.config.nodes.parse` and `override`.
        sections: what may stand at the top: a role (the section is a part) or a function (its arguments).
        optional: sections whose arguments without a default may be missing.
        problems: what is known to be wrong already, to be told with the rest.

    Raises:
        RecipeError: everything that is wrong with it.
    """
    checking = Checking(optional)
    checking.problems += problems
    given = tree.value if isinstance(tree.value, dict) else {}
    if not isinstance(tree.value, dict):
        checking.problem(tree, f"expected the sections {', '.join(sections)}, got {tree.described()}")
        raise RecipeError(checking.problems)
    for key, value in given.items():
        if key not in sections:
            checking.problem(value, f"a recipe has no section {key!r}{_section_hint(key, sections)}")
    found = {key: checking.section(key, given.get(key), tree.where, section) for key, section in sections.items()}
    if checking.problems:
        raise RecipeError(checking.problems)
    return {key: spec for key, spec in found.items() if isinstance(spec, Spec)}


def spec(role: str, tree: Any, where: str = "") -> Spec:
    """A single part from plain data: ``spec("neck", {"name": "fpn", "channels": 8}).build(...)``.

    Raises:
        RecipeError: everything that is wrong with it.
    """
    checking = Checking()
    found = PartOf(role).read(node(tree, where), role, checking)
    if checking.problems:
        raise RecipeError(checking.problems)
    assert isinstance(found, Spec)
    return found


def _section_hint(key: str, sections: Mapping[str, Section]) -> str:
    for name, section in sections.items():
        if not isinstance(section, Role) and key in parameters(section):
            return f"; did you mean {f'{name}.{key}'!r}?"
    return suggestion(key, sections)


class Checking:
    """One pass over a tree."""

    def __init__(self, optional: frozenset[str] = frozenset()):
        self.problems: list[Problem] = []
        self.optional = optional

    def trial(self) -> Checking:
        """The same with problems of its own."""
        return Checking(self.optional)

    def problem(self, node: Node, message: str) -> Failed:
        """Put down what is wrong with a node."""
        self.problems.append(Problem(node.where, message))
        return FAILED

    def section(self, key: str, given: Node | None, where: str, section: Section) -> Spec | Failed:
        """A section at the top of the tree."""
        if isinstance(section, Role):
            if given is None:
                return self.problem(Node(None, where), f"{key}: missing; expected {PartOf(section.name).says()}")
            found = PartOf(section.name).read(given, key, self)
            return found if isinstance(found, Spec) else FAILED
        given = given or Node({}, where)
        if not isinstance(given.value, dict):
            return self.problem(given, f"{key}: expected a mapping, got {given.described()}")
        arguments = self.arguments(given, given.value, parameters(section), key, key)
        return Spec(key, "", section, arguments, given.where, key)

    def part(self, node: Node, kind: PartOf, path: str) -> Spec | Failed:
        """The part that ``node`` names."""
        given = dict(node.value) if isinstance(node.value, dict) else {"name": node}
        name = given.pop("name", None)
        if name is None:
            return self.problem(node, f"{path}: the name of {kind.says()} is missing")
        called = name.value
        if not isinstance(called, str):
            return self.problem(name, f"{path}.name: expected the name of {kind.says()}, got {name.described()}")
        listed = self.listed(kind.role, name)
        if called not in listed:
            return self.problem(name, f"{path}: {unknown(kind.role, called, listed)}") if listed else FAILED
        target = listed[called]
        schema = parameters(target, kind.factory)
        arguments = self.arguments(node, given, schema, path, f"{kind.role} {called!r}")
        overrides = [value.where for value in given.values() if value.where.startswith("override ")]
        where = ", ".join(dict.fromkeys([node.where, *overrides]))  # a constructor may refuse what any of them says
        return Spec(kind.role, called, target, arguments, where, path, kind.factory, kind.unbuilt)

    def listed(self, role: str, at: Node) -> dict[str, Any]:
        """The parts of a role, or nothing and a problem when they cannot be loaded."""
        try:
            return parts(role)
        except TorsoError as error:
            self.problem(at, str(error))
            return {}

    def arguments(
        self, at: Node, given: Mapping[str, Node], schema: Mapping[str, Parameter], path: str, owner: str
    ) -> dict[str, Any]:
        """The arguments that ``owner`` gets: what is given, and the defaults of the rest."""
        open_ = [name for name, parameter in schema.items() if not parameter.wired]
        found = {}
        for name in open_:
            value = self.argument(at, given.get(name), schema[name], path, owner)
            if value is not MISSING:
                found[name] = value
        deeper = {key: f"{path}.{name}.{key}" for name, value in found.items() for key in getattr(value, "args", ())}
        for key, value in given.items():
            if key not in open_:
                self.problem(value, f"{path}.{key}: {_refusal(key, owner, schema, open_, deeper)}")
        return found

    def argument(self, at: Node, given: Node | None, parameter: Parameter, path: str, owner: str) -> Any:
        """The value of one argument; ``MISSING`` when the constructor shall use a default that is no plain data."""
        kind, path = parameter.kind, f"{path}.{parameter.name}"
        assert kind is not None  # such an argument is wired
        default = default_of(parameter, at.where)
        if given is not None:
            merged = merge(default, given, self.problems, path) if default and has_part(kind) else given
            return kind.read(merged, path, self)
        if parameter.default is MISSING and path.split(".")[0] not in self.optional:
            self.problem(at, f"{path}: missing; {owner} needs it: {kind.says()}")
        if default is None:
            return MISSING
        trial = self.trial()
        value = kind.read(default, path, trial)
        if trial.problems and has_part(kind):  # the default part needs an argument that only a user can give
            self.problems += trial.problems
        return MISSING if trial.problems else value


def _refusal(key: str, owner: str, schema: Mapping[str, Parameter], open_: list[str], deeper: Mapping[str, str]) -> str:
    if key in schema or (key in WIRED and nearest(key, open_) is None):
        return "decided by the other parts; it cannot be set, remove it"
    hint = f"; did you mean {deeper[key]!r}?" if key in deeper else suggestion(key, open_, "it takes")
    return f"{owner} has no {key!r}{hint}"


def default_of(parameter: Parameter, where: str) -> Node | None:
    """The default as a node, None where it is no plain data; a class (or ``partial`` of one) becomes its name."""
    if parameter.default is MISSING:
        return None
    try:
        return node(_named(parameter.default, parameter.kind), where)
    except TypeError:
        return None


def _named(default: Any, kind: Kind | None) -> Any:
    for arm in getattr(kind, "kinds", [kind]):
        if isinstance(arm, PartOf) and callable(default):
            made, given = (default.func, default.keywords) if isinstance(default, partial) else (default, {})
            name = next((name for name, part in parts(arm.role).items() if part is made), None)
            if name is not None:
                return {"name": name, **given} if given else name
    return default

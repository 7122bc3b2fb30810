"""What an argument of a recipe may be: small objects that read a node, and say in words what they expect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torso.config.errors import Problem, suggestion
from torso.config.nodes import Node


class Failed:
    """What reading gives when it has put down a problem instead of a value."""


FAILED = Failed()


class Check(Protocol):
    """One pass over a tree: gathers the problems, and knows how to read a part."""

    problems: list[Problem]

    def part(self, node: Node, kind: PartOf, path: str) -> Any:
        """The part that ``node`` names, or ``FAILED``."""
        ...

    def trial(self) -> Check:
        """The same with problems of its own, for an attempt that may fail."""
        ...


class Kind(Protocol):
    """A type as far as a recipe can express it."""

    def says(self) -> str:
        """What is expected, as the end of a sentence."""
        ...

    def takes(self, node: Node) -> bool:
        """Whether the node has the outer form of this kind; inside it may be wrong."""
        ...

    def read(self, node: Node, path: str, check: Check) -> Any:
        """The value to give to the constructor, or ``FAILED`` after putting down why."""
        ...


def wrong(kind: Kind, node: Node, path: str, check: Check, hint: str = "") -> Failed:
    """Puts down that something else was expected."""
    check.problems.append(Problem(node.where, f"{path}: expected {kind.says()}, got {node.described()}{hint}"))
    return FAILED


@dataclass(frozen=True)
class Plain:
    """``None``, ``bool``, ``int``, ``float`` or ``str``; whole numbers are floats too, written numbers are text too."""

    type: type

    def says(self) -> str:
        """What is expected."""
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
        return names[self.type]

    def takes(self, node: Node) -> bool:
        """Whether the value is of this type."""
        value = node.value
        if isinstance(value, bool) or value is None:
            return type(value) is self.type
        if isinstance(value, float):
            return (self.type is float and not math.isnan(value)) or self._as_written(node)
        if isinstance(value, int):
            return self.type is int or (self.type is float and abs(value) < 2**1000) or self._as_written(node)
        return isinstance(value, self.type)

    def _as_written(self, node: Node) -> bool:
        return self.type is str and node.text is not None

    def read(self, node: Node, path: str, check: Check) -> Any:
        """The value itself."""
        if not self.takes(node):
            return wrong(self, node, path, check)
        if self.type is float:
            return float(node.value)
        return node.text if self.type is str and not isinstance(node.value, str) else node.value


NULL = Plain(type(None))


@dataclass(frozen=True)
class Choice:
    """``Literal``: one of a few values."""

    values: tuple[Any, ...]

    def says(self) -> str:
        """What is expected."""
        words = [Node(value, "").described() for value in self.values]
        return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

    def takes(self, node: Node) -> bool:
        """Whether it is one of them: 1 is neither true nor 1.0."""
        return any(type(node.value) is type(value) and node.value == value for value in self.values)

    def read(self, node: Node, path: str, check: Check) -> Any:
        """The value itself."""
        if self.takes(node):
            return node.value
        words = [value for value in self.values if isinstance(value, str)]
        near = suggestion(node.value, words) if isinstance(node.value, str) else ""
        return wrong(self, node, path, check, near if near.endswith("?") else "")


@dataclass(frozen=True)
class Many:
    """A list (or a tuple of any length) of one kind."""

    item: Kind
    container: type = list

    def says(self) -> str:
        """What is expected."""
        return f"a list (each item {self.item.says()})"

    def takes(self, node: Node) -> bool:
        """Whether it is a list."""
        return isinstance(node.value, list)

    def read(self, node: Node, path: str, check: Check) -> Any:
        """A list, or a tuple where the signature has one."""
        if not self.takes(node):
            return wrong(self, node, path, check)
        items = [self.item.read(item, f"{path}.{i}", check) for i, item in enumerate(node.value)]
        return FAILED if FAILED in items else self.container(items)


@dataclass(frozen=True)
class Row:
    """A tuple with as many items as kinds."""

    items: tuple[Kind, ...]

    def says(self) -> str:
        """What is expected."""
        return f"a list of {len(self.items)} ({', '.join(kind.says() for kind in self.items)})"

    def takes(self, node: Node) -> bool:
        """Whether it is a list of this length."""
        return isinstance(node.value, list) and len(node.value) == len(self.items)

    def read(self, node: Node, path: str, check: Check) -> Any:
        """A tuple."""
        if not self.takes(node):
            return wrong(self, node, path, check)
        pairs = enumerate(zip(self.items, node.value, strict=True))
        items = [kind.read(item, f"{path}.{i}", check) for i, (kind, item) in pairs]
        return FAILED if FAILED in items else tuple(items)


@dataclass(frozen=True)
class Table:
    """A mapping from words to one kind."""

    item: Kind

    def says(self) -> str:
        """What is expected."""
        return f"a mapping (each value {self.item.says()})"

    def takes(self, node: Node) -> bool:
        """Whether it is a mapping."""
        return isinstance(node.value, dict)

    def read(self, node: Node, path: str, check: Check) -> Any:
        """A dict."""
        if not self.takes(node):
            return wrong(self, node, path, check)
        items = {key: self.item.read(item, f"{path}.{key}", check) for key, item in node.value.items()}
        return FAILED if FAILED in items.values() else items


@dataclass(frozen=True)
class Anything:
    """No annotation and nothing to infer one from: plain data."""

    def says(self) -> str:
        """What is expected."""
        return "a value"

    def takes(self, node: Node) -> bool:
        """Always."""
        return True

    def read(self, node: Node, path: str, check: Check) -> Any:
        """Plain data."""
        return node.plain()


@dataclass(frozen=True)
class PartOf:
    """A part of a role; ``unbuilt`` where the signature asks for its `Spec`, ``factory`` where for what makes it."""

    role: str
    factory: bool = False
    unbuilt: bool = False

    def says(self) -> str:
        """What is expected."""
        return f"{'an' if self.role[0] in 'aeiou' else 'a'} {self.role}"

    def takes(self, node: Node) -> bool:
        """Whether it is a name, or a mapping."""
        return isinstance(node.value, str | dict)

    def read(self, node: Node, path: str, check: Check) -> Any:
        """A `Spec`."""
        return check.part(node, self, path) if self.takes(node) else wrong(self, node, path, check)


@dataclass(frozen=True)
class OneOf:
    """``A | B``: the first kind that can read the node; they are sorted so that the strictest comes first."""

    kinds: tuple[Kind, ...]

    def says(self) -> str:
        """What is expected."""
        words = [kind.says() for kind in sorted(self.kinds, key=lambda kind: kind == NULL)]  # reads best at the end
        return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

    def takes(self, node: Node) -> bool:
        """Whether one of them does."""
        return any(kind.takes(node) for kind in self.kinds)

    def read(self, node: Node, path: str, check: Check) -> Any:
        """What the first of them makes of it."""
        candidates = [kind for kind in self.kinds if kind.takes(node)]
        for kind in candidates:
            value = kind.read(node, path, check if len(candidates) == 1 else check.trial())
            if value is not FAILED or len(candidates) == 1:
                return value
        return wrong(self, node, path, check)


_STRICTNESS = (NULL, Plain(bool), Choice, Plain(int), Plain(float), Row, Many, PartOf, Table, Plain(str))


def one_of(kinds: Sequence[Kind]) -> Kind:
    """The union of kinds, without doubles."""

    def strictness(kind: Kind) -> int:
        places = [i for i, known in enumerate(_STRICTNESS) if kind == known or type(kind) is known]
        return places[0] if places else len(_STRICTNESS)

    flat = [arm for kind in kinds for arm in (kind.kinds if isinstance(kind, OneOf) else [kind])]
    unique = tuple(sorted(dict.fromkeys(flat), key=strictness))
    return unique[0] if len(unique) == 1 else OneOf(unique)

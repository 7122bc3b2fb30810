"""YAML text to nodes that know their file and line, and back. YAML 1.2 scalars, and nothing that surprises or runs.

The parser of PyYAML is used up to its events only; its resolver (`no` is false, `1e-3` is text, `1:30` is 90) and its
constructor are not. Anchors, aliases, tags and duplicate keys are errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from torso.config.errors import Problem, RecipeError

MAX_CHARACTERS = 200_000  # a hundred times the longest recipe; PyYAML takes seconds for it
MAX_DEPTH = 50
LINE = 100  # characters of a part that is written on one line
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a recipe with the place it comes from."""

    value: Any  # None, bool, int, float, str, list[Node] or dict[str, Node]
    where: str  # file:line, or the override
    text: str | None = None  # as a plain scalar was written

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def written(self) -> str:
        """The value on one line, as a recipe would have it."""
        return str(yaml.dump([self.plain()], Dumper=_Writer, default_flow_style=True, width=1e9)).strip()[1:-1]

    def described(self) -> str:
        """The value in an error message."""
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return f"a list of {len(self.value)}" if self.value else "an empty list"
        if isinstance(self.value, str):
            return repr(self.value if len(self.value) <= 60 else self.value[:57] + "...")
        return "null" if self.value is None else str(self.value).lower()  # true, 1e-05, inf


def node(value: Any, where: str) -> Node:
    """Plain Python data as a node.

    Raises:
        TypeError: something that no YAML text gives.
    """
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return Node({key: node(item, where) for key, item in value.items()}, where)
    if isinstance(value, list | tuple):
        return Node([node(item, where) for item in value], where)
    if value is None or isinstance(value, bool | int | float | str):
        return Node(value, where)
    raise TypeError(f"a recipe cannot hold a {type(value).__name__}")


def scalar(text: str) -> bool | int | float | str | None:
    """What plain text means by the core schema of YAML 1.2, but ``012`` is text: it may be a name, and is no octal."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        digits = text.lstrip("+-")
        padded = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
        return text if padded or len(digits) > 400 else int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def is_text(text: str) -> bool:
    """Whether ``text`` can be written to a file: not so for names of files that are no UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def parse(text: str, source: str) -> Node:
    """YAML text as nodes; ``source`` is the name of the file in messages.

    Raises:
        RecipeError: everything that is wrong with the text, or the first thing that makes it unreadable.
    """
    if len(text) > MAX_CHARACTERS:
        raise RecipeError([Problem(source, f"a recipe of more than {MAX_CHARACTERS:,} characters is not read")])
    return _Reader(text, source).document()


class _Reader:
    """One document of events to nodes, gathering what is wrong on the way."""

    def __init__(self, text: str, source: str):
        self.source = source
        self.problems: list[Problem] = []
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)

    def document(self) -> Node:
        root = Node(None, self.source)
        try:
            for event in self.events:
                if isinstance(event, yaml.DocumentStartEvent):
                    root = self.node(next(self.events), self.line(event), 0)
                    next(self.events)
                    if isinstance(following := next(self.events), yaml.DocumentStartEvent):
                        self.problem(self.line(following), "a second document begins; a recipe is one")
                        break
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{self.source}:{mark.line + 1}" if mark else self.source
            self.problem(where, f"this is not YAML: {error.problem or error.context}")
        except yaml.YAMLError as error:
            self.problem(self.source, f"this is not YAML: {str(error).splitlines()[0]}")
        except (ValueError, OverflowError, IndexError) as error:  # PyYAML's scanner lets some of Python's through
            self.problem(self.source, f"this is not YAML: {error}")
        if self.problems:
            raise RecipeError(self.problems)
        return root

    def node(self, event: Any, where: str, depth: int) -> Node:
        """The node that begins with ``event``; ``where`` is the line of its key, or its own."""
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} levels are nested")
        if isinstance(event, yaml.AliasEvent):
            self.problem(self.line(event), f"aliases (*{event.anchor}) are not allowed: write the value again")
            return Node(None, where)
        if event.anchor is not None:
            self.problem(self.line(event), f"anchors (&{event.anchor}) are not allowed")
        if event.tag is not None:
            self.problem(self.line(event), f"tags ({event.tag}) are not allowed: a recipe holds plain values only")
        if isinstance(event, yaml.MappingStartEvent):
            return Node(self.mapping(depth), where)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(item, self.line(item), depth + 1))
            return Node(items, where)
        return self.leaf(event, where)

    def mapping(self, depth: int) -> dict[str, Node]:
        items: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            where = self.line(event)
            key = self.node(event, where, depth + 1)
            value = self.node(next(self.events), where, depth + 1)
            if not isinstance(event, yaml.ScalarEvent):
                self.problem(where, f"a key must be a word, got {key.described()}")
            elif event.value in items:
                first = items[event.value].where
                self.problem(where, f"the key {event.value!r} is there already ({first}); remove one")
            else:
                items[event.value] = value
        return items

    def leaf(self, event: yaml.ScalarEvent, where: str) -> Node:
        text = event.value
        if not is_text(text):
            self.problem(where, "half of a surrogate pair is not text")
        return Node(text, where) if event.style else Node(scalar(text), where, text)

    def line(self, event: Any) -> str:
        return f"{self.source}:{event.start_mark.line + 1}"

    def problem(self, where: str, message: str) -> None:
        self.problems.append(Problem(where, message))


class _Writer(yaml.SafeDumper):
    """Writes what `parse` reads back as the same values."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, len(str(mapping)) <= LINE)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, len(str(sequence)) <= LINE)


def _write_text(writer: _Writer, text: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar(text), str) else "'"
    if not text.isprintable():
        style = '"'  # with escapes: PyYAML folds line breaks that are no newline, U+0085, in its other styles
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _write_float(writer: _Writer, number: float) -> yaml.ScalarNode:
    text = repr(number) if abs(number) < float("inf") else f"{'-' if number < 0 else ''}.inf"
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")  # other readers of YAML take 1e-05 for text
    return writer.represent_scalar("tag:yaml.org,2002:float", text)


_Writer.add_representer(str, _write_text)
_Writer.add_representer(float, _write_float)


def dump(tree: Any) -> str:
    """Plain Python data as YAML text: sections in blocks, small parts on one line."""
    text: str = yaml.dump(tree, Dumper=_Writer, sort_keys=False, width=120, allow_unicode=True)
    return text

"""The listing behind ``torso parts``: each part with its sentence, its source and its arguments, read from the code."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torso.config import ROLES, Node, RecipeError, Spec, find, parameters, parts, suggestion
from torso.config.check import default_of
from torso.config.kinds import Anything, Choice, Kind, Many, OneOf, PartOf, Plain, Table
from torso.config.kinds import Row as Tuple
from torso.config.signatures import MISSING, Parameter
from torso.recipes.recipe import header_of, shipped

RECIPE = "recipe"
FACTORIES = frozenset({"activation", "norm"})  # made by the layers that use them, which also say how wide


@dataclass(frozen=True)
class Row:
    """One part, as ``torso parts --json`` prints it."""

    id: str  # neck/fpn
    summary: str
    source: str
    year: int | None
    provider: str  # torso, or the package it comes from
    signature: str


def rows(role: str | None = None) -> list[Row]:
    """All parts, or those of one role; recipes are a role here.

    Raises:
        RecipeError: there is no such role.
        TorsoError: the parts of a role cannot be imported.
    """
    roles = [*ROLES, RECIPE]
    if role is not None and role not in roles:
        raise RecipeError(f"there is no role {role!r}{suggestion(role, roles)}")
    found = []
    for name in [role] if role else roles:
        found += _recipes() if name == RECIPE else [_row(name, called, part) for called, part in parts(name).items()]
    return found


def page(role: str, name: str) -> tuple[Row, str]:
    """A part's row and the whole of its docstring (of a recipe, its header).

    Raises:
        RecipeError: there is no such part.
    """
    if role == RECIPE:
        listed = {row.id.split("/", 1)[1]: row for row in _recipes()}
        if name not in listed:
            raise RecipeError(f"no recipe is called {name!r}{suggestion(name, listed)}")
        return listed[name], shipped()[name].read_text(encoding="utf-8")
    part = find(role, name)
    return _row(role, name, part), inspect.getdoc(part) or ""


def describe_part(spec: Spec) -> dict[str, Any]:
    """What stands at a place of a recipe: ``path``, ``id``, ``summary``, ``source``, ``year``, ``provider``."""
    row = asdict(_row(spec.role, spec.name, spec.target))
    return {"path": spec.path} | {key: row[key] for key in ("id", "summary", "source", "year", "provider")}


def source_of(part: Callable[..., Any]) -> str:
    """What the last ``Source:`` line of a docstring says; of a library's part, its public name."""
    said = re.findall(r"^Source:\s*(.+(?:\n.+)*)", inspect.getdoc(part) or "", flags=re.MULTILINE)
    if said:
        return " ".join(said[-1].split()).rstrip(".")
    return "" if _provider(part) == "torso" else _public_name(part)


def signature_of(name: str, schema: dict[str, Parameter]) -> str:
    """``fpn(channels: int = 256, norm: norm | null = null)``: what a recipe may say, wiring left out."""
    words = []
    for parameter in schema.values():
        if parameter.wired or parameter.kind is None:
            continue
        default = default_of(parameter, "")
        shown = "" if parameter.default is MISSING else f" = {default.written() if default else '...'}"
        words.append(f"{parameter.name}: {_brief(parameter.kind)}{shown}")
    return f"{name}({', '.join(words)})"


def _brief(kind: Kind) -> str:
    """A kind as the annotation it came from, in the words of a recipe."""
    words: dict[type, Callable[[Any], str]] = {
        Plain: lambda k: "null" if k.type is type(None) else k.type.__name__,
        Choice: lambda k: " | ".join(Node(value, "").described() for value in k.values),
        Many: lambda k: f"list[{_brief(k.item)}]",
        Tuple: lambda k: f"({', '.join(map(_brief, k.items))})",
        Table: lambda k: f"dict[{_brief(k.item)}]",
        OneOf: lambda k: " | ".join(sorted(map(_brief, k.kinds), key="null".__eq__)),
        PartOf: lambda k: k.role,
        Anything: lambda k: "any",
    }
    return words[type(kind)](kind)


def _row(role: str, name: str, part: Callable[..., Any]) -> Row:
    source = source_of(part)
    return Row(
        id=f"{role}/{name}",
        summary=_first_sentence(inspect.getdoc(part) or ""),
        source=source,
        year=_year(source),
        provider=_provider(part),
        signature=signature_of(name, parameters(part, role in FACTORIES)),
    )


def _recipes() -> list[Row]:
    found = []
    for name, path in shipped().items():
        title, _, rest = header_of(path.read_text(encoding="utf-8")).partition("\n")
        paper = " ".join(re.findall(r"[^.;:]*\b(?:19|20)\d\d, arXiv:[\d.]*\d", f"{title}\n{rest}")[:1]).strip()
        found.append(Row(f"{RECIPE}/{name}", title, paper, _year(paper), "torso", f"torso train {name}"))
    return found


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`\"(])", paragraph, maxsplit=1)[0]


def _year(source: str) -> int | None:
    own = re.sub(r"arXiv:\S+", "", source.partition(";")[0])  # 1908.08681 is no year; the second source is not ours
    years = re.findall(r"\b(?:19|20)\d\d\b", own)
    return int(years[-1]) if years else None


def _provider(part: Callable[..., Any]) -> str:
    return (getattr(part, "__module__", None) or type(part).__module__).split(".")[0]


def _public_name(part: Any) -> str:
    """``torch.nn.Mish`` for ``torch.nn.modules.activation.Mish``: the shortest path that leads to it."""
    name, path = getattr(part, "__qualname__", type(part).__qualname__), part.__module__.split(".")
    for length in range(1, len(path)):
        module = sys.modules.get(".".join(path[:length]))
        if getattr(module, name, None) is part:
            return ".".join([*path[:length], name])
    return ".".join([*path, name])

"""The JSON schema of a recipe, for editors: read from the same signatures as everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torso.config import ROLES, Role, parameters, parts
from torso.config.check import default_of
from torso.config.kinds import Anything, Choice, Kind, Many, OneOf, PartOf, Plain, Row, Table
from torso.config.signatures import MISSING
from torso.recipes.recipe import sections

Json = dict[str, Any]
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def recipe_schema() -> Json:
    """The schema (draft 2020-12) of a recipe file: completion and checks while typing.

    Arguments that a base or a default part may give are never required.
    """
    properties: Json = {"base": {"type": "string", "description": "a recipe to start from: its name, or a file"}}
    used: set[PartOf] = set()
    for name, section in sections().items():
        if isinstance(section, Role):
            properties[name] = _kind(PartOf(section.name), used)
        else:
            properties[name] = {"type": "object", **_arguments(section, False, used)}
    definitions: Json = {}
    while pending := [part for part in used if _key(part) not in definitions]:
        for part in sorted(pending, key=_key):
            definitions[_key(part)] = _role(part, used)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of torso",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _key(part: PartOf) -> str:
    return f"{part.role}_factory" if part.factory else part.role


def _role(part: PartOf, used: set[PartOf]) -> Json:
    """A name, or a name with arguments."""
    listed = parts(part.role) if part.role in ROLES else {}
    forms: list[Json] = [{"enum": list(listed)}]
    for name, target in listed.items():
        arguments = _arguments(target, part.factory, used)
        arguments["properties"] = {"name": {"const": name}, **arguments["properties"]}
        forms.append({"type": "object", "title": name, "required": ["name"], **arguments})
    forms.append({"type": "object", "not": {"required": ["name"]}, "title": "other arguments of the same part"})
    return {"anyOf": forms}


def _arguments(target: Callable[..., Any], factory: bool, used: set[PartOf]) -> Json:
    properties = {}
    for name, parameter in parameters(target, factory).items():
        if parameter.wired or parameter.kind is None:
            continue
        properties[name] = _kind(parameter.kind, used)
        default = default_of(parameter, "") if parameter.default is not MISSING else None
        if default is not None:
            properties[name] |= {"default": default.plain()}
    return {"properties": properties, "additionalProperties": False}


def _kind(kind: Kind, used: set[PartOf]) -> Json:
    if isinstance(kind, PartOf):
        used.add(kind)
    schemas: dict[type, Callable[[Any], Json]] = {
        Plain: lambda k: {"type": _TYPES[k.type]},
        Choice: lambda k: {"enum": list(k.values)},
        Many: lambda k: {"type": "array", "items": _kind(k.item, used)},
        Row: lambda k: {
            "type": "array",
            "prefixItems": [_kind(item, used) for item in k.items],
            "minItems": len(k.items),
            "maxItems": len(k.items),
        },
        Table: lambda k: {"type": "object", "additionalProperties": _kind(k.item, used)},
        OneOf: lambda k: {"anyOf": [_kind(arm, used) for arm in k.kinds]},
        PartOf: lambda k: {"$ref": f"#/$defs/{_key(k)}"},
        Anything: lambda k: {},
    }
    return schemas[type(kind)](kind)

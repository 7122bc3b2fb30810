"""The signature is the schema: the parameters of a class or function as kinds that a recipe can express."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, Literal, Union

from torso.config.kinds import NULL, Anything, Choice, Kind, Many, PartOf, Plain, Row, Table, one_of
from torso.config.roles import WIRED, Role

MISSING = inspect.Parameter.empty
_LISTS: dict[Any, type] = {
    list: list,
    tuple: tuple,
    collections.abc.Sequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
}
_TABLES = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


@dataclass(frozen=True)
class Parameter:
    """One argument of a part."""

    name: str
    kind: Kind | None  # None: a recipe cannot express it, so code gives it
    default: Any  # or MISSING
    wired: bool  # other parts decide it


@cache
def parameters(target: Callable[..., Any], factory: bool = False) -> dict[str, Parameter]:
    """The arguments of ``target`` by name, in order; ``*args`` and ``**kwargs`` are left out.

    With ``factory``, arguments without a default are wired: the layer that calls the factory gives them.
    """
    found = {}
    hints = _hints(target)
    for parameter in _signature(target).values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            continue
        name, default = parameter.name, parameter.default
        annotation = hints.get(name, MISSING)
        kind = _inferred(default) if annotation is MISSING else kind_of(annotation)
        if kind and default is None:
            kind = one_of([kind, NULL])
        wired = kind is None or (name in WIRED and not has_part(kind)) or (factory and default is MISSING)
        found[name] = Parameter(name, kind, default, wired)
    return found


def _signature(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(target).parameters)
    except (ValueError, TypeError):  # something in C that does not tell
        return {}


def _hints(target: Any) -> dict[str, Any]:
    """The annotations of the constructor or function with strings resolved, as far as they can be."""
    while isinstance(target, partial):
        target = target.func
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    namespace = getattr(function, "__globals__", {})  # without any, something in C: no annotations either
    found = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        # One by one: a name that is imported for type checkers only must not hide the others.
        holder = type("holder", (), {"__annotations__": {name: annotation}})
        try:
            found.update(typing.get_type_hints(holder, namespace, include_extras=True))
        except (NameError, AttributeError, TypeError, SyntaxError):
            found[name] = object
    return found


def kind_of(annotation: Any, role: Role | None = None) -> Kind | None:
    """What a recipe may give where a signature says ``annotation``; None where it can give nothing (a tensor).

    >>> kind_of(float | None).says()
    'a number or null'
    """
    annotation = getattr(annotation, "__value__", getattr(annotation, "__supertype__", annotation))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return kind_of(arguments[0], next((mark for mark in arguments[1:] if isinstance(mark, Role)), role))
    if origin in {Union, types.UnionType}:
        kinds = [kind for kind in (kind_of(arm, role) for arm in arguments) if kind]
        expressible = [kind for kind in kinds if kind != NULL]
        return one_of(kinds) if expressible else None
    if origin is Literal:
        return one_of([Choice(arguments)])
    if annotation in {None, type(None)}:
        return NULL
    return _collection(origin or annotation, arguments, role) or _leaf(annotation, role)


def _collection(origin: Any, arguments: tuple[Any, ...], role: Role | None) -> Kind | None:
    if origin in _TABLES:
        item = kind_of(arguments[1] if arguments else Any, role)
        return Table(item) if item else None
    if origin not in _LISTS:
        return None
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        kinds = [kind_of(argument, role) for argument in arguments]
        known = [kind for kind in kinds if kind]
        return Row(tuple(known)) if len(known) == len(kinds) else None
    item = kind_of(arguments[0] if arguments else Any, role)
    return Many(item, _LISTS[origin]) if item else None


def _leaf(annotation: Any, role: Role | None) -> Kind | None:
    if role:
        unbuilt = getattr(annotation, "__name__", annotation) == "Spec"
        return PartOf(role.name, role.factory, unbuilt)
    if annotation in {bool, int, float, str}:
        return Plain(annotation)
    return Anything() if annotation is Any else None


def _inferred(default: Any) -> Kind | None:
    """What an argument without annotation probably takes, from its default."""
    if default is MISSING:
        return Anything()
    if isinstance(default, bool | str):
        return Plain(type(default))
    if isinstance(default, int | float):
        return one_of([Plain(int), Plain(float)])
    if isinstance(default, list | tuple):
        items = [kind for kind in map(_inferred, default) if kind]
        return Many(one_of(items) if items else Anything(), type(default))
    return None


def has_part(kind: Kind | None) -> bool:
    """Whether a part can stand somewhere in this kind."""
    inner = getattr(kind, "kinds", None) or getattr(kind, "items", None) or [getattr(kind, "item", None)]
    return isinstance(kind, PartOf) or any(has_part(item) for item in inner if item)

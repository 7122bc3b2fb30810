"""A part that has been checked and not yet built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torso.config.errors import Problem, RecipeError
from torso.config.roles import WIRED
from torso.config.signatures import parameters


@dataclass(frozen=True)
class Spec:
    """A node of a recipe: which part with which arguments, and where that is written.

    A family of `torso.recipes.assemble` gets the specs of its parts and builds them with what they need to know of
    each other: ``neck.build(in_channels=backbone.channels, strides=backbone.strides)``.
    """

    role: str
    name: str  # empty for a section of a recipe
    target: Callable[..., Any] = field(repr=False)
    args: dict[str, Any] = field(default_factory=dict)  # defaults included; nested parts are specs
    where: str = ""  # file:line, or the override
    path: str = ""  # model.neck
    factory: bool = False
    unbuilt: bool = False

    def build(self, **wired: Any) -> Any:
        """The part, its own parts built first; for a factory role, a callable that makes it.

        Args:
            wired: what other parts decide. Of the common names (`torso.config.WIRED`) a part gets those it asks for.

        Raises:
            RecipeError: the constructor does not accept a value; the message says where that was written.
        """
        accepted = parameters(self.target)
        wired = {key: value for key, value in wired.items() if key in accepted or key not in WIRED}
        arguments = {key: _built(value) for key, value in self.args.items()} | wired
        if self.factory:
            return partial(self.target, **arguments) if arguments else self.target
        try:
            return self.target(**arguments)
        except ValueError as error:
            what = f"{self.path or self.role}{f' ({self.name})' if self.name else ''}"
            raise RecipeError([Problem(self.where, f"{what}: {error}")]) from error

    def tree(self) -> Any:
        """The part as plain data, defaults included; only its name where it takes no arguments."""
        arguments = {key: _plain(value) for key, value in self.args.items()}
        if not self.name:
            return arguments
        return {"name": self.name} | arguments if arguments else self.name


def _built(value: Any) -> Any:
    if isinstance(value, Spec):
        return value if value.unbuilt else value.build()
    if isinstance(value, list | tuple):
        return type(value)(_built(item) for item in value)
    if isinstance(value, dict):
        return {key: _built(item) for key, item in value.items()}
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.tree()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value

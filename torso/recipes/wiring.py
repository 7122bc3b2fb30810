"""What the families of models share when they put parts together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from torso.config import ModelError, RecipeError, Spec, parameters

M = TypeVar("M", bound=nn.Module)


def objective_of(
    criterion: Spec, num_classes: int, coder: Any, family: Callable[..., Any], **given: Spec | None
) -> nn.Module:
    """The criterion with those of the parts that it takes.

    Args:
        criterion: the objective.
        num_classes: classes C.
        coder: built.
        family: whose arguments the parts are: what is its default may be left unused.
        given: the parts.

    Raises:
        ModelError: a part was chosen that this criterion has no use for.
    """
    taken = parameters(criterion.target)
    usual = {key: default.default for key, default in parameters(family).items() if key in given}
    for key, part in given.items():
        if key not in taken and part is not None and part.name != usual[key]:
            raise ModelError(
                f"model.criterion: {criterion.name} takes no {key}, but model.{key} is {part.name}: remove one of them"
            )
    built = {key: None if part is None else part.build() for key, part in given.items() if key in taken}
    made: nn.Module = criterion.build(coder=coder, num_classes=num_classes, **built)
    return made


def joined(backbone: Spec, body: nn.Module, neck: Spec) -> nn.Module:
    """The neck for the levels of a backbone, or one sentence that names both."""
    try:
        built: nn.Module = neck.build(in_channels=body.channels, strides=body.strides)
        return built
    except RecipeError as error:
        levels = f"the backbone {backbone.name} has levels of strides {body.strides} and channels {body.channels}"
        raise RecipeError([replace(one, message=f"{one.message}; {levels}") for one in error.problems]) from error


def fitted(make: Callable[[], M]) -> M:
    """The model, or one sentence about the parts that do not fit each other."""
    try:
        return make()
    except ValueError as error:
        raise ModelError(str(error)) from error

"""All parts of torso, found the way a recipe finds them: through the dict of their role."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from torso.config import ROLES


def all_parts() -> dict[str, Any]:
    """``{"neck/fpn": FPN, ...}`` over every role."""
    found = {}
    for role, place in ROLES.items():
        module, _, name = place.partition(":")
        parts = getattr(importlib.import_module(module), name)
        found.update({f"{role}/{key}": part for key, part in parts.items()})
    return dict(sorted(found.items()))


def is_own(part: Any) -> bool:
    """A library's part stands in the dict as it is, with the library's own page."""
    return str(getattr(part, "__module__", "")).partition(".")[0] == "torso"


def own_parts() -> dict[str, Any]:
    """The parts that torso wrote or adapted itself."""
    return {key: part for key, part in all_parts().items() if is_own(part)}


def parameters(part: Any) -> dict[str, inspect.Parameter]:
    """What its constructor takes."""
    return dict(inspect.signature(part).parameters)

"""Recipe text to parts: the signature of a part is its schema. Imports no torch."""

from __future__ import annotations

from torso.config.errors import (
    DataError,
    ExportError,
    ModelError,
    Problem,
    RecipeError,
    TorsoError,
    nearest,
    suggestion,
)
from torso.config.roles import ROLES, WIRED, Role, add_module, find, parts

__all__ = [
    "ROLES",
    "WIRED",
    "DataError",
    "ExportError",
    "ModelError",
    "Problem",
    "RecipeError",
    "Role",
    "TorsoError",
    "add_module",
    "find",
    "nearest",
    "parts",
    "suggestion",
]

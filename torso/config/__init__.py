"""Recipe text to parts: the signature of a part is its schema. Imports no torch.

``parse`` makes nodes of text, ``override`` changes them, ``check`` holds them against the signatures of the parts they
name and gives `Spec`s or all problems at once, and ``Spec.build`` makes the parts.
"""

from __future__ import annotations

from torso.config.check import check, spec
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
from torso.config.nodes import Node, dump, node, parse
from torso.config.overrides import merge, override
from torso.config.roles import ROLES, WIRED, Role, add_module, find, parts
from torso.config.signatures import Parameter, parameters
from torso.config.spec import Spec

__all__ = [
    "ROLES",
    "WIRED",
    "DataError",
    "ExportError",
    "ModelError",
    "Node",
    "Parameter",
    "Problem",
    "RecipeError",
    "Role",
    "Spec",
    "TorsoError",
    "add_module",
    "check",
    "dump",
    "find",
    "merge",
    "nearest",
    "node",
    "override",
    "parameters",
    "parse",
    "parts",
    "spec",
    "suggestion",
]

"""torso: vision models as recipes of parts (backbone, neck, head and what surrounds them)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# `torso.run.train` and not `torso.train`, which is a package.
# Lazy, because `import torso` must cost no more than `import torch`, and `torso --help` not even that.
_SURFACE = {
    "Recipe": "torso.recipes.recipe",
    "load": "torso.recipes.artifact",
    "run": "torso.recipes",
    "Detector": "torso.models",
    "Classifier": "torso.models",
}

__all__ = ["__version__", *_SURFACE]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _SURFACE:
        raise AttributeError(f"module 'torso' has no attribute {name!r}")
    if name == "run":
        return import_module("torso.recipes.run")
    return getattr(import_module(_SURFACE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

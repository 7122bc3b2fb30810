"""Libraries that only some people need: imported when used, and one line when they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from torso.config import TorsoError


def extra(module: str, job: str, name: str = "onnx", error: type[TorsoError] = TorsoError) -> ModuleType:
    """Import ``module`` of the extra called ``name``, needed for ``job``.

    Raises:
        TorsoError: it is not installed (or the given subclass of it); the message says what to type.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        raise error(f"'{job}' needs {missing.name}: pip install \"torso[{name}]\"") from missing

"""The public names, in a file that is reviewed: nothing appears or disappears by accident.

After a change that is meant: ``python -m tests.shape.test_surface --update``, and look at the diff.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from types import ModuleType
from typing import Any

from tests.shape import source
from tests.shape.parts import all_parts, is_own, parameters

SNAPSHOT = source.ROOT / "tests" / "shape" / "surface.json"


def public(module: ModuleType) -> list[str]:
    """``__all__`` where there is one, else what the module gives away that torso wrote."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    own = {
        name: value for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    return sorted(name for name, value in own.items() if is_own(value) or name.isupper())


def surface() -> dict[str, Any]:
    """What others may rely on: names of the packages, and the arguments that recipes may give to parts."""
    packages = [path.parent for path in source.files("torso") if path.name == "__init__.py"]
    names = [source.name(folder).replace("/", ".") for folder in packages] + ["torso.structures"]
    modules = {name: public(importlib.import_module(name)) for name in names}
    parts = {
        key: sorted(parameters(part)) if is_own(part) else f"{part.__module__}.{part.__qualname__}"
        for key, part in all_parts().items()
    }
    return {"modules": modules, "parts": parts}


def test_public_names_change_on_purpose() -> None:
    expected = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert surface() == expected, "run `python -m tests.shape.test_surface --update` and look at the diff"


if __name__ == "__main__" and sys.argv[1:] == ["--update"]:
    SNAPSHOT.write_text(json.dumps(surface(), indent=1) + "\n", encoding="utf-8")

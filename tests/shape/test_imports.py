"""What is imported when: `torso --help` answers without torch, `import torso` without anything."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "sklearn",
    "cv2",
    "matplotlib",
    "timm",
    "hotcoco",
    "onnx",
    "onnxruntime",
)


def imported_by(code: str) -> list[str]:
    """Top-level modules that a fresh Python has loaded after running this."""
    report = "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("code", ["import torso", "import torso.config", "import torso.cli"])
def test_nothing_heavy_at_the_door(code: str) -> None:
    assert not set(imported_by(code)) & set(HEAVY)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_needs_no_torch(arguments: list[str]) -> None:
    code = f"""
import torso.cli
try:
    torso.cli.main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
"""
    assert not set(imported_by(code)) & set(HEAVY)


def test_structures_need_only_torch() -> None:
    new = set(imported_by("import torch, torso.structures")) - set(imported_by("import torch"))
    assert new <= {"torso"}


def test_the_whole_surface_is_there() -> None:
    import torso

    missing = [name for name in torso.__all__ if not hasattr(torso, name)]
    assert not missing

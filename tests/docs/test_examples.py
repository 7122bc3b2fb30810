"""The examples run as they are, and the neck among them keeps the contract of its role."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


def test_the_neck_of_the_example_keeps_the_contract() -> None:
    from torso.testing import check_neck

    check_neck(runpy.run_path(str(EXAMPLES / "mylab.py"))["MyNeck"])

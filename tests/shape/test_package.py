"""What is shipped is what is in the repository, and it says the same version everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import torso
from tests.shape import source

SHIPPED = {".py", ".typed", ".yaml", ".j2"}


def tracked() -> list[str]:
    command = ["git", "-c", "core.quotepath=off", "ls-files", "-z"]
    done = subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("needs a git checkout, to know which files belong to torso")
    return [name for name in done.stdout.split("\0") if name and (source.ROOT / name).is_file()]


def test_changelog_knows_this_version() -> None:
    headings = re.findall(
        r"^## \[?([^]\s]+)\]?", (source.ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    released = [heading for heading in headings if heading != "Unreleased"]
    assert released[0] == torso.__version__, "the newest version in CHANGELOG.md is not torso.__version__"


def test_the_wheel_holds_torso_and_nothing_else(tmp_path: Path) -> None:
    names = tracked()
    for name in names:
        target = tmp_path / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source.ROOT / name, target)
    build = "import setuptools.build_meta as backend, sys; backend.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path / "source", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {name for name in names if name.startswith("torso/") and Path(name).suffix in SHIPPED}


def test_requirements_have_no_pins() -> None:
    project = tomllib.loads((source.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    assert not [line for line in wanted if re.search(r"[=~<]=?\s*\d", line.replace(">=", ""))]


def test_nothing_large_and_no_path_of_a_machine_in_the_repository() -> None:
    names = tracked()
    large = [name for name in names if (source.ROOT / name).stat().st_size > 500_000]
    assert not large
    home = re.compile(rb"/(home|root|Users|work|tmp/bash)/[a-z]")
    texts = [name for name in names if Path(name).suffix in {".py", ".md", ".yaml", ".toml", ".json", ".j2", ".sh", ""}]
    assert not [name for name in texts if home.search((source.ROOT / name).read_bytes())]

"""What is shown is run: every block of README, CONTRIBUTING and docs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from inspect import getsource
from pathlib import Path

import pytest

from tests.docs.blocks import PROLOGUE, Block, blocks

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = {"sh": ["bash", "-c"], "python": [sys.executable, "-c"]}
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def run(block: Block, folder: Path) -> None:
    command = [*RUN[block.language], PROLOGUE + block.text if block.language == "sh" else block.text]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"line {block.line}:\n{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@PAGE
def test_every_block_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In one folder a page, which holds a small VOCdevkit, as the reader's own data."""
    story = [block for block in blocks(page) if block.language in RUN and not block.reason]
    if any("VOCdevkit" in block.text for block in story):
        (tmp_path / "VOCdevkit").symlink_to(request.getfixturevalue("digits"))
    for block in story:
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
        else:
            run(block, tmp_path)


@PAGE
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    odd = [
        f"line {block.line}: {block.language or 'no language'} {block.note}"
        for block in blocks(page)
        if block.language not in {*RUN, "yaml", "text"} or (block.note and not block.reason and not block.file)
    ]
    assert not odd
    assert page.read_text(encoding="utf-8").count("\n```") == 2 * len(blocks(page)), "a fence without its other half"


@PAGE
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_files_shown_in_pages_are_the_examples() -> None:
    shown = [block for page in PAGES for block in blocks(page) if block.file]
    assert shown, "the README shows a neck of one's own"
    for block in shown:
        assert block.text == (ROOT / "examples" / block.file).read_text(encoding="utf-8"), block.file


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 80


def test_the_readme_promises_only_what_exists() -> None:
    from torso.data.formats import FORMATS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (`.*?`) \|", text, re.MULTILINE)
    recipes = {name for _, cell in rows for name in re.findall(r"`(\w+)`", cell)}
    shipped = {path.stem for path in (ROOT / "torso" / "recipes").glob("*.yaml")}
    assert recipes
    assert recipes <= shipped
    listed = dict(re.findall(r"^\| `(\w+)` \|.*\| yes \| (yes|no) \|$", text, re.MULTILINE))
    assert set(listed) == set(FORMATS)
    only_read = {name for name, form in FORMATS.items() if re.search(r"only read|never written", getsource(form.write))}
    assert {name for name, written in listed.items() if written == "no"} == only_read
    assert (ROOT / "docs" / "pictures" / "demo.jpg").is_file()

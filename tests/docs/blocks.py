"""Code blocks of a Markdown page, and what it takes to run them as they stand.

A page is one story: its blocks run in order, in one folder, and what one makes the next may use. A comment on the line
before a block says what is special about it:

- ``<!-- not run: REASON -->``: shown, but not run.
- ``<!-- file: NAME -->``: the block is a file of this name; it is written, and used by a later block.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(
    r"^(?:<!-- (?P<note>.*?) -->\n)?```(?P<language>[\w-]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)

# What is appended to each `torso train` of a page: the command is the reader's, the size is a test's.
SMALL = "train.epochs=1 train.precision=fp32 data.size=64 data.batch=8 data.workers=0 model.backbone=tiny"

# Bash before each block: stop at the first failure, and make training small.
PROLOGUE = f"""set -euo pipefail
torso() {{
    if [ "$1" = train ]; then command torso "$@" {SMALL}; else command torso "$@"; fi
}}
"""


class Block(NamedTuple):
    """One fenced block."""

    line: int
    language: str
    text: str
    note: str

    @property
    def file(self) -> str:
        """The name of the file that this block is, or nothing."""
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else ""

    @property
    def reason(self) -> str:
        """Why it is not run, or nothing."""
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else ""


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start("text")), found["language"], found["text"], found["note"] or "")
        for found in BLOCK.finditer(text)
    ]

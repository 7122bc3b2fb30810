"""docs/ledger.md says what the tests do, no more and no less."""

from __future__ import annotations

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "make_ledger.py"


def test_the_ledger_is_up_to_date() -> None:
    made = runpy.run_path(str(SCRIPT))
    text, _, versions = made["PAGE"].read_text(encoding="utf-8").partition("\nWritten with ")
    assert text == made["page"](), "run `python docs/make_ledger.py`"
    assert "torch " in versions

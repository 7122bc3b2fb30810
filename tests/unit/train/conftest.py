"""Runs are written to memory: a disk's flushes take most of the time, and tell a test nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.train.tiny import quick_folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In place of pytest's."""
    with quick_folder() as folder:
        yield folder

"""Everything of the role ``format``: the formats themselves, and the tools that read, write, change and judge them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torso.data.doctor import examine
from torso.data.formats import FORMATS
from torso.data.formats.custom import custom

FORMAT_PARTS: dict[str, Callable[..., Any]] = {
    **FORMATS,
    "custom": custom,
    "doctor": examine,
}

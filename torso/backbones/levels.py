"""Which levels a backbone returns."""

from __future__ import annotations

from collections.abc import Sequence

from torso.config import ModelError


def chosen(levels: Sequence[int], offered: Sequence[int], name: str) -> list[int]:
    """The levels in order, each once.

    Raises:
        ModelError: none, or one that ``name`` does not have.
    """
    unknown = sorted(set(levels) - set(offered))
    if unknown or not levels:
        what = f"has no level {unknown[0]}" if unknown else "was asked for no level"
        raise ModelError(f"{name} {what}: choose among {min(offered)} to {max(offered)}, got levels={list(levels)}")
    return sorted(set(levels))

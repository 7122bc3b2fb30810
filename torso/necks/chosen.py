"""Necks that work on some of the levels and let the others pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from torso.structures import Features


class OnLevels(nn.ModuleDict):
    """A block of its own for each chosen level; the other levels pass as they are.

    Args:
        blocks: the block of each chosen level, by its index.
    """

    def __init__(self, blocks: dict[int, nn.Module]):
        super().__init__({str(level): block for level, block in blocks.items()})

    def forward(self, features: Features) -> Features:
        """As many levels as come in."""
        return [self[str(i)](x) if str(i) in self else x for i, x in enumerate(features)]


def chosen(neck: str, levels: Sequence[int] | None, strides: Sequence[int]) -> list[int]:
    """The indices of the levels that are meant: None is all of them, -1 the coarsest.

    Raises:
        ValueError: a level that the backbone does not give, or one named twice.
    """
    count = len(strides)
    given = range(count) if levels is None else levels
    found = [level + count if level < 0 else level for level in given]
    if any(not 0 <= level < count for level in found) or len(set(found)) != len(found):
        raise ValueError(
            f"{neck}: levels {list(given)} are to be different ones of the {count} levels of strides {list(strides)}, "
            "counted from 0, or from the end with -1"
        )
    return sorted(found)

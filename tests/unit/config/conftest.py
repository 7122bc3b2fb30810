"""Every test of this folder sees the small world."""

from tests.unit.config.world import world

__all__ = ["world"]

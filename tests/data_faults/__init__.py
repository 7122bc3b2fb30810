"""Small data sets with planted faults, and what has to be said about each."""

from __future__ import annotations

from tests.data_faults import wholes as _wholes  # noqa: F401 - adds its faults
from tests.data_faults.faults import FAULTS, Fault
from tests.data_faults.plan import Expected, Item, Plan, Row

__all__ = ["FAULTS", "Expected", "Fault", "Item", "Plan", "Row", "faultset"]


def faultset(folder, form: str, faults=()) -> tuple:
    """A set of 40 pictures in a format with some faults: its path, and everything a check has to find, no more."""
    plan = Plan.clean(folder, form)
    said = [place for name in faults for place in FAULTS[name].plant(plan)]
    plan.write()
    return plan.root, [place() for place in said]

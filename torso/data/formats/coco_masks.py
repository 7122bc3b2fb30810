"""The ``segmentation`` of COCO's annotations: which of it is a mask."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from torso.data.index import Mask
from torso.data.masks import MAX_OUTLINE, problem

_SIZE = (1 << 14, 1 << 14)  # of no picture in particular: said where only finite numbers of polygons are asked for


def plain(values: Sequence[Any]) -> bool:
    """Whether everything here is polygons that can be masks (or nothing), told for many annotations at once."""
    if not set(map(type, values)) <= {list, type(None)}:
        return False
    polygons = list(chain.from_iterable(filter(None, values)))
    if not set(map(type, polygons)) <= {list}:
        return False
    lengths = np.array(list(map(len, polygons)), np.int64)
    if not len(lengths):
        return True
    try:
        points = np.array(list(chain.from_iterable(polygons)))
    except ValueError:  # lists of lists
        return False
    if points.dtype.kind not in "if" or points.ndim != 1 or (lengths % 2).any() or lengths.min() < 6:
        return False
    low, high = float(points.min()), float(points.max())  # nan where one is nan
    return (high - low) * int(lengths.max()) < MAX_OUTLINE and max(-low, high) < MAX_OUTLINE


def mask_of(value: Any) -> tuple[Mask, str]:
    """The mask of one annotation, and what was wrong: the box stays, only wrong polygons are left out.

    Run lengths are looked at again when the picture's size is known.
    """
    if not value:
        return None, ""
    if isinstance(value, dict):
        if isinstance(value.get("counts"), list | str) and isinstance(value.get("size"), list):
            return value, ""
    elif isinstance(value, list):
        good = [
            polygon for polygon in value if isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        ]
        few = len(value) - len(good)
        finite = [polygon for polygon in good if not _wrong(polygon)]
        if not few and len(good) == len(finite):
            return finite, ""
        if few:
            return finite or None, f"{few} polygons have fewer than 3 points; left out, the box stays"
        first = next(wrong for polygon in good if (wrong := _wrong(polygon)))
        return finite or None, f"{first}; left out, the box stays"
    return None, "expected polygons or run lengths; left out, the box stays"


def _wrong(polygon: list[Any]) -> str:
    if not all(isinstance(number, int | float) for number in polygon):
        return f"expected a polygon of numbers, came {ascii(polygon)[:60]}"
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return problem([polygon], _SIZE)
    except OverflowError:
        return "expected finite coordinates"


def misfit(mask: Mask, size: tuple[int, int]) -> str:
    """What is wrong with run lengths on a picture of ``size`` (width, height); "" for polygons and what is right."""
    if not isinstance(mask, dict):
        return ""
    counts, said = mask["counts"], mask["size"]
    whole = type(counts) is list and set(map(type, counts)) == {int}
    if whole and said == [size[1], size[0]] and min(counts) >= 0 and sum(counts) == size[0] * size[1]:
        return ""  # most are right, and this is ten times faster
    wrong = problem(mask, size)
    return wrong and f"{wrong}; left out, the box stays"

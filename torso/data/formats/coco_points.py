"""The ``keypoints`` of COCO's annotations: ``x y v`` for each, v 0 unlabelled, 1 hidden, 2 visible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.data.builder import Builder


def points_of(
    builder: Builder, file: Path, said: dict[int, Any], numbers: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """``[T, K, 3]`` for the annotations of these numbers, zero where they have none.

    Where the categories name no keypoints, they are called by their number. What is wrong is noted and left out.

    Args:
        builder: knows the names.
        file: for messages.
        said: number -> (keypoints, num_keypoints) as the file has them.
        numbers: ``[T]``.
    """
    if not builder.keypoint_names and said:
        first = next((len(points) for points, _ in said.values() if isinstance(points, list) and points), 0)
        builder.keypoint_names = tuple(map(str, range(first // 3)))
        if first:
            message = f"categories: none names its keypoints; they are called 0 to {first // 3 - 1}"
            builder.report("unnamed keypoints", file, message)
    count = len(builder.keypoint_names)
    if not count:
        return None
    points = np.zeros((len(numbers), count, 3))
    rows = {number: row for row, number in enumerate(numbers.tolist())} if said else {}
    for number, (value, seen) in said.items():
        if number not in rows or value == []:
            continue
        found, wrong = _points(value, count)
        labelled = int((found[:, 2] > 0).sum())
        where = f"annotations[{number}]"
        if wrong:
            builder.report("malformed keypoints", file, f"{where}.keypoints: {wrong}; left out, the box stays")
        elif seen is not None and seen != labelled:
            message = f"{where}.num_keypoints: says {ascii(seen)[:20]}, {labelled} are labelled"
            builder.report("wrong num_keypoints", file, message)
        points[rows[number]] = found
    return points


def _points(value: Any, count: int) -> tuple[NDArray[np.float64], str]:
    """``[count, 3]``, and what was wrong with it."""
    nothing = np.zeros((count, 3))
    if not isinstance(value, list) or len(value) != 3 * count:
        came = f"{len(value)} numbers" if isinstance(value, list) else type(value).__name__
        return nothing, f"expected {3 * count} numbers (x y v of {count}), came {came}"
    try:
        points = np.array(value, np.float64).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError):
        return nothing, f"expected numbers, came {ascii(value)[:60]}"
    if not np.isfinite(points).all():
        return nothing, "expected finite numbers"
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        return nothing, "expected a visibility of 0, 1 or 2"
    return points, ""

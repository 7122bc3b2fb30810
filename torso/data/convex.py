"""Convex polygons: cut along the axes, and asked what lies inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torso.data.views import Points

Frame = tuple[float, float, float, float]
"""xyxy on a canvas."""


def corners(frame: Frame) -> Points:
    """The corners of a rectangle ``[4, 2]``, in order round."""
    x0, y0, x1, y1 = frame
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def around(points: Points) -> Frame:
    """The rectangle around positions ``[k, 2]``."""
    xs, ys = points.T.tolist()
    return min(xs), min(ys), max(xs), max(ys)


def along(frame: Frame, across: tuple[float, float], down: tuple[float, float]) -> Frame:
    """A rectangle after a scale and a shift along each axis."""
    x0, x1 = across[0] * frame[0] + across[1], across[0] * frame[2] + across[1]
    y0, y1 = down[0] * frame[1] + down[1], down[0] * frame[3] + down[1]
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def overlap(a: Frame, b: Frame) -> Frame:
    """What two rectangles share; of no area where they are apart."""
    x0, y0 = max(a[0], b[0]), max(a[1], b[1])
    return x0, y0, max(min(a[2], b[2]), x0), max(min(a[3], b[3]), y0)


def upright(polygon: Points) -> bool:
    """Whether a polygon is a rectangle along the axes."""
    if len(polygon) != 4:
        return False
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = polygon.tolist()
    return bool((ay == by and cy == dy and ax == dx and bx == cx) or (ax == bx and cx == dx and ay == dy and by == cy))


def cut(polygon: Points, frame: Frame) -> Points:
    """What of a convex polygon lies inside a rectangle: ``[k, 2]``, of no area where nothing does."""
    rows: list[list[float]] = polygon.tolist()
    for axis, at, side in ((0, frame[0], 1), (0, frame[2], -1), (1, frame[1], 1), (1, frame[3], -1)):
        kept = []
        for a, b in zip(rows, rows[1:] + rows[:1], strict=True):
            from_a, from_b = side * (a[axis] - at), side * (b[axis] - at)
            if from_a >= 0:
                kept.append(a)
            if from_a * from_b < 0:
                share = from_a / (from_a - from_b)
                crossing = [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])]
                crossing[axis] = at  # without a rounding that would lie outside
                kept.append(crossing)
        if not kept:
            return np.tile([frame[0], frame[1]], (4, 1))
        rows = kept
    return np.array(rows)


def inside(points: Points, polygon: Points) -> NDArray[np.bool_]:
    """Which of the positions ``[n, 2]`` lie in a convex polygon ``[k, 2]``."""
    sides = np.roll(polygon, -1, 0) - polygon
    ways = points[:, None] - polygon
    cross = sides[:, 0] * ways[..., 1] - sides[:, 1] * ways[..., 0]
    return np.asarray((cross > 0).all(1) | (cross < 0).all(1))  # corners may run round either way

"""Keypoints of objects: where they are on the canvas, and what can still be seen of them."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from torso.data.views import Filter, Matrix, move_points

Keypoints = NDArray[np.float64]
"""``[n, K, 3]``: x, y, visibility (0 unlabelled, 1 hidden, 2 visible)."""


def moved(points: Keypoints, matrix: Matrix, names: tuple[str, ...]) -> Keypoints:
    """Keypoints after a matrix; one that mirrors makes left ones right ones."""
    if np.linalg.det(matrix) < 0:
        points = points[:, mirrored(names, points.shape[1])]
    return np.concatenate([move_points(points[..., :2], matrix), points[..., 2:]], axis=-1)


def filtered(points: Keypoints, one: Filter, size: tuple[int, int]) -> Keypoints:
    """Keypoints after a filter that moves things about."""
    places = one.points(points[..., :2].reshape(-1, 2), size).reshape(*points.shape[:2], 2)
    return np.concatenate([places, points[..., 2:]], axis=-1)


def seen(points: Keypoints, frame: NDArray[np.float64], above: NDArray[np.bool_] | None) -> Keypoints:
    """Keypoints outside of a frame ``[4]`` xyxy become unlabelled (all zeros), those under a bitmap hidden.

    Args:
        points: ``[n, K, 3]`` on the canvas.
        frame: what shows of their picture.
        above: ``[H, W]``: what lies above it, or nothing.
    """
    x, y, visibility = np.moveaxis(points, -1, 0)
    x0, y0, x1, y1 = frame
    inside = (visibility > 0) & (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    if above is not None:
        rows, columns = (np.where(inside, value, 0).astype(np.int64) for value in (y, x))
        visibility = np.where(above[rows, columns], np.minimum(visibility, 1), visibility)
    return np.asarray(np.stack([x, y, visibility], -1) * inside[..., None])


@lru_cache(maxsize=16)
def mirrored(names: tuple[str, ...], count: int) -> tuple[int, ...]:
    """Where each keypoint comes from when left and right change places: by their names."""
    places = {name: number for number, name in enumerate(names)}
    return tuple(places.get(_other_side(name), number) for number, name in enumerate(names)) or tuple(range(count))


def _other_side(name: str) -> str:
    """``left_eye`` for ``right_eye``, ``r-knee`` for ``l-knee``; the name itself where it has no side."""
    return re.sub(
        r"(?<![A-Za-z])(left|right|l|r)(?![A-Za-z])",
        lambda found: _same_case(found[0], _SIDES[found[0].lower()]),
        name,
        flags=re.IGNORECASE,
    )


def _same_case(like: str, word: str) -> str:
    return word.upper() if like.isupper() else word.capitalize() if like[0].isupper() else word


_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}

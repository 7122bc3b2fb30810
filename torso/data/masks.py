"""Masks of objects: from polygons and COCO run lengths to pixels and back.

Run lengths go down the columns and begin with a run of zeros (which may be empty), as in COCO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.index import Mask

Bitmap = NDArray[np.bool_]
"""``[H, W]``."""

# A polygon is walked in steps of a fifth of a pixel; what is longer than this is no outline of anything on a picture.
MAX_OUTLINE = 4e6  # pixels


def problem(mask: Mask, size: tuple[int, int]) -> str:
    """What is wrong with a mask on a picture of ``size`` (width, height); "" where it can be rasterised."""
    if mask is None:
        return "expected a mask, came none"
    if isinstance(mask, dict):
        return _wrong_runs(mask, size)
    return next((wrong for polygon in mask if (wrong := _wrong_polygon(polygon, size))), "")


def rasterise(mask: Mask, size: tuple[int, int]) -> Bitmap:
    """The pixels of a mask, the same ones that pycocotools sets.

    A polygon is drawn at five times the resolution, and a pixel belongs to it by the rule of COCO's reference code;
    several polygons are united, so a hole cannot be said with polygons.

    Args:
        mask: polygons in pixels, or run lengths ``{"size": [h, w], "counts": [...] or a compressed string}``.
        size: width, height of the picture.

    Returns:
        ``[H, W]``.

    Raises:
        DataError: there is no mask, or it cannot lie on such a picture; ``problem`` tells beforehand.
    """
    wrong = problem(mask, size)
    if wrong or mask is None:
        raise DataError(f"mask: {wrong}")
    width, height = size
    if isinstance(mask, dict):
        runs = _runs(mask["counts"])
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return np.ascontiguousarray(flat.reshape(width, height).T)
    from hotcoco import mask as rle

    if not mask or not size[0] * size[1]:
        return np.zeros((height, width), np.bool_)
    outlines = [[float(value) for value in polygon] for polygon in mask]
    pixels = rle.decode(rle.merge(rle.frPyObjects(outlines, height, width)))
    return np.ascontiguousarray(pixels).view(np.bool_)


def encoded(bitmap: NDArray[Any]) -> dict[str, Any]:
    """Uncompressed COCO run lengths ``{"counts": [...], "size": [h, w]}`` of a ``[H, W]`` bitmap."""
    flat = np.asarray(bitmap, np.bool_).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(edges, prepend=0, append=len(flat)).tolist()
    counts = [0, *runs] if len(flat) and flat[0] else runs
    return {"counts": counts, "size": [int(side) for side in np.shape(bitmap)]}


def encoded_window(pixels: NDArray[Any], left: int, top: int, size: tuple[int, int]) -> dict[str, Any]:
    """Compressed COCO run lengths ``{"size": [h, w], "counts": "..."}`` of a bitmap that is empty outside a window.

    The same as of the whole bitmap, but a crowd of small objects on a large picture costs what its objects measure.

    Args:
        pixels: ``[h, w]`` of the window.
        left: of the window, in pixels of the picture.
        top: of the window.
        size: width, height of the picture.
    """
    width, height = size
    columns = np.pad(np.asarray(pixels, np.bool_).T, ((0, 0), (1, 1))).astype(np.int8)  # [w, h + 2]
    steps = np.diff(columns, axis=1)  # 1 where a run begins, -1 behind its end
    edges = []
    for step in (1, -1):
        column, row = np.nonzero(steps == step)
        edges.append((left + column) * height + top + row)
    starts, ends = edges
    apart = starts[1:] != ends[:-1]  # a run goes on at the top of the next column
    starts, ends = np.append(starts[:1], starts[1:][apart]), np.append(ends[:-1][apart], ends[-1:])
    bounds = np.append(np.stack([starts, ends], axis=1).ravel(), width * height)
    runs = np.diff(bounds, prepend=0)
    return compressed({"counts": runs[: len(runs) - (runs[-1] == 0)].tolist(), "size": [height, width]})


def compressed(mask: dict[str, Any]) -> dict[str, Any]:
    """Run lengths ``{"counts": [...], "size": [h, w]}`` with the counts as COCO's compressed string."""
    from hotcoco import mask as rle

    found = rle.frPyObjects(mask, *mask["size"])
    return {"size": [int(side) for side in mask["size"]], "counts": found["counts"].decode("ascii")}


def encoded_each(numbers: NDArray[Any]) -> dict[int, dict[str, Any]]:
    """``encoded(numbers == n)`` for every ``n`` that occurs in ``[H, W]``, in one pass whatever their number."""
    flat = np.asarray(numbers).ravel(order="F")
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] + 1))
    ends = np.append(starts[1:], len(flat))
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    found = {}
    for rows in np.split(order, np.flatnonzero(np.diff(values[order])) + 1) if len(flat) else []:
        edges = np.stack([starts[rows], ends[rows]], axis=1).ravel()
        counts = np.diff(edges, prepend=0, append=len(flat))
        found[int(values[rows[0]])] = {
            "counts": counts[: len(counts) - (counts[-1] == 0)].tolist(),
            "size": [int(side) for side in np.shape(numbers)],
        }
    return found


def polygons_of(bitmap: NDArray[Any]) -> list[list[float]]:
    """The outer outlines of a ``[H, W]`` bitmap as polygons, for formats that know nothing else.

    This loses: holes are filled, and what is less than three pixels of outline disappears. The outline runs along
    the outside of the pixels, so a rectangle comes back exactly.
    """
    import cv2

    pixels = np.asarray(bitmap, np.bool_).astype(np.uint8)
    # Outlines join pixel centres. Of pixels twice as large the centres' outline, moved by half, meets the edges.
    twice = np.repeat(np.repeat(np.pad(pixels, 1), 2, axis=0), 2, axis=1)
    outlines, _ = cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for outline in outlines:
        corners = _corners(np.rint((outline.reshape(-1, 2) + 0.5) / 2) - 1)
        if len(corners) >= 3:
            polygons.append([float(value) for value in corners.ravel()])
    return polygons


def box_of(bitmap: NDArray[Any]) -> tuple[float, float, float, float]:
    """The xyxy box around the set pixels, continuous from 0; all zeros where none is set."""
    pixels = np.asarray(bitmap, np.bool_)
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def area_of(mask: Mask, size: tuple[int, int]) -> float:
    """How many pixels of a picture of ``size`` (width, height) a mask sets; run lengths are only added up.

    Raises:
        DataError: as ``rasterise``.
    """
    if isinstance(mask, dict) and not problem(mask, size):
        return float(_runs(mask["counts"])[1::2].sum())
    return float(rasterise(mask, size).sum())


def runs_of_text(text: str | bytes) -> list[int]:
    """The run lengths of a compressed string.

    Five bits a letter, lowest first; from the fourth number on it is the difference to the last but one.

    Raises:
        DataError: a letter that cannot occur, or a number without end.
    """
    letters = np.frombuffer(text.encode("utf-8") if isinstance(text, str) else text, np.uint8).astype(np.int64) - 48
    if not len(letters):
        return []
    last = np.flatnonzero((letters & 32) == 0)
    lengths = np.diff(last, prepend=-1)
    if letters.min() < 0 or letters.max() > 63 or not len(last) or last[-1] != len(letters) - 1 or lengths.max() > 8:
        raise DataError("mask: expected compressed run lengths, came text that is none")
    start = np.repeat(last - lengths + 1, lengths)
    shift = 5 * (np.arange(len(letters)) - start)
    values = np.add.reduceat((letters & 31) << shift, last - lengths + 1)
    values = np.where(letters[last] & 16, values - (np.int64(1) << (5 * lengths)), values)
    # The first three are plain; from there on even and odd runs each add up.
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return [int(value) for value in values]


def _runs(counts: Sequence[int] | str | bytes) -> NDArray[np.int64]:
    runs = np.asarray(runs_of_text(counts) if isinstance(counts, str | bytes) else counts)
    if runs.ndim != 1 or (len(runs) and runs.dtype.kind not in "iu"):
        raise DataError("mask: expected run lengths as whole numbers or as a compressed string")
    return runs.astype(np.int64)


def _wrong_polygon(polygon: list[float], size: tuple[int, int]) -> str:
    if not isinstance(polygon, list | tuple):
        return f"expected a list of polygons, came a list of {type(polygon).__name__}"
    if len(polygon) % 2 or len(polygon) < 6:
        return f"expected a polygon of three points or more (x, y, x, y, ...), came {len(polygon)} numbers"
    try:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        return f"expected a polygon of numbers, came {str(polygon)[:60]}"
    outline = np.abs(np.diff(points, axis=0, append=points[:1])).sum()
    if not (np.isfinite(outline) and outline <= MAX_OUTLINE and np.abs(points).max() <= MAX_OUTLINE):
        return f"expected finite coordinates near a picture of {size[0]}x{size[1]}, came {str(polygon)[:60]}"
    return ""


def _wrong_runs(mask: dict[str, Any], size: tuple[int, int]) -> str:
    width, height = size
    said = mask.get("size")
    if not isinstance(said, list | tuple) or list(said) != [height, width]:
        return f"expected run lengths of size [{height}, {width}] (height, width), came {str(said)[:60]}"
    try:
        runs = _runs(mask.get("counts", ""))
    except (TypeError, ValueError, OverflowError) as error:
        return f"expected run lengths, came what is none ({error})"
    except DataError as error:
        return str(error).removeprefix("mask: ")
    total = float(runs.astype(np.float64).sum())
    if total != width * height or (len(runs) and runs.min() < 0):
        return f"expected run lengths that add up to {width * height} pixels, came {total:g}"
    return ""


def _corners(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points of a closed outline without those that lie on a straight line between their neighbours."""
    points = points[np.any(points != np.roll(points, 1, axis=0), axis=1)]
    if len(points) < 3:
        return points
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    bent: NDArray[np.bool_] = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return points[bent]

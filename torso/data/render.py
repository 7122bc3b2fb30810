"""Turns a view into pixels: one decode, one warp, one colour product."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from torso.data.decode import Pixels, decode
from torso.data.stores import Picture
from torso.data.views import Matrix, View, inverse, scaling, shifting

_AVERAGE = 1.5  # shrink factor from which on pixels are averaged


def load(picture: Picture, view: View) -> Pixels:
    """Decodes a picture, inside the JPEG decoder as small as the view allows without losing detail."""
    return decode(picture, 1 / max(view.scale, 1e-6) if view.scaled else 1, pillow=view.pillow)


def resized(pixels: Pixels, size: tuple[int, int], into: Pixels | None = None) -> Pixels:
    """Pixels at another size (width, height), written into an array of that size where one is given.

    Bilinear sampling reads 2x2 pixels and is up to six times faster than averaging, which takes over where
    bilinear sampling begins to skip pixels.
    """
    shrinks = min(pixels.shape[1] / size[0], pixels.shape[0] / size[1])
    method = cv2.INTER_AREA if shrinks > _AVERAGE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, dst=into, interpolation=method), np.uint8)


def shrunk(pixels: Pixels, view: View) -> Pixels:
    """A decoded picture made no larger than the view needs it (for a cache)."""
    width, height = (max(round(side * view.scale), 1) for side in view.source)
    if height >= pixels.shape[0] and width >= pixels.shape[1]:
        return pixels
    return resized(pixels, (width, height))


def render(pixels: Pixels, view: View, into: Pixels | None = None) -> tuple[Pixels, View]:
    """Draws a decoded picture the way a view says.

    Args:
        pixels: ``[h, w, 3]`` uint8, the whole source picture; it may have been decoded smaller than it is.
        view: what is to be done; its matrix maps full-size source pixels to the canvas.
        into: the canvas to draw on, ``[H, W, 3]`` uint8; a new one when None.

    Returns:
        The canvas ``[H, W, 3]`` uint8 and the view as it was really drawn: without rotation or shear the crop is
        snapped to whole pixels, and boxes that follow the returned matrix fit the drawing exactly.
    """
    height, width = pixels.shape[:2]
    decoded = scaling(view.source[0] / width, view.source[1] / height)  # decoded -> source
    matrix = view.matrix @ decoded
    canvas = np.empty((view.size[1], view.size[0], 3), np.uint8) if into is None else into
    canvas[:] = view.fill
    if matrix[0, 1] == 0 and matrix[1, 0] == 0:
        matrix = _place(pixels, matrix, canvas)
    else:
        matrix = _warp(pixels, matrix, canvas)
    if not np.array_equal(view.color, np.eye(3, 4)):
        cv2.transform(canvas, view.color, dst=canvas)
    return canvas, replace(view, matrix=matrix @ inverse(decoded))


def _place(pixels: Pixels, matrix: Matrix, canvas: Pixels) -> Matrix:
    """Crop, resize, flip: straight into the canvas. Returns the matrix of what was done."""
    height, width = pixels.shape[:2]
    x = _span(matrix[0, 0], matrix[0, 2], width, canvas.shape[1])
    y = _span(matrix[1, 1], matrix[1, 2], height, canvas.shape[0])
    if x is None or y is None:
        return matrix
    (sx0, sx1, dx0, dx1), (sy0, sy1, dy0, dy1) = x, y
    part, place = pixels[sy0:sy1, sx0:sx1], canvas[dy0:dy1, dx0:dx1]
    size, flips = (dx1 - dx0, dy1 - dy0), (bool(matrix[0, 0] < 0), bool(matrix[1, 1] < 0))
    if size != (sx1 - sx0, sy1 - sy0):
        part = resized(part, size, None if any(flips) else place)
    if any(flips):
        cv2.flip(part, {(True, False): 1, (False, True): 0, (True, True): -1}[flips], dst=place)
    elif part is not place:
        place[:] = part
    a, c = _line(sx0, sx1, dx0, dx1, flips[0])
    e, f = _line(sy0, sy1, dy0, dy1, flips[1])
    return np.array([[a, 0.0, c], [0.0, e, f], [0.0, 0.0, 1.0]])


def _span(scale: float, shift: float, source: int, canvas: int) -> tuple[int, int, int, int] | None:
    """Whole pixels ``s0..s1`` of the source that fill ``d0..d1`` of the canvas along one axis; None when none do."""
    ends = sorted((shift, shift + scale * source))
    d0, d1 = round(max(ends[0], 0.0)), round(min(ends[1], float(canvas)))
    if d1 <= d0:
        return None
    s0, s1 = sorted(((d0 - shift) / scale, (d1 - shift) / scale))
    low = min(max(round(s0), 0), source - 1)
    return low, min(max(round(s1), low + 1), source), d0, d1


def _line(s0: int, s1: int, d0: int, d1: int, flipped: bool) -> tuple[float, float]:
    """Scale and shift of the map that takes ``s0..s1`` to ``d0..d1`` (to ``d1..d0`` when flipped)."""
    scale = (d1 - d0) / (s1 - s0)
    return (-scale, d1 + scale * s0) if flipped else (scale, d0 - scale * s0)


def _warp(pixels: Pixels, matrix: Matrix, canvas: Pixels) -> Matrix:
    """One affine warp with bilinear sampling into the canvas."""
    shrink = int(1 / max(float(np.linalg.norm(matrix[:2, :2], 2)), 1e-6))
    drawn = matrix
    if shrink >= 2:  # bilinear sampling alone would skip pixels
        height, width = pixels.shape[:2]
        pixels = resized(pixels, (max(width // shrink, 1), max(height // shrink, 1)))
        drawn = matrix @ scaling(width / pixels.shape[1], height / pixels.shape[0])
    # cv2 counts from the centre of the first pixel, we from its edge.
    centred = shifting(-0.5, -0.5) @ drawn @ shifting(0.5, 0.5)
    size = (canvas.shape[1], canvas.shape[0])
    fill = canvas[0, 0].tolist()
    cv2.warpAffine(pixels, centred[:2], size, dst=canvas, flags=cv2.INTER_LINEAR, borderValue=fill)
    return matrix

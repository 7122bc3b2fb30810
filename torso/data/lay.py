"""Puts one picture onto a canvas: crop, resize and flip where its view is upright, else one warp."""

from __future__ import annotations

import math

import cv2
import numpy as np

from torso.data.convex import around, corners, cut, upright
from torso.data.decode import Pixels
from torso.data.scene import Layer
from torso.data.views import Points, View, changed, move_points, scaling, shifting, upright_lines

# Bilinear sampling reads 2x2 pixels, so that it skips none until here (and a little for the rounding to whole pixels).
_AVERAGE = 2.05
_FLIPS = {(True, False): 1, (False, True): 0, (True, True): -1}
_BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}

Line = tuple[float, float]
"""Scale and shift along one axis."""
Span = tuple[int, int, int, int]
"""Whole pixels ``s0..s1`` of the source that fill ``d0..d1`` of the canvas along one axis."""


def resized(pixels: Pixels, size: tuple[int, int], into: Pixels | None = None) -> Pixels:
    """Pixels at another size (width, height), written into an array of that size where one is given.

    Bilinear sampling is up to six times faster than averaging, which takes over where it would skip pixels.
    """
    shrinks = min(pixels.shape[1] / size[0], pixels.shape[0] / size[1])
    method = cv2.INTER_AREA if shrinks > _AVERAGE else cv2.INTER_LINEAR
    drawn: Pixels = cv2.resize(pixels, size, dst=into, interpolation=method)  # type: ignore[assignment]
    return drawn


def grey(pixels: Pixels) -> int:
    """What one of 256 grey levels is in the pixels' own units: 1, or 257 of 16 bits."""
    return 257 if pixels.dtype.itemsize == 2 else 1


def laid(pixels: Pixels, layer: Layer, canvas: Pixels) -> Layer:
    """Puts a picture, or its part, where its view says.

    A layer with a part changes nothing of the canvas around it; one without fills what it does not reach as its view
    says. Where it is upright the crop is snapped to whole pixels.

    Returns:
        The layer as it was really drawn.
    """
    view, part = layer.view, layer.part
    height, width = pixels.shape[:2]
    x, y = view.source[0] / width, view.source[1] / height  # decoded -> source
    lines = upright_lines(view.matrix)
    if lines is None or view.border != "constant" or (part is not None and not upright(part)):
        matrix = view.matrix @ scaling(x, y)
        _warp(pixels, changed(view, matrix=matrix), None if part is None else part / (x, y), canvas)
        return layer
    (a, c), (e, f) = lines
    frame = (0.0, 0.0, float(width), float(height))
    if part is not None:
        left, top, right, bottom = around(part)
        frame = (left / x, top / y, right / x, bottom / y)
    across = _span((a * x, c), (frame[0], frame[2]), width, canvas.shape[1])
    down = _span((e * y, f), (frame[1], frame[3]), height, canvas.shape[0])
    if across is None or down is None:
        return layer
    _place(pixels, across, down, (a < 0, e < 0), canvas)
    (a, c), (e, f) = _line(*across, a < 0), _line(*down, e < 0)
    view = changed(view, matrix=np.array([[a / x, 0.0, c], [0.0, e / y, f], [0.0, 0.0, 1.0]]))
    if part is not None:
        part = corners((across[0] * x, down[0] * y, across[1] * x, down[1] * y))
    return changed(layer, view=view, part=part)


def _place(pixels: Pixels, across: Span, down: Span, flips: tuple[bool, bool], canvas: Pixels) -> None:
    """Crop, resize, flip: straight into the canvas."""
    (sx0, sx1, dx0, dx1), (sy0, sy1, dy0, dy1) = across, down
    piece, place = pixels[sy0:sy1, sx0:sx1], canvas[dy0:dy1, dx0:dx1]
    size = (dx1 - dx0, dy1 - dy0)
    if size == (sx1 - sx0, sy1 - sy0):
        if not any(flips):
            place[:] = piece
    else:
        piece = resized(piece, size, None if any(flips) else place)
    if any(flips):
        cv2.flip(piece, _FLIPS[flips], dst=place)


def _span(line: Line, part: tuple[float, float], source: int, canvas: int) -> Span | None:
    """What a part of the source fills of the canvas along one axis; None where that is nothing."""
    scale, shift = line
    one, two = shift + scale * max(part[0], 0.0), shift + scale * min(part[1], source)
    d0, d1 = round(max(min(one, two), 0.0)), round(min(max(one, two), float(canvas)))
    if d1 <= d0:
        return None
    one, two = (d0 - shift) / scale, (d1 - shift) / scale
    low = min(max(round(min(one, two)), 0), source - 1)
    return low, min(max(round(max(one, two)), low + 1), source), d0, d1


def _line(s0: int, s1: int, d0: int, d1: int, flipped: bool) -> Line:
    """The map that takes ``s0..s1`` to ``d0..d1`` (to ``d1..d0`` when flipped)."""
    scale = (d1 - d0) / (s1 - s0)
    return (-scale, d1 + scale * s0) if flipped else (scale, d0 - scale * s0)


def _warp(pixels: Pixels, view: View, part: Points | None, canvas: Pixels) -> None:
    """One warp with bilinear sampling; ``view`` and ``part`` count in decoded pixels."""
    matrix = view.matrix
    shrink = int(1 / max(float(np.linalg.norm(matrix[:2, :2], 2)), 1e-6))
    if shrink >= 2:  # bilinear sampling alone would skip pixels
        height, width = pixels.shape[:2]
        small = resized(pixels, (max(width // shrink, 1), max(height // shrink, 1)))
        factors = (width / small.shape[1], height / small.shape[0])
        part = None if part is None else part / factors
        pixels, matrix = small, matrix @ scaling(*factors)
    if part is None:
        _warped(pixels, matrix, canvas, _BORDERS[view.border], view.fill * grey(canvas))
        return
    # Only as much of the canvas as the part can reach is warped.
    moved = cut(move_points(part, matrix), (0.0, 0.0, float(canvas.shape[1]), float(canvas.shape[0])))
    x0, y0, x1, y1 = around(moved)
    left, top = math.floor(x0), math.floor(y0)
    place = canvas[top : math.ceil(y1), left : math.ceil(x1)]
    if not place.size:
        return
    matrix = shifting(-left, -top) @ matrix
    if upright(part):
        x0, y0, x1, y1 = (max(round(value), 0) for value in around(part))
        piece = pixels[y0:y1, x0:x1]
        if piece.size:
            # Edges are blended with what lies below, and so are the seams of tiles.
            _warped(piece, matrix @ shifting(x0, y0), place, cv2.BORDER_TRANSPARENT, 0)
        return
    drawn = np.empty_like(place)
    _warped(pixels, matrix, drawn, cv2.BORDER_REPLICATE, 0)
    mask = np.zeros(place.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, np.rint((moved - (left + 0.5, top + 0.5)) * 16).astype(np.int32), 1, shift=4)
    cv2.copyTo(drawn, mask, dst=place)


def _warped(pixels: Pixels, matrix: Points, into: Pixels, border: int, fill: int) -> None:
    """Fills an array with what a matrix makes of pixels."""
    # cv2 counts from the centre of the first pixel, we from its edge.
    centred = shifting(-0.5, -0.5) @ matrix @ shifting(0.5, 0.5)
    size = (into.shape[1], into.shape[0])
    value = (fill, fill, fill)
    if centred[2, 0] or centred[2, 1]:
        cv2.warpPerspective(pixels, centred, size, into, cv2.INTER_LINEAR, border, value)
    else:
        cv2.warpAffine(pixels, centred[:2], size, into, cv2.INTER_LINEAR, border, value)

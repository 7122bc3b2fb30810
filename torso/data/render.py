"""Turns a view into pixels: one decode, one warp, one colour product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from torso.data.decode import Pixels, decode
from torso.data.scene import Layer, Scene
from torso.data.stores import Picture
from torso.data.views import Border, Erased, Matrix, Points, View, inverse, move_points, scaling, shifting

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
    canvas = np.empty((view.size[1], view.size[0], 3), np.uint8) if into is None else into
    canvas[:] = view.fill
    drawn = laid(pixels, Layer(0, view), canvas).view
    tint(canvas, view.color)
    finish(canvas, view)
    return canvas, drawn


def draw(scene: Scene, pixels_of: Callable[[Layer], Pixels], canvas: Pixels) -> Scene:
    """Draws a scene on the canvas ``[H, W, 3]``, layer after layer.

    Args:
        scene: what is to be drawn.
        pixels_of: the decoded picture of a layer, ``[h, w, 3]``; it may be smaller than the file's.
        canvas: is overwritten.

    Returns:
        The scene as it was really drawn: see `render`.
    """
    canvas[:] = scene.canvas.fill
    colors = [layer.view.color for layer in scene.layers]
    alike = all(color is colors[0] or np.array_equal(color, colors[0]) for color in colors)
    drawn = []
    for layer in scene.layers:
        pixels = pixels_of(layer)
        if layer.opacity < 1 or layer.stencil is not None or not alike:
            drawn.append(_over(pixels, layer, canvas, tinted=not alike))
        else:
            drawn.append(laid(pixels, layer, canvas))
    if alike:
        tint(canvas, colors[0])
    finish(canvas, scene.canvas)
    return replace(scene, layers=tuple(drawn))


def laid(pixels: Pixels, layer: Layer, canvas: Pixels) -> Layer:
    """Puts a picture, or its part, where its view says; nothing else of the canvas changes. Returns what was done."""
    view = layer.view
    height, width = pixels.shape[:2]
    decoded = scaling(view.source[0] / width, view.source[1] / height)  # decoded -> source
    matrix = view.matrix @ decoded
    part = None if layer.part is None else layer.part / (decoded[0, 0], decoded[1, 1])
    turned = bool(matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1])
    if turned or view.border != "constant" or (part is not None and not _upright(part)):
        _warp(pixels, matrix, canvas, part, view.border)
        return layer
    drawn = _place(pixels, matrix, canvas, part)
    return replace(layer, view=replace(view, matrix=drawn @ inverse(decoded)))


def tint(canvas: Pixels, color: Matrix) -> None:
    """One colour product, in place."""
    if not np.array_equal(color, _PLAIN):
        cv2.transform(canvas, color, dst=canvas)


def finish(canvas: Pixels, view: View) -> None:
    """What comes after all layers: erased regions and filters, in the order they were added."""
    for erased in view.erased:
        if erased.after == 0:
            _erase(canvas, erased)
    for number, one in enumerate(view.filters, 1):
        filtered = one.pixels(canvas)
        if filtered is not canvas:
            canvas[:] = filtered
        for erased in view.erased:
            if erased.after == number:
                _erase(canvas, erased)


def _erase(canvas: Pixels, erased: Erased) -> None:
    """Paints quadrilaterals over; they may overlap."""
    if erased.fill == "noise":
        mask = np.zeros(canvas.shape[:2], np.uint8)
        _paint(mask, erased.polygons, (1, 1, 1))
        noise = np.random.Generator(np.random.PCG64(erased.seed)).integers(0, 256, canvas.shape, np.uint8)
        np.copyto(canvas, noise, where=mask[..., None].astype(bool))
    else:
        _paint(canvas, erased.polygons, erased.fill)


def _paint(canvas: Pixels, polygons: Points, color: tuple[int, int, int]) -> None:
    """Fills the pixels whose centres lie in convex quadrilaterals ``[k, 4, 2]``."""
    low, high = polygons.min(1), polygons.max(1)
    ends = np.stack([low, high], 1)[:, None]  # [k, 1, 2, 2]
    upright = (np.abs(polygons[:, :, None] - ends).min(2) < 1e-6).all((1, 2))
    starts, stops = (np.maximum(np.ceil(end - 0.5), 0).astype(int) for end in (low, high))
    value = color if canvas.ndim == 3 else color[0]
    for (x0, y0), (x1, y1) in zip(starts[upright], stops[upright], strict=True):
        canvas[y0:y1, x0:x1] = value
    turned = polygons[~upright]
    # cv2 fills the pixels on the outline too, so that each side has to move half a pixel inwards.
    along, back = (np.roll(turned, step, 1) - turned for step in (-1, 1))
    along, back = (side / np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), 1e-9) for side in (along, back))
    sine = np.abs(along[..., 0] * back[..., 1] - along[..., 1] * back[..., 0])
    inner = turned + 0.5 * (along + back) / np.maximum(sine, 1e-3)[..., None]
    for polygon in np.rint(np.clip(inner - 0.5, -1e5, 1e5) * 16).astype(np.int32):
        cv2.fillConvexPoly(canvas, polygon, color, shift=4)


def _over(pixels: Pixels, layer: Layer, canvas: Pixels, *, tinted: bool) -> Layer:
    """Blends a layer over the canvas inside its frame and, where it has one, its stencil."""
    own = np.empty_like(canvas)
    own[:] = layer.view.fill
    layer = laid(pixels, layer, own)
    if tinted:
        tint(own, layer.view.color)
    x0, y0, x1, y1 = np.rint(layer.frame[0]).astype(int)
    place = (slice(y0, y1), slice(x0, x1))
    cv2.addWeighted(own[place], layer.opacity, canvas[place], 1 - layer.opacity, 0, dst=own[place])
    canvas[place] = own[place]
    return layer


def _upright(part: Points) -> bool:
    """Whether the corners are those of a rectangle along the axes."""
    if len(part) != 4:
        return False
    x, y = np.sort(part[:, 0]), np.sort(part[:, 1])
    return bool(np.allclose([x[0], x[2], y[0], y[2]], [x[1], x[3], y[1], y[3]]))


def _place(pixels: Pixels, matrix: Matrix, canvas: Pixels, part: Points | None) -> Matrix:
    """Crop, resize, flip: straight into the canvas. Returns the matrix of what was done."""
    height, width = pixels.shape[:2]
    (left, top), (right, bottom) = ((0, 0), (width, height)) if part is None else (part.min(0), part.max(0))
    x = _span(matrix[0, 0], matrix[0, 2], (left, right), width, canvas.shape[1])
    y = _span(matrix[1, 1], matrix[1, 2], (top, bottom), height, canvas.shape[0])
    if x is None or y is None:
        return matrix
    (sx0, sx1, dx0, dx1), (sy0, sy1, dy0, dy1) = x, y
    piece, place = pixels[sy0:sy1, sx0:sx1], canvas[dy0:dy1, dx0:dx1]
    size, flips = (dx1 - dx0, dy1 - dy0), (bool(matrix[0, 0] < 0), bool(matrix[1, 1] < 0))
    if size != (sx1 - sx0, sy1 - sy0):
        piece = resized(piece, size, None if any(flips) else place)
    if any(flips):
        cv2.flip(piece, {(True, False): 1, (False, True): 0, (True, True): -1}[flips], dst=place)
    elif piece is not place:
        place[:] = piece
    a, c = _line(sx0, sx1, dx0, dx1, flips[0])
    e, f = _line(sy0, sy1, dy0, dy1, flips[1])
    return np.array([[a, 0.0, c], [0.0, e, f], [0.0, 0.0, 1.0]])


def _span(
    scale: float, shift: float, part: tuple[float, float], source: int, canvas: int
) -> tuple[int, int, int, int] | None:
    """Whole pixels ``s0..s1`` of a part of the source that fill ``d0..d1`` of the canvas along one axis; or None."""
    ends = sorted((shift + scale * max(part[0], 0.0), shift + scale * min(part[1], source)))
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


def _warp(pixels: Pixels, matrix: Matrix, canvas: Pixels, part: Points | None, border: Border) -> None:
    """One warp with bilinear sampling into the canvas; what the picture does not reach stays as it is."""
    shrink = int(1 / max(float(np.linalg.norm(matrix[:2, :2], 2)), 1e-6))
    if shrink >= 2:  # bilinear sampling alone would skip pixels
        height, width = pixels.shape[:2]
        small = resized(pixels, (max(width // shrink, 1), max(height // shrink, 1)))
        factors = (width / small.shape[1], height / small.shape[0])
        part = None if part is None else part / factors
        pixels, matrix = small, matrix @ scaling(*factors)
    # cv2 counts from the centre of the first pixel, we from its edge.
    centred = shifting(-0.5, -0.5) @ matrix @ shifting(0.5, 0.5)
    size = (canvas.shape[1], canvas.shape[0])
    fill = canvas[0, 0].tolist()
    drawn = canvas if part is None else np.empty_like(canvas)
    how = {"flags": cv2.INTER_LINEAR, "borderMode": _BORDERS[border], "borderValue": fill}
    if centred[2, 0] or centred[2, 1]:
        cv2.warpPerspective(pixels, centred, size, dst=drawn, **how)
    else:
        cv2.warpAffine(pixels, centred[:2], size, dst=drawn, **how)
    if part is not None:
        mask = np.zeros(canvas.shape[:2], np.uint8)
        corners = np.rint((move_points(part, matrix) - 0.5) * 16).astype(np.int32)
        cv2.fillConvexPoly(mask, corners, 1, shift=4)
        np.copyto(canvas, drawn, where=mask[..., None].astype(bool))


_PLAIN = np.eye(3, 4)
_BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}

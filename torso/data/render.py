"""Turns a view into pixels: one decode, one warp, one colour product."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from torso.config import TorsoError
from torso.data.bitmaps import Patch
from torso.data.decode import Pixels, decode
from torso.data.lay import grey, laid, resized
from torso.data.scene import Layer, Scene
from torso.data.stores import Picture
from torso.data.views import Erased, Matrix, Points, View, changed, shifting

Patches = Callable[[Layer], Patch]


def load(picture: Picture, view: View, bits: int = 8) -> Pixels:
    """Decodes a picture, inside the JPEG decoder as small as the view allows without losing detail."""
    return decode(picture, 1 / max(view.scale, 1e-6) if view.scaled else 1, pillow=view.pillow, bits=bits)


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
    canvas[:] = view.fill * grey(canvas)
    drawn = laid(pixels, Layer(0, view), canvas).view
    tinted(canvas, view.color, into=canvas)
    finish(canvas, view)
    return canvas, drawn


def draw(scene: Scene, pixels_of: Callable[[Layer], Pixels], canvas: Pixels, patch_of: Patches | None = None) -> Scene:
    """Draws a scene on the canvas ``[H, W, 3]``, layer after layer.

    Args:
        scene: what is to be drawn.
        pixels_of: the decoded picture of a layer, ``[h, w, 3]``; it may be smaller than the file's.
        canvas: is overwritten.
        patch_of: where the objects of a layer with a stencil lie.

    Returns:
        The scene as it was really drawn: see `render`.
    """
    canvas[:] = scene.canvas.fill * grey(canvas)
    colors = [layer.view.color for layer in scene.layers]
    alone = len(colors) == 1
    alike = all(color is colors[0] or np.array_equal(color, colors[0]) for color in colors)
    drawn = []
    for layer in scene.layers:
        pixels = pixels_of(layer)
        if not alike:
            pixels = tinted(pixels, layer.view.color)
        bounded = layer if alone or layer.part is not None else changed(layer, part=layer.outline)
        over = layer.opacity < 1 or layer.stencil is not None
        drawn.append(_over(pixels, bounded, canvas, patch_of) if over else laid(pixels, bounded, canvas))
    if alike:
        tinted(canvas, colors[0], into=canvas)
    finish(canvas, scene.canvas)
    return Scene(tuple(drawn), scene.canvas)


def tinted(pixels: Pixels, color: Matrix, into: Pixels | None = None) -> Pixels:
    """One colour product."""
    if color is _PLAIN or np.array_equal(color, _PLAIN):
        return pixels
    if grey(pixels) != 1:
        color = color * (1, 1, 1, grey(pixels))
    drawn: Pixels = cv2.transform(pixels, color, dst=into)  # type: ignore[assignment]
    return drawn


def finish(canvas: Pixels, view: View) -> None:
    """What comes after all layers: erased regions and filters, in the order they were added."""
    for erased in view.erased:
        if erased.after == 0:
            _erase(canvas, erased)
    if view.filters and grey(canvas) != 1:
        kinds = ", ".join(sorted({type(one).__name__ for one in view.filters}))
        raise TorsoError(f"data.bits=16: {kinds} works on 8 bits only; leave it out, or take its matrix form (color)")
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
        noise = np.random.Generator(np.random.PCG64(erased.seed)).integers(
            0, np.iinfo(canvas.dtype).max, canvas.shape, canvas.dtype, endpoint=True
        )
        np.copyto(canvas, noise, where=mask[..., None].astype(bool))
    else:
        red, green, blue = (value * grey(canvas) for value in erased.fill)
        _paint(canvas, erased.polygons, (red, green, blue))


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


def _over(pixels: Pixels, layer: Layer, canvas: Pixels, patch_of: Patches | None) -> Layer:
    """Blends a layer over the canvas inside its frame and, where it has one, its stencil."""
    x0, y0, x1, y1 = layer.frame
    # What is drawn may be rounded to the next pixel.
    left, top = max(math.floor(x0) - 1, 0), max(math.floor(y0) - 1, 0)
    place = canvas[top : math.ceil(y1) + 1, left : math.ceil(x1) + 1]
    if not place.size:
        return layer
    own = place.copy()
    layer = _shifted(laid(pixels, _shifted(layer, -left, -top), own), left, top)
    if layer.opacity < 1:
        cv2.addWeighted(own, layer.opacity, place, 1 - layer.opacity, 0, dst=own)
    if layer.stencil is None or patch_of is None:
        place[:] = own
        return layer
    patch = patch_of(layer)
    rows, columns = patch.place
    own = own[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    if own.size:
        cv2.copyTo(own, patch.pixels.view(np.uint8), dst=canvas[patch.place])
    return layer


def _shifted(layer: Layer, x: int, y: int) -> Layer:
    return changed(layer, view=changed(layer.view, matrix=shifting(x, y) @ layer.view.matrix))


_PLAIN = np.eye(3, 4)

"""Where on the canvas an object's pixels are: its mask moved, cut to what its layer shows, as a bitmap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torso.data.convex import Frame, around, corners, overlap, upright
from torso.data.index import Index
from torso.data.masks import Bitmap, box_of, rasterise
from torso.data.scene import Layer, objects_of
from torso.data.views import Matrix, Points, move_points, shifting

_FAR = 1e5  # pixels; positions at the horizon of a perspective are held here


@dataclass(frozen=True)
class Patch:
    """A bitmap in its place on the canvas; all around it is empty."""

    left: int
    top: int
    pixels: Bitmap  # [h, w]

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas."""
        height, width = self.pixels.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def box(self) -> Frame:
        """The xyxy box around the set pixels; all zeros where none is set."""
        x0, y0, x1, y1 = box_of(self.pixels)
        return (x0 + self.left, y0 + self.top, x1 + self.left, y1 + self.top) if x1 else (0.0, 0.0, 0.0, 0.0)


def object_patch(layer: Layer, row: int, index: Index) -> Patch:
    """The pixels of an object that its layer shows; those of its box where it has no mask."""
    matrix = layer.view.matrix
    mask = None if index.masks is None else index.masks[row]
    if isinstance(mask, dict):
        width, height = layer.view.source
        bitmap = rasterise(mask, (width, height))
        window, patch = _warped(bitmap, matrix, layer.frame)
    else:
        outlines = [corners(_frame(index.boxes[row]))] if mask is None else [_points(polygon) for polygon in mask]
        moved = [np.clip(move_points(outline, matrix), -_FAR, _FAR) for outline in outlines]
        window = _whole(overlap(around(np.concatenate(moved)), layer.frame))
        patch = _filled(moved, window)
    if layer.part is not None:
        patch &= _filled([move_points(layer.part, matrix)], window)
    return Patch(window[0], window[1], patch)


def layer_patch(layer: Layer, index: Index) -> Patch:
    """The pixels that a layer covers: all that it shows, or with a stencil those of its objects."""
    window = _whole(layer.frame)
    if layer.stencil is None:
        return Patch(window[0], window[1], _filled([move_points(layer.outline, layer.view.matrix)], window))
    pixels = np.zeros((window[3] - window[1], window[2] - window[0]), np.bool_)
    for row in objects_of(layer, index):
        patch = object_patch(layer, int(row), index)
        rows, columns = patch.place
        pixels[
            rows.start - window[1] : rows.stop - window[1], columns.start - window[0] : columns.stop - window[0]
        ] |= patch.pixels
    return Patch(window[0], window[1], pixels)


def _filled(polygons: list[Points], window: tuple[int, int, int, int]) -> Bitmap:
    """Polygons of the canvas as the pixels of a window of it."""
    left, top, right, bottom = window
    size = (right - left, bottom - top)
    if len(polygons) == 1 and upright(polygons[0]):
        # Rounded as pictures are when they are drawn.
        x0, y0, x1, y1 = (round(value) for value in around(polygons[0] - (left, top)))
        pixels = np.zeros(size[::-1], np.bool_)
        pixels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
        return pixels
    return rasterise([(polygon - (left, top)).ravel().tolist() for polygon in polygons], size)


def _warped(bitmap: Bitmap, matrix: Matrix, frame: Frame) -> tuple[tuple[int, int, int, int], Bitmap]:
    """The window of the canvas that a bitmap of the source falls into, and its pixels there, nearest neighbour."""
    import cv2

    set_pixels = around(np.clip(move_points(corners(box_of(bitmap)), matrix), -_FAR, _FAR))
    window = _whole(overlap(set_pixels, frame))
    left, top, right, bottom = window
    if right <= left or bottom <= top:
        return window, np.zeros((max(bottom - top, 0), max(right - left, 0)), np.bool_)
    centred = shifting(-left - 0.5, -top - 0.5) @ matrix @ shifting(0.5, 0.5)
    pixels = cv2.warpPerspective(bitmap.view(np.uint8), centred, (right - left, bottom - top), flags=cv2.INTER_NEAREST)
    return window, np.asarray(pixels).view(np.bool_)


def _whole(frame: Frame) -> tuple[int, int, int, int]:
    """The smallest window of whole pixels around a frame."""
    x0, y0, x1, y1 = frame
    return math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)


def _points(polygon: list[float]) -> Points:
    return np.asarray(polygon, np.float64).reshape(-1, 2)


def _frame(box: NDArray[np.float64]) -> Frame:
    x0, y0, x1, y1 = box.tolist()
    return x0, y0, x1, y1

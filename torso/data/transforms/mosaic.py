"""Mosaic: four or nine pictures on one canvas, each a view of its own."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from torch import Generator

from torso.data.draws import uniform
from torso.data.scene import Partners, Scene, merged
from torso.data.transforms.geometry import Letterbox


class Mosaic:
    """Puts four (or nine) pictures into the cells of a grid.

    Each picture is resized until it fits the canvas with its aspect ratio kept, and pushed towards the middle of the
    grid. A grid of 2 lies on a sheet of twice the canvas's sides; its cross is drawn from the middle half of the
    sheet. A grid of 3 lies on a sheet of three times the sides; its middle cell is as large as the canvas. The canvas
    shows the middle of the sheet; what lies around it is kept, so that an ``affine`` that follows shrinks it into
    sight or moves it there: picture, grid and affine are one matrix a picture.

    Args:
        grid: 2 mixes four pictures, 3 mixes nine.
        p: probability; otherwise the picture alone is fitted into the canvas as by ``letterbox``.
        fill: grey where no picture is, 0..255.

    Source: YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020, arXiv:2004.10934
    """

    fits: ClassVar[bool] = True
    mixes: ClassVar[bool] = True

    def __init__(self, grid: Literal[2, 3] = 2, p: float = 1.0, fill: int = 114) -> None:
        self.grid = grid
        self.p = p
        self.fill = fill
        self._alone = Letterbox(fill)

    def __call__(self, scene: Scene, partners: Partners, generator: Generator) -> Scene:
        """The scene with other pictures in it."""
        if self.p < 1 and uniform(generator, 0, 1) >= self.p:
            return scene.edited([self._alone], generator, partners.index)
        target = scene.canvas.target
        columns, rows = (self._cells(side, uniform(generator, 0.5, 1.5)) for side in target)
        tiles: list[Scene] = []
        for y in rows:
            for x in columns:
                tile = partners.like(generator) if tiles else scene
                width, height = tile.size
                scale = min(target[0] / width, target[1] / height)
                left, top = _pushed(x, width * scale), _pushed(y, height * scale)
                matrix = np.array([[scale, 0.0, left], [0.0, scale, top], [0.0, 0.0, 1.0]])
                tiles.append(tile.placed(matrix, (x[0], y[0], x[1], y[1]), target))
        return merged(tiles, fill=self.fill)

    def _cells(self, side: int, at: float) -> list[tuple[float, float, int]]:
        """Along one axis each cell's begin and end on the canvas, and where in it a picture goes."""
        # The canvas shows the middle of the sheet.
        before, after = -side * (self.grid - 1) / 2, side * (self.grid + 1) / 2
        first = before + at * side
        if self.grid == 2:
            return [(before, first, 1), (first, after, -1)]
        return [(before, first, 1), (first, first + side, 0), (first + side, after, -1)]


def _pushed(cell: tuple[float, float, int], length: float) -> float:
    """Where a picture begins: at the end of its cell (1), in the middle (0) or at its begin (-1)."""
    begin, end, to = cell
    return (end - length, (begin + end - length) / 2, begin)[1 - to]

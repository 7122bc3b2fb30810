"""A view: what is still to be done to a picture. Transforms edit views; pixels are touched once, by ``render``.

One convention holds for boxes and pixels: coordinates are continuous and counted from 0 at the left (top) edge of
the first pixel, so pixel ``i`` covers ``i..i + 1`` and its centre lies at ``i + 0.5``. A view's matrix maps such
coordinates of the source picture to those of the canvas, and boxes follow the same matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]
Boxes = NDArray[np.float64]
AnyBoxes = TypeVar("AnyBoxes", Tensor, NDArray[np.float64])


@dataclass(frozen=True)
class View:
    """How a source picture falls onto a canvas, and how its colours change.

    ``target`` is the canvas the network wants; transforms that fit a picture (letterbox, resize, crops) read it.
    """

    source: tuple[int, int]  # width, height of the picture, upright
    target: tuple[int, int]  # width, height the network wants
    size: tuple[int, int]  # width, height of the canvas now
    matrix: Matrix = field(default_factory=lambda: np.eye(3))  # [3, 3] source -> canvas
    color: Matrix = field(default_factory=lambda: np.eye(3, 4))  # [3, 4] on (r, g, b, 1) in 0..255
    fill: int = 114  # grey where the canvas shows no picture
    min_visible: float = 0.1  # objects of which less is left are dropped
    pillow: bool = False  # decode with Pillow
    scaled: bool = True  # let the JPEG decoder shrink

    @classmethod
    def of(cls, source: tuple[int, int], target: tuple[int, int]) -> View:
        """The view that changes nothing."""
        return cls(source=source, target=target, size=source)

    def then(self, matrix: Matrix, size: tuple[int, int] | None = None) -> View:
        """This view followed by another matrix on the canvas, and a new canvas size where given."""
        return replace(self, matrix=matrix @ self.matrix, size=size or self.size)

    def tinted(self, color: Matrix) -> View:
        """This view followed by another ``[3, 4]`` colour matrix."""
        bottom = np.array([[0.0, 0.0, 0.0, 1.0]])
        return replace(self, color=color @ np.vstack([self.color, bottom]))

    @property
    def scale(self) -> float:
        """How much the matrix enlarges where it enlarges most."""
        return float(np.linalg.norm(self.matrix[:2, :2], 2))


def scaling(x: float, y: float) -> Matrix:
    """A scale about the corner (0, 0)."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def shifting(x: float, y: float) -> Matrix:
    """A shift in pixels."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def inverse(matrix: Matrix) -> Matrix:
    """The way back."""
    return np.asarray(np.linalg.inv(matrix), np.float64)


def move(boxes: Boxes, matrix: Matrix) -> Boxes:
    """The xyxy boxes ``[T, 4]`` that hold the four corners after an affine ``matrix``; exact without rotation."""
    x = matrix[0, :2, None, None] * np.stack([boxes[:, [0, 2, 2, 0]], boxes[:, [1, 1, 3, 3]]])  # [2, T, 4]
    y = matrix[1, :2, None, None] * np.stack([boxes[:, [0, 2, 2, 0]], boxes[:, [1, 1, 3, 3]]])
    xs = x.sum(0) + matrix[0, 2]  # [T, 4 corners]
    ys = y.sum(0) + matrix[1, 2]
    return np.stack([xs.min(1), ys.min(1), xs.max(1), ys.max(1)], axis=1)


def clip(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Boxes ``[T, 4]`` cut at the edges of a picture of (width, height)."""
    width, height = size
    return np.clip(boxes, 0.0, np.array([width, height, width, height], np.float64))


def on_canvas(boxes: Boxes, view: View) -> tuple[Boxes, NDArray[np.bool_]]:
    """Where objects lie on the canvas, and which of them still count.

    An object counts when more than ``view.min_visible`` of its area is left and both sides exceed one pixel.

    Returns:
        The clipped boxes ``[T, 4]`` of all objects, and ``[T]`` bool.
    """
    moved = move(boxes, view.matrix)
    clipped = clip(moved, view.size)
    sides = clipped[:, 2:] - clipped[:, :2]
    area = (moved[:, 2:] - moved[:, :2]).prod(1)
    kept = (sides > 1.0).all(1) & (sides.prod(1) > view.min_visible * area)
    return clipped, kept


def to_source(boxes: AnyBoxes, matrix: Tensor | Matrix, size: tuple[int, int]) -> AnyBoxes:
    """Boxes of the network's input mapped back to the original picture and clipped to it.

    Args:
        boxes: ``[K, 4]`` xyxy pixels of the network's input, a tensor or an array.
        matrix: ``[3, 3]`` network input -> source (a row of ``Batch.to_source``).
        size: width and height of the original picture.

    Returns:
        ``[K, 4]`` xyxy pixels of the original picture, float64, of the same kind as ``boxes``.
    """
    if isinstance(boxes, Tensor):
        import torch

        rows = boxes.detach().cpu().to(torch.float64).numpy()
        return torch.from_numpy(to_source(rows, matrix, size)).to(boxes.device)
    if isinstance(matrix, Tensor):
        matrix = matrix.detach().cpu().numpy()
    return clip(move(np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(matrix, np.float64)), size)

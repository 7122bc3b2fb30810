"""A view: what is still to be done to a picture. Transforms edit views; pixels are touched once, by ``render``.

One convention holds for boxes and pixels: coordinates are continuous and counted from 0 at the left (top) edge of
the first pixel, so pixel ``i`` covers ``i..i + 1`` and its centre lies at ``i + 0.5``. A view's matrix maps such
coordinates of the source picture to those of the canvas, and boxes follow the same matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]
Boxes = NDArray[np.float64]
Points = NDArray[np.float64]
AnyBoxes = TypeVar("AnyBoxes", Tensor, NDArray[np.float64])
Record = TypeVar("Record")
Border = Literal["constant", "edge", "reflect", "symmetric"]


def changed(record: Record, **fields: Any) -> Record:
    """``dataclasses.replace`` five times as fast, for frozen classes without a ``__post_init__``."""
    other = object.__new__(type(record))
    other.__dict__.update(record.__dict__)
    other.__dict__.update(fields)
    return other


@dataclass(frozen=True)
class Erased:
    """Parts of the canvas that are painted over, after the picture is drawn."""

    polygons: Points  # [k, 4, 2] corners on the canvas, in order round
    fill: tuple[int, int, int] | Literal["noise"] = (114, 114, 114)  # RGB, or noise of its own for every pixel
    seed: int = 0  # of the noise
    after: int = 0  # how many filters run before


class Filter(Protocol):
    """What cannot be written as a matrix: it works on the drawn canvas, after all that can.

    A filter that moves things about (elastic distortion) also has ``points`` and ``plane``; for all others positions
    stay what they are.
    """

    @property
    def moves(self) -> bool:
        """Whether positions change."""
        ...

    def pixels(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The canvas ``[H, W, 3]`` afterwards; it may be changed in place."""
        ...

    def points(self, points: Points, size: tuple[int, int]) -> Points:
        """Where positions ``[k, 2]`` on a canvas of (width, height) go."""
        ...

    def plane(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A mask or a map of classes ``[H, W]``, nearest neighbour."""
        ...


@dataclass(frozen=True)
class View:
    """How a source picture falls onto a canvas, and how its colours change.

    ``target`` is the canvas the network wants; transforms that fit a picture (letterbox, resize, crops) read it.
    """

    source: tuple[int, int]  # width, height of the picture, upright
    target: tuple[int, int]  # width, height the network wants
    size: tuple[int, int]  # width, height of the canvas now
    matrix: Matrix = field(default_factory=lambda: np.eye(3))  # [3, 3] source -> canvas, homogeneous
    color: Matrix = field(default_factory=lambda: np.eye(3, 4))  # [3, 4] on (r, g, b, 1) in 0..255
    fill: int = 114  # grey where the canvas shows no picture
    border: Border = "constant"  # what shows there: the grey, or the picture continued as numpy.pad does
    min_visible: float = 0.1  # objects of which less is left are dropped
    pillow: bool = False  # decode with Pillow
    scaled: bool = True  # let the JPEG decoder shrink
    erased: tuple[Erased, ...] = ()
    filters: tuple[Filter, ...] = ()
    windows: tuple[
        Points, ...
    ] = ()  # [4, 2] corners on the canvas: only objects with their centre in all of them count
    boxes: Boxes | None = None  # [n, 4] on the canvas, for a transform with ``sees_boxes``

    @classmethod
    def of(cls, source: tuple[int, int], target: tuple[int, int]) -> View:
        """The view that changes nothing."""
        return cls(source=source, target=target, size=source)

    def then(self, matrix: Matrix, size: tuple[int, int] | None = None) -> View:
        """This view followed by another matrix on the canvas, and a new canvas size where given."""
        moved = changed(self, matrix=matrix @ self.matrix, size=size or self.size)
        if self.erased:
            erased = tuple(changed(e, polygons=move_points(e.polygons, matrix)) for e in self.erased)
            moved = changed(moved, erased=erased)
        if self.windows:
            moved = changed(moved, windows=tuple(move_points(window, matrix) for window in self.windows))
        return moved if self.boxes is None else changed(moved, boxes=move(self.boxes, matrix))

    def erasing(self, polygons: Points, fill: tuple[int, int, int] | Literal["noise"], seed: int = 0) -> View:
        """This view with quadrilaterals ``[k, 4, 2]`` of the canvas painted over."""
        return changed(self, erased=(*self.erased, Erased(polygons, fill, seed, after=len(self.filters))))

    def filtered(self, one: Filter) -> View:
        """This view with a filter of the drawn canvas; filters and erasures run last, in the order they were added."""
        return changed(self, filters=(*self.filters, one))

    def tinted(self, color: Matrix) -> View:
        """This view followed by another ``[3, 4]`` colour matrix."""
        if self.filters:  # they have to come first
            from torso.data.transforms.filters import Tint

            return self.filtered(Tint(color))
        bottom = np.array([[0.0, 0.0, 0.0, 1.0]])
        return changed(self, color=color @ np.vstack([self.color, bottom]))

    @property
    def scale(self) -> float:
        """How much the matrix enlarges where it enlarges most (at the corners, where it is a perspective)."""
        matrix = self.matrix
        if matrix[2, 0] or matrix[2, 1]:
            width, height = self.source
            return max(_scale_at(matrix, point) for point in ((0, 0), (width, 0), (0, height), (width, height)))
        if not matrix[0, 1] and not matrix[1, 0]:
            return float(max(abs(matrix[0, 0]), abs(matrix[1, 1])))
        return float(np.linalg.norm(matrix[:2, :2], 2))


def scaling(x: float, y: float) -> Matrix:
    """A scale about the corner (0, 0)."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def shifting(x: float, y: float) -> Matrix:
    """A shift in pixels."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def inverse(matrix: Matrix) -> Matrix:
    """The way back."""
    return np.asarray(np.linalg.inv(matrix), np.float64)


def upright_lines(matrix: Matrix) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Scale and shift along x and along y; None where the matrix turns, shears or is a perspective."""
    (a, b, c), (d, e, f), (g, h, _) = matrix.tolist()
    return None if b or d or g or h else ((a, c), (e, f))


def move(boxes: Boxes, matrix: Matrix) -> Boxes:
    """The xyxy boxes ``[T, 4]`` that hold the four corners after ``matrix``; exact without rotation."""
    if not (matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1]):
        x, y = matrix[0, 0], matrix[1, 1]
        moved: Boxes = boxes * (x, y, x, y) + (matrix[0, 2], matrix[1, 2], matrix[0, 2], matrix[1, 2])
        if x < 0 or y < 0:
            order = [2 if x < 0 else 0, 3 if y < 0 else 1, 0 if x < 0 else 2, 1 if y < 0 else 3]
            moved = moved[:, order]
        return moved
    corners = np.stack([boxes[:, [0, 2, 2, 0]], boxes[:, [1, 1, 3, 3]]], axis=-1)  # [T, 4, 2]
    corners = move_points(corners, matrix)
    return np.concatenate([corners.min(1), corners.max(1)], axis=1)


def move_points(points: Points, matrix: Matrix) -> Points:
    """Positions ``[..., 2]`` after ``matrix``."""
    moved: Points = points @ matrix[:2, :2].T + matrix[:2, 2]
    if matrix[2, 0] or matrix[2, 1]:
        # What lies behind the camera is held at its horizon, far outside of every canvas.
        moved = moved / np.maximum(points @ matrix[2, :2] + matrix[2, 2], 1e-6)[..., None]
    return moved


def _scale_at(matrix: Matrix, point: tuple[float, float]) -> float:
    """The largest enlargement of a perspective at a position."""
    x, y, w = matrix @ (*point, 1.0)
    if w <= 1e-6:
        return 1.0
    jacobian = (matrix[:2, :2] - np.outer((x / w, y / w), matrix[2, :2])) / w
    return float(np.linalg.norm(jacobian, 2))


def clip(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Boxes ``[T, 4]`` cut at the edges of a picture of (width, height)."""
    width, height = size
    return np.clip(boxes, 0.0, np.array([width, height, width, height], np.float64))


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

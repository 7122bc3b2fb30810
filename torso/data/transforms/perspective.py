"""A picture seen from the side: its corners move on their own."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import Generator

from torso.data.draws import uniform
from torso.data.transforms.motions import filled
from torso.data.views import Matrix, Points, View


class Perspective:
    """Moves each corner of the canvas inwards by an amount of its own.

    Args:
        distortion: largest way of a corner along each axis, as a fraction of half the side; below 1.
        p: probability.
        fill: grey where the picture does not reach, 0..255; None leaves it.

    Raises:
        ValueError: a distortion of 1 or more, by which corners could meet.

    Source: torchvision v2.RandomPerspective.
    """

    fits: ClassVar[bool] = False

    def __init__(self, distortion: float = 0.5, p: float = 0.5, fill: int | None = None) -> None:
        if not 0 <= distortion < 1:
            raise ValueError(f"distortion is in 0..1 (1 excluded), got {distortion}")
        self.distortion = distortion
        self.p = p
        self.fill = fill

    def __call__(self, view: View, generator: Generator) -> View:
        """The view with this transform added."""
        if uniform(generator, 0, 1) >= self.p:
            return view
        moves = np.array([[uniform(generator, 0, self.distortion / 2) for _ in range(2)] for _ in range(4)])
        ends = np.abs(_CORNERS - moves) * view.size
        return filled(view.then(perspective(_CORNERS * view.size, ends)), self.fill)


_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def perspective(starts: Points, ends: Points) -> Matrix:
    """The matrix that takes four positions ``[4, 2]`` to four others."""
    rows = []
    for (x, y), (u, v) in zip(starts, ends, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    solved = np.linalg.solve(np.array(rows, np.float64), ends.astype(np.float64).ravel())
    return np.append(solved, 1.0).reshape(3, 3)

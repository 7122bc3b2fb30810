"""Where pictures come from that are no files of their own: arrays (CIFAR, MNIST), members of an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Picture: TypeAlias = "Path | bytes | NDArray[np.uint8]"
"""What ``decode`` takes: a file, the bytes of one, or pixels ``[H, W]`` or ``[H, W, 3]`` that need no decoding."""


class Store(Protocol):
    """Gives a picture for its place; travels to worker processes, so it opens files when it is first read."""

    def read(self, place: NDArray[np.int64]) -> Picture:
        """The picture at a place, a row of ``Index.places``."""
        ...


class Arrays:
    """Pictures that are rows of one array, shared by worker processes without a copy.

    A place is ``[row]``.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels  # [N, H, W] or [N, H, W, 3] RGB

    def read(self, place: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pixels of one row."""
        row: NDArray[np.uint8] = self.pixels[int(place[0])]
        return row

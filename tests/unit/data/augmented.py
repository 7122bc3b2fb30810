"""What our transforms and torchvision's make of one and the same picture, for the tests of the transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors

from torso.data.index import Index
from torso.data.objects import Objects, shown
from torso.data.render import draw, render
from torso.data.scene import Edit, Scene
from torso.data.views import View

BOXES = np.array([[3, 4, 20, 30], [10.5, 2.25, 40, 25]])
EVERY = {"warp_affine": {"matrix": (0.9, 0.1, 3.0, -0.05, 1.1, 2.0)}, "preset": {"of": "ssd"}}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(pixels: np.ndarray, target: tuple[int, int] | None = None, fill: int = 0) -> View:
    """The view of a picture that changes nothing, with torchvision's black beside it."""
    size = (pixels.shape[1], pixels.shape[0])
    return View(size, target or size, size, fill=fill)


def painted(pixels: np.ndarray, view: View) -> np.ndarray:
    return render(pixels.copy(), view)[0]


def filtered(pixels: np.ndarray, one: Any) -> np.ndarray:
    return one.pixels(pixels.copy())


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def pixels_of(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def tv_boxes(boxes: np.ndarray, pixels: np.ndarray) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(
        torch.from_numpy(boxes).float(), format="XYXY", canvas_size=pixels.shape[:2], clamping_mode=None
    )


def apart(one: np.ndarray, two: np.ndarray, border: int = 0) -> np.ndarray:
    """Differences in grey levels; ``border`` pixels at the edge are left out."""
    inner = slice(border, -border or None)
    return np.abs(one.astype(int) - two.astype(int))[inner, inner]


def index_of(size: tuple[int, int], boxes: np.ndarray) -> Index:
    """An index of one picture, whose pixels the test has."""
    from pathlib import Path

    from torso.data.builder import Builder, Object

    builder = Builder(Path(), ("thing",), (0,))
    builder.image(Path("picture.png"), size, 0)
    builder.objects([Object(tuple(box), 0) for box in boxes.tolist()], Path("picture.png"))
    return builder.finish()


def sampled(
    pixels: np.ndarray, boxes: np.ndarray, transforms: list[Edit], target: tuple[int, int], seed: int = 0
) -> tuple[np.ndarray, Objects]:
    """Canvas and objects the way the loader makes them."""
    index = index_of((pixels.shape[1], pixels.shape[0]), boxes)
    scene = Scene.of(0, (pixels.shape[1], pixels.shape[0]), target)
    scene = scene.edited(transforms, seeded(seed), index)
    canvas = np.empty((scene.size[1], scene.size[0], 3), np.uint8)
    scene = draw(scene, lambda layer: pixels, canvas)
    return canvas, shown(scene, index)

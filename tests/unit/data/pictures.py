"""Tiny pictures and data sets that the tests of the data make for themselves."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from torso.data.builder import Builder, Object
from torso.data.index import Index
from torso.data.objects import shown
from torso.data.scene import Layer, Scene
from torso.data.views import Boxes, View


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = [200 * x + 20, 200 * y + 20, 120 + 80 * np.sin(5 * (x + y))]
    return np.stack(planes, -1).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def save(pixels: np.ndarray, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """White on black."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return pixels


def small_index(folder: Path, count: int = 10, size: tuple[int, int] = (48, 32)) -> Index:
    """``count`` pictures of noise with 0, 1, 2, 3, 0, 1, ... boxes of classes a, b, c."""
    builder = Builder(folder, ("a", "b", "c"), (3, 7, 90))
    for number in range(count):
        path = save(noise(*size, seed=number), folder / f"{number:02d}.png")
        builder.image(path, size, number + 1)
        boxes = [(2.0 + 7 * k, 3.0 + k, 12.5 + 7 * k, 20.25) for k in range(number % 4)]
        builder.objects([Object(box, k % 3, difficult=k == 2) for k, box in enumerate(boxes)], path)
    return builder.finish()


def on_canvas(boxes: Boxes, view: View) -> tuple[Boxes, np.ndarray]:
    """Where objects of one picture lie on a canvas (``[T, 4]``, zeros where they are dropped), and which count."""
    flags = np.zeros(len(boxes), np.bool_)
    index = Index(
        task="detect",
        root=Path("/"),
        paths=["a.png"],
        sizes=np.array([view.source], np.int32),
        image_ids=[0],
        boxes=boxes,
        labels=np.zeros(len(boxes), np.int64),
        offsets=np.array([0, len(boxes)]),
        crowd=flags,
        difficult=flags,
        truncated=flags,
        area=np.ones(len(boxes)),
        classes=("a",),
        class_ids=(0,),
    )
    found = shown(Scene((Layer(0, view),), view), index)
    kept, clipped = flags.copy(), np.zeros((len(boxes), 4))
    kept[found.rows], clipped[found.rows] = True, found.boxes
    return clipped, kept

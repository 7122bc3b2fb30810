"""Scenes that the tests of the data make for themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Generator

from tests.unit.data.pictures import save
from torso.data.bitmaps import layer_patch
from torso.data.builder import Builder, Object
from torso.data.decode import decode
from torso.data.index import Index
from torso.data.objects import Objects, shown
from torso.data.render import draw
from torso.data.scene import Scene, composed


class Others:
    """Partners that come in the order of their rows, each after some edits."""

    def __init__(self, index: Index, rows: list[int], target: tuple[int, int], before: tuple[Any, ...] = ()) -> None:
        self.index = index
        self._rows = iter(rows)
        self._target = target
        self._before = before

    def raw(self, generator: Generator) -> Scene:
        row = next(self._rows)
        width, height = self.index.sizes[row].tolist()
        return Scene.of(row, (width, height), self._target)

    def like(self, generator: Generator) -> Scene:
        return self.raw(generator).edited(list(self._before), generator, self.index)


def scene_of(
    index: Index, row: int, transforms: list[Any], target: tuple[int, int], others: list[int], seed: int = 0
) -> Scene:
    """What the loader would draw; ``others`` are the partners in order, after the edits before the first mixture."""
    width, height = index.sizes[row].tolist()
    first = next((i for i, one in enumerate(transforms) if getattr(one, "mixes", False)), len(transforms))
    partners = Others(index, others, target, tuple(transforms[:first]))
    generator = Generator().manual_seed(seed)
    return composed(transforms, Scene.of(row, (width, height), target), lambda _: partners, generator, index)


def drawn(index: Index, scene: Scene, mask_stride: int = 0) -> tuple[np.ndarray, Scene, Objects]:
    """The canvas, the scene as it was drawn, and its objects."""
    canvas = np.empty((scene.size[1], scene.size[0], 3), np.uint8)
    scene = draw(scene, lambda layer: decode(index.picture(layer.row)), canvas, lambda layer: layer_patch(layer, index))
    return canvas, scene, shown(scene, index, mask_stride)


def index_of(
    folder: Path, pictures: list[np.ndarray], objects: list[list[Object]], classes: int = 3, **builder: Any
) -> Index:
    """An index of pictures with their objects."""
    made = Builder(folder, tuple("abcdefghij"[:classes]), **builder)
    for number, (pixels, rows) in enumerate(zip(pictures, objects, strict=True)):
        path = save(pixels, folder / f"{number:02d}.png")
        made.image(path, (pixels.shape[1], pixels.shape[0]), number + 1)
        made.objects(rows, path)
    return made.finish()

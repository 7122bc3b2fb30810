from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Generator

from tests.unit.data.pictures import rectangle, small_index, smooth
from tests.unit.data.scenes import drawn, index_of, scene_of
from torso.config import TorsoError
from torso.data.builder import Object
from torso.data.draws import uniform
from torso.data.index import Index
from torso.data.loader import Loader
from torso.data.objects import shown
from torso.data.transforms import Affine, Color, HorizontalFlip, Letterbox, Mosaic
from torso.data.transforms.pixelwise import Blur

SIZE = (96, 64)
SHAPES = [(96, 64), (48, 64), (120, 40), (64, 64), (96, 50), (30, 90), (96, 64), (80, 64), (64, 48)]


def several(folder: Path) -> Index:
    """Nine smooth pictures of different shapes with three objects each."""
    generator = np.random.default_rng(3)
    objects = []
    for width, height in SHAPES:
        low = generator.uniform(0, 0.6, (3, 2)) * (width, height)
        high = low + generator.uniform(0.15, 0.4, (3, 2)) * (width, height)
        objects.append([Object((*a, *b), k) for k, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True))])
    # Flat enough that a pixel's shift is a grey level, different enough that another picture is none.
    pictures = [smooth(*shape) // 5 + np.uint8(23 * number) for number, shape in enumerate(SHAPES)]
    return index_of(folder, pictures, objects)


def by_hand(index: Index, rows: list[int], grid: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Step by step: a sheet, pictures resized and pasted at their places, boxes moved and cut one by one.

    Also returns the affine of a following ``Affine(scale=(0.5, 1.5), shift=0.1)``, from the same draws.
    """
    width, height = SIZE
    generator = Generator().manual_seed(seed)
    crosses = [uniform(generator, 0.5, 1.5) * side for side in SIZE]
    lines = [
        [0.0, cross, *([cross + side] if grid == 3 else []), grid * side]
        for cross, side in zip(crosses, SIZE, strict=True)
    ]
    sheet = np.full((grid * height, grid * width, 3), 114, np.uint8)
    found = []
    for number, row in enumerate(rows):
        column, line = number % grid, number // grid
        w, h = index.sizes[row]
        scale = min(width / w, height / h)
        place = []
        for lines_of, cell, length in ((lines[0], column, w * scale), (lines[1], line, h * scale)):
            begin, end = lines_of[cell], lines_of[cell + 1]
            first, last = cell == 0, cell == grid - 1
            place.append(end - length if first else begin if last else (begin + end - length) / 2)
        x, y = place
        tile = cv2.resize(_pixels(index, row), (round(w * scale), round(h * scale)), interpolation=cv2.INTER_LINEAR)
        _paste(sheet, tile, round(x), round(y))
        for box in index.boxes[index.objects(row)]:
            a, b, c, d = box * scale + (x, y, x, y)
            found.append(np.clip([a, b, c, d], 0, [grid * width, grid * height] * 2))
    factor = uniform(generator, 0.5, 1.5)
    x, y = (uniform(generator, -0.1, 0.1) * side for side in SIZE)
    middle = np.array([grid * width / 2, grid * height / 2])
    shift = np.array([width / 2 + x, height / 2 + y]) - factor * middle
    boxes = np.array(found) * factor + np.tile(shift, 2)
    boxes = np.clip(boxes, 0, [width, height] * 2)
    # cv2 counts from the centre of the first pixel.
    matrix = np.array([[factor, 0, shift[0] + 0.5 * factor - 0.5], [0, factor, shift[1] + 0.5 * factor - 0.5]])
    canvas = cv2.warpAffine(sheet, matrix, SIZE, flags=cv2.INTER_LINEAR, borderValue=(114, 114, 114))
    return canvas, boxes


def _pixels(index: Index, row: int) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(index.file(row))), cv2.COLOR_BGR2RGB)


def _paste(sheet: np.ndarray, tile: np.ndarray, x: int, y: int) -> None:
    """What of a tile lies on the sheet."""
    h, w = tile.shape[:2]
    a, b, c, d = max(x, 0), max(y, 0), min(x + w, sheet.shape[1]), min(y + h, sheet.shape[0])
    sheet[b:d, a:c] = tile[b - y : d - y, a - x : c - x]


@pytest.mark.part("transform/mosaic")
@pytest.mark.parametrize("grid", [2, 3])
def test_a_mosaic_equals_the_same_steps_one_after_the_other(tmp_path: Path, grid: int) -> None:
    index = several(tmp_path)
    rows = list(range(grid * grid))
    shown_at_all = 0
    for seed in range(30):
        transforms = [Mosaic(grid), Affine(scale=(0.5, 1.5), shift=0.1, min_visible=0.0)]
        scene = scene_of(index, rows[0], transforms, SIZE, rows[1:], seed)
        canvas, boxes = by_hand(index, rows, grid, seed)
        ours = shown(scene, index)
        sides = boxes[:, 2:] - boxes[:, :2]
        expected = boxes[(sides > 1).all(1)]
        assert ours.boxes.shape == expected.shape
        assert np.abs(ours.boxes - expected).max(initial=0) < 1e-3
        pixels, _, _ = drawn(index, scene)
        off = np.abs(pixels.astype(int) - canvas).max(2)
        assert np.percentile(off, 75) <= 4  # edges of tiles are rounded to the pixel, here and there
        assert off.mean() < 8
        shown_at_all += len(expected)
    assert shown_at_all > 100


@pytest.mark.part("transform/mosaic")
@pytest.mark.parametrize("rotation", [0.0, 20.0])
@pytest.mark.parametrize("grid", [2, 3])
def test_every_pixel_of_a_tile_is_of_its_own_picture(tmp_path: Path, grid: int, rotation: float) -> None:
    colors = [(28 * number, 255 - 20 * number, 40) for number in range(9)]
    pictures = [np.full((h, w, 3), color, np.uint8) for (w, h), color in zip(SHAPES, colors, strict=True)]
    index = index_of(tmp_path, pictures, [[] for _ in pictures])
    for seed in range(10):
        scene = scene_of(index, 0, [Mosaic(grid, fill=7), Affine(rotation=rotation)], SIZE, list(range(1, 9)), seed)
        canvas, scene, _ = drawn(index, scene)
        known = np.array([*colors[: grid * grid], (7, 7, 7)])
        distance = np.abs(canvas[:, :, None].astype(int) - known).max(-1)
        # Pure colours: nothing is blended but the edges of turned tiles.
        assert (distance.min(-1) <= 1).mean() >= (0.9 if rotation else 1.0)
        for number, layer in enumerate(scene.layers):
            x0, y0, x1, y1 = layer.frame
            ys, xs = np.nonzero(distance[..., number] <= 1)
            if len(xs):
                assert xs.min() >= x0 - 1
                assert ys.min() >= y0 - 1
                assert xs.max() + 1 <= x1 + 1
                assert ys.max() + 1 <= y1 + 1
            if not rotation:
                assert len(xs) == round((round(x1) - round(x0)) * (round(y1) - round(y0)))


@pytest.mark.part("transform/mosaic")
@pytest.mark.parametrize("flip", [False, True])
def test_drawn_rectangles_stay_with_their_boxes(tmp_path: Path, flip: bool) -> None:
    shapes = [(120, 90), (60, 80), (200, 100), (90, 90)]
    boxes = [(30, 20, 70, 60), (10, 10, 40, 50), (60, 10, 150, 80), (20, 30, 60, 70)]
    pictures = [rectangle(shape, box) for shape, box in zip(shapes, boxes, strict=True)]
    index = index_of(tmp_path, pictures, [[Object(tuple(map(float, box)), 0)] for box in boxes])
    whole = 0
    for seed in range(40):
        transforms = [Mosaic(fill=0), Affine(scale=(0.5, 1.2)), HorizontalFlip(float(flip))]
        canvas, scene, objects = drawn(index, scene_of(index, 0, transforms, (128, 96), [1, 2, 3], seed))
        for owner, box in zip(objects.owner, objects.boxes, strict=True):
            x0, y0, x1, y1 = (round(value) for value in scene.layers[owner].frame)
            tile = canvas[y0:y1, x0:x1, 0] > 127
            ys, xs = np.nonzero(tile)
            seen = np.array([xs.min() + x0, ys.min() + y0, xs.max() + 1 + x0, ys.max() + 1 + y0])
            assert np.abs(seen - box).max() <= 1.0
            whole += 1
    assert whole > 60


@pytest.mark.part("transform/mosaic")
def test_a_mosaic_is_the_same_with_workers_and_ends_when_mixing_does(tmp_path: Path) -> None:
    index = small_index(tmp_path, 12)
    transforms = [Mosaic(), Affine(), Color(), HorizontalFlip()]
    alone, together = (
        Loader(index, transforms, size=SIZE, batch=4, shuffle=True, workers=workers, mix_until=1) for workers in (0, 2)
    )
    for epoch in (0, 1):
        for one, two in zip(alone.epoch(epoch), together.epoch(epoch), strict=True):
            assert torch.equal(one.images, two.images)
            assert torch.equal(one.targets.boxes, two.targets.boxes)
    plain = Loader(index, transforms[1:], size=SIZE, batch=4, shuffle=True)
    assert all(torch.equal(one.images, two.images) for one, two in zip(alone.epoch(1), plain.epoch(1), strict=True))


def test_what_is_not_mixed_is_letterboxed(tmp_path: Path) -> None:
    index = several(tmp_path)
    counts = [len(scene_of(index, 1, [Mosaic(p=0.4)], SIZE, [2, 3, 4], seed).layers) for seed in range(200)]
    assert set(counts) == {1, 4}
    assert 50 < counts.count(4) < 110
    alone = scene_of(index, 1, [Mosaic(p=0.0)], SIZE, [])
    plain = scene_of(index, 1, [Letterbox()], SIZE, [])
    assert np.array_equal(alone.layers[0].view.matrix, plain.layers[0].view.matrix)


def test_what_works_on_a_whole_canvas_comes_after(tmp_path: Path) -> None:
    index = several(tmp_path)
    with pytest.raises(TorsoError, match=r"Blur works on the drawn canvas: put it after"):
        scene_of(index, 0, [Blur(p=1.0), Mosaic()], SIZE, [1, 2, 3])

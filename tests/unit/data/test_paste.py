from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.unit.data.scenes import drawn, index_of, scene_of
from torso.data.builder import Object
from torso.data.index import Index
from torso.data.loader import Loader
from torso.data.masks import encoded, rasterise
from torso.data.transforms import TRANSFORMS, Affine, Letterbox

SIZE = (120, 90)
CopyPaste, SmallObjectCopyPaste = (TRANSFORMS[name] for name in ("copy_paste", "small_object_copy_paste"))
TRIANGLE = [10.0, 10.0, 60.0, 10.0, 10.0, 60.0]
DIAMOND = [80.0, 20.0, 100.0, 45.0, 80.0, 70.0, 60.0, 45.0]


def painted(background: int, shapes: list[tuple[list[float], int]]) -> np.ndarray:
    """A grey picture with shapes, each of its own grey."""
    pixels = np.full((SIZE[1], SIZE[0], 3), background, np.uint8)
    for polygon, value in shapes:
        pixels[rasterise([polygon], SIZE)] = value
    return pixels


def around(polygon: list[float]) -> tuple[float, float, float, float]:
    x, y = polygon[::2], polygon[1::2]
    return min(x), min(y), max(x), max(y)


def eroded(mask: np.ndarray, size: int) -> np.ndarray:
    """Pixels whose whole neighbourhood is set; what lies beyond the edges is not."""
    padded = np.pad(mask.astype(np.uint8), size)
    return cv2.erode(padded, np.ones((size, size), np.uint8))[size:-size, size:-size] > 0


def two(folder: Path) -> Index:
    """A picture with two shapes to paste over, and one whose two shapes are pasted, one of them as run lengths."""
    below = [Object(around(shape), k, mask=[shape]) for k, shape in enumerate((TRIANGLE, DIAMOND))]
    above = [[12.0, 30.0, 70.0, 30.0, 70.0, 50.0, 12.0, 50.0], [75.0, 5.0, 110.0, 5.0, 92.0, 40.0]]
    masks = [[above[0]], encoded(rasterise([above[1]], SIZE))]
    objects = [Object(around(shape), 2, mask=mask) for shape, mask in zip(above, masks, strict=True)]  # type: ignore[arg-type]
    crowd = Object((0.0, 60.0, 40.0, 90.0), 1, crowd=True, mask=[[0.0, 60.0, 40.0, 60.0, 40.0, 90.0, 0.0, 90.0]])
    pictures = [
        painted(20, [(TRIANGLE, 60), (DIAMOND, 100)]),
        painted(0, [(above[0], 200), (above[1], 240), ([0.0, 60.0, 40.0, 60.0, 40.0, 90.0, 0.0, 90.0], 150)]),
    ]
    return index_of(folder, pictures, [below, [*objects, crowd]])


@pytest.mark.part("transform/copy_paste")
def test_objects_are_pasted_along_their_masks_and_hide_what_lies_below(tmp_path: Path) -> None:
    index = two(tmp_path)
    base, other = (cv2.imread(str(index.file(row)))[..., ::-1] for row in (0, 1))
    scene = scene_of(index, 0, [CopyPaste(share=1.0, flip=0.0)], SIZE, [1])
    canvas, _, objects = drawn(index, scene, mask_stride=1)
    stencil = (other[..., 0] == 200) | (other[..., 0] == 240)
    assert np.array_equal(canvas, np.where(stencil[..., None], other, base))
    assert objects.rows.tolist() == [0, 1, 2, 3]  # the crowd is never pasted
    assert objects.labels.tolist() == [0, 1, 2, 2]
    assert objects.masks is not None
    for mask, grey, box in zip(objects.masks, (60, 100, 200, 240), objects.boxes, strict=True):
        assert np.array_equal(mask, canvas[..., 0] == grey)
        ys, xs = np.nonzero(mask)
        assert np.abs(box - (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)).max() <= 1
    # The triangle lost its lower tip's neighbourhood but not its ends: the box stays.
    assert np.allclose(objects.boxes[0], around(TRIANGLE))
    # Without masks being asked for, the boxes are the same.
    assert np.array_equal(drawn(index, scene)[2].boxes, objects.boxes)


@pytest.mark.part("transform/copy_paste")
@pytest.mark.parametrize("rotation", [0.0, 30.0])
def test_what_masks_say_is_what_is_drawn_however_the_other_picture_lies(tmp_path: Path, rotation: float) -> None:
    index = two(tmp_path)
    pasted = 0
    paste = CopyPaste(share=0.6, scale=(0.3, 1.6), rotation=rotation)
    for seed in range(40):
        canvas, scene, objects = drawn(index, scene_of(index, 0, [paste], SIZE, [1], seed), mask_stride=1)
        assert objects.masks is not None
        assert not (objects.masks.sum(0) > 1).any()  # no pixel belongs to two
        for row, mask, box in zip(objects.rows, objects.masks, objects.boxes, strict=True):
            inner = eroded(mask, 5)
            assert (np.abs(canvas[inner].astype(int) - (60, 100, 200, 240)[row]) <= 2).all()
            ys, xs = np.nonzero(mask)
            seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            cut = (box[:2] == 0).any() or (box[2:] == SIZE).any()  # then the box is that of the cut box, no closer
            assert (box - seen)[:2].max() <= 1.5
            assert (seen - box)[2:].max() <= 1.5
            assert cut or np.abs(box - seen).max() <= 2.5  # acute corners never fill half of their last pixel
            pasted += row >= 2
        free = ~objects.masks.any(0)
        assert not (canvas[eroded(free, 3)] == 150).any()
        assert len(scene.layers) in (1, 2)
    assert pasted > 20


@pytest.mark.part("transform/copy_paste")
def test_what_is_nearly_all_hidden_is_dropped(tmp_path: Path) -> None:
    hidden = [20.0, 33.0, 60.0, 33.0, 60.0, 48.0, 20.0, 48.0]
    index = two(tmp_path)
    below = [Object(around(hidden), 0, mask=[hidden]), Object((62.0, 20.0, 72.0, 60.0), 1)]
    index = index_of(tmp_path / "more", [painted(20, [])] * 2, [below, [Object((12.0, 30.0, 70.0, 50.0), 2)]])
    objects = drawn(index, scene_of(index, 0, [CopyPaste(share=1.0, flip=0.0)], SIZE, [1]))[2]
    # The second lies by its box alone, half under the box that is pasted (which has no mask either).
    assert objects.rows.tolist() == [1, 2]
    assert np.allclose(objects.boxes, [(62, 20, 72, 60), (12, 30, 70, 50)])


@pytest.mark.part("transform/copy_paste")
def test_large_scale_jitter_spans_its_range_and_stays_in_reach(tmp_path: Path) -> None:
    index = two(tmp_path)
    scales, flips = [], 0
    for seed in range(200):
        scene = scene_of(index, 0, [CopyPaste(share=1.0, scale=(0.1, 2.0))], SIZE, [1], seed)
        matrix = scene.layers[1].view.matrix
        scales.append(abs(matrix[0, 0]))
        flips += matrix[0, 0] < 0
        corners = np.array([[0, 0], SIZE]) * np.diag(matrix)[:2] + matrix[:2, 2]
        low, high = corners.min(0), corners.max(0)
        # A smaller picture lies inside of the canvas, a larger one covers it.
        inside = (low >= -1e-6).all() and (high <= np.array(SIZE) + 1e-6).all()
        covers = (low <= 1e-6).all() and (high >= np.array(SIZE) - 1e-6).all()
        assert inside if scales[-1] < 1 else covers
    assert min(scales) < 0.15
    assert max(scales) > 1.9
    assert 70 < flips < 130


@pytest.mark.part("transform/copy_paste")
def test_workers_paste_the_same(tmp_path: Path) -> None:
    index = two(tmp_path)
    transforms = [CopyPaste(scale=(0.5, 1.5), rotation=10), Affine()]
    alone, together = (
        Loader(index, transforms, size=SIZE, batch=2, shuffle=True, workers=workers, masks=True, mask_stride=2)
        for workers in (0, 2)
    )
    for one, more in zip(alone.epoch(0), together.epoch(0), strict=True):
        assert torch.equal(one.images, more.images)
        assert one.targets.masks is not None
        assert one.targets.masks.shape[2:] == (45, 60)
        assert torch.equal(one.targets.masks, more.targets.masks)
        assert torch.equal(one.targets.boxes, more.targets.boxes)


def small_ones(folder: Path) -> Index:
    """Three small squares of their own greys and a large one, on black."""
    boxes = [(10.0, 10.0, 22.0, 22.0), (60.0, 40.0, 80.0, 52.0), (100.0, 70.0, 110.0, 88.0), (5.0, 40.0, 50.0, 85.0)]
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for number, box in enumerate(boxes):
        x0, y0, x1, y1 = map(int, box)
        pixels[y0:y1, x0:x1] = 60 * (number + 1)
    return index_of(folder, [pixels], [[Object(box, k % 3) for k, box in enumerate(boxes)]])


@pytest.mark.part("transform/small_object_copy_paste")
@pytest.mark.parametrize("rotation", [0.0, 15.0])
def test_copies_of_small_objects_lie_inside_and_over_nothing(tmp_path: Path, rotation: float) -> None:
    index = small_ones(tmp_path)
    total = 0
    for seed in range(60):
        paste = SmallObjectCopyPaste(copies=2, rotation=rotation)
        canvas, scene, objects = drawn(index, scene_of(index, 0, [paste], SIZE, [], seed), mask_stride=1)
        count = len(scene.layers) - 1
        total += count
        assert count <= 6
        assert objects.rows[:4].tolist() == [0, 1, 2, 3]
        assert (np.diff(objects.rows[4:]) >= 0).all()
        assert set(objects.rows[4:]) <= {0, 1, 2}  # the large one is never copied
        assert len(objects.rows) == 4 + count  # nothing hides anything
        low = np.maximum(objects.boxes[:, None, :2], objects.boxes[None, :, :2])
        high = np.minimum(objects.boxes[:, None, 2:], objects.boxes[None, :, 2:])
        meets = ((high - low) > 1e-6).all(-1)
        assert not np.triu(meets, 1).any()
        copies = objects.boxes[4:]
        assert (copies >= 4).all()
        assert (copies[:, 2:] <= np.array(SIZE) - 4).all()
        sides = copies[:, 2:] - copies[:, :2]
        assert (sides.prod(1) < 2 * 1.44 * 1024).all()
        for row, mask in zip(objects.rows, objects.masks, strict=True):  # type: ignore[arg-type]
            inner = eroded(mask, 3)
            assert inner.any()
            assert (np.abs(canvas[inner].astype(int) - 60 * (row + 1)) <= 2).all()
    assert total > 200


@pytest.mark.part("transform/small_object_copy_paste")
def test_small_is_said_in_pixels_of_the_canvas(tmp_path: Path) -> None:
    index = small_ones(tmp_path)
    # Twice as large the first square has 24 x 24 pixels, the others more than 16 x 36.
    steps = [Letterbox(), SmallObjectCopyPaste(copies=1, area=580, scale=(1.0, 1.0), rotation=0)]
    seen = set()
    for seed in range(20):
        scene = scene_of(index, 0, steps, (240, 180), [], seed)
        seen |= {int(layer.stencil[0]) for layer in scene.layers[1:] if layer.stencil is not None}
    assert seen == {0}


@pytest.mark.part("transform/small_object_copy_paste")
def test_a_copy_without_a_free_place_is_left_out(tmp_path: Path) -> None:
    full = np.zeros((40, 40, 3), np.uint8)
    index = index_of(tmp_path, [full], [[Object((5.0, 5.0, 15.0, 15.0), 0), Object((0.0, 0.0, 40.0, 40.0), 1)]])
    for seed in range(10):
        assert len(scene_of(index, 0, [SmallObjectCopyPaste()], (40, 40), [], seed).layers) == 1

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Generator

from tests.unit.data.pictures import noise, small_index
from tests.unit.data.scenes import drawn, scene_of
from torso.data import convex
from torso.data.collate import Memory
from torso.data.loader import Loader
from torso.data.partners import LANES, POOL, Pool, pool
from torso.data.render import render
from torso.data.scene import Layer, Scene
from torso.data.transforms import TRANSFORMS, Affine, Color, HorizontalFlip, Letterbox, Mosaic, RandomResizedCrop
from torso.data.views import View, shifting

SIZE = (64, 48)
floats = st.integers(-40, 160).map(lambda n: n / 2)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(floats, floats), min_size=3, max_size=8), floats, floats, st.floats(1, 60), st.floats(1, 60))
def test_a_cut_polygon_has_the_area_that_opencv_finds(
    points: list[tuple[float, float]], x: float, y: float, width: float, height: float
) -> None:
    assume(len(set(points)) > 2)
    hull = cv2.convexHull(np.array(points, np.float32)).reshape(-1, 2).astype(np.float64)
    assume(cv2.contourArea(hull.astype(np.float32)) > 1)
    frame = (x, y, x + width, y + height)
    found = convex.cut(hull, frame)
    area = cv2.contourArea(found.astype(np.float32))
    expected, _ = cv2.intersectConvexConvex(hull.astype(np.float32), convex.corners(frame).astype(np.float32))
    assert abs(area - expected) < 0.05 + 1e-3 * expected
    assert (found >= np.array(frame[:2]) - 1e-9).all()
    assert (found <= np.array(frame[2:]) + 1e-9).all()


def test_what_is_a_rectangle_along_the_axes() -> None:
    box = convex.corners((1.0, 2.0, 5.0, 9.0))
    assert convex.upright(box)
    assert convex.upright(np.roll(box, 1, axis=0))
    assert convex.upright(box[::-1])
    assert not convex.upright(np.array([[1.0, 3.0], *box[1:]]))
    assert not convex.upright(box[:3])
    assert convex.overlap((0, 0, 4, 4), (6, 1, 9, 3)) == (6, 1, 6, 3)  # of no area
    assert convex.inside(np.array([[2.0, 3.0], [0.0, 3.0], [4.9, 8.9]]), box).tolist() == [True, False, True]


def test_edits_in_a_row_are_one_edit(tmp_path: Path) -> None:
    index = small_index(tmp_path, 12)
    edits = [Affine(rotation=20), Color(), HorizontalFlip(1.0), Color(), Letterbox()]
    start = scene_of(index, 3, [Mosaic()], SIZE, [1, 2, 6])
    together = start.edited(edits, Generator().manual_seed(5), index)
    step, generator = start, Generator().manual_seed(5)
    for edit in edits:
        step = step.edited([edit], generator, index)
    assert together.size == step.size
    for one, two in zip(together.layers, step.layers, strict=True):
        assert np.allclose(one.view.matrix, two.view.matrix)
        assert np.allclose(one.view.color, two.view.color)
    assert np.array_equal(drawn(index, together)[0], drawn(index, step)[0])


def test_a_transform_that_sees_boxes_sees_them_as_they_are_so_far(tmp_path: Path) -> None:
    index = small_index(tmp_path)
    seen = []

    class Look:
        fits, sees_boxes = False, True

        def __call__(self, view: View, generator: Generator) -> View:
            seen.append(view.boxes)
            assert np.array_equal(view.matrix, np.eye(3))
            return view

    scene_of(index, 3, [Look(), HorizontalFlip(1.0), Look(), Letterbox(), Look()], (96, 64), [])
    assert np.array_equal(seen[0], index.boxes[3:6])
    assert np.allclose(seen[1], index.boxes[3:6][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [48, 0, 48, 0])
    assert np.allclose(seen[2], seen[1] * 2)


def test_one_layer_is_drawn_like_its_view(tmp_path: Path) -> None:
    index = small_index(tmp_path)
    for seed in range(6):
        for transforms in ([RandomResizedCrop(), HorizontalFlip(), Color()], [Letterbox(), Affine(rotation=20)]):
            scene = scene_of(index, 2, transforms, SIZE, [], seed)
            canvas, after, _ = drawn(index, scene)
            alone, view = render(noise(48, 32, seed=2), scene.layers[0].view)
            assert np.array_equal(canvas, alone)
            assert np.array_equal(after.layers[0].view.matrix, view.matrix)


def test_colours_and_parts_of_layers_are_their_own(tmp_path: Path) -> None:
    index = small_index(tmp_path)
    view = View.of((48, 32), (48, 32))
    dark = view.tinted(np.eye(3, 4) * 0.5)
    part = np.array([[8.0, 4.0], [40.0, 4.0], [40.0, 28.0], [8.0, 28.0]])
    layers = (Layer(0, view), Layer(1, dark, part, over=True), Layer(2, view, part / 2, opacity=0.25, over=True))
    canvas, _, _ = drawn(index, Scene(layers, view))
    expected = noise(48, 32, seed=0).astype(float)
    expected[4:28, 8:40] = noise(48, 32, seed=1)[4:28, 8:40] * 0.5
    expected[2:14, 4:20] = 0.75 * expected[2:14, 4:20] + 0.25 * noise(48, 32, seed=2)[2:14, 4:20]
    assert np.abs(canvas - expected).max() <= 1.5


@pytest.mark.parametrize("batch", [1, 4, 16, 50])
def test_partners_have_just_been_decoded_by_the_same_worker(batch: int) -> None:
    for position in (0, 7, 130, 999):
        found = pool(position, batch, 1000)
        own = position // batch
        assert position in found
        assert len(found) <= max(POOL, batch) + batch
        assert ((found >= 0) & (found < 1000)).all()
        assert {(own - number) % LANES for number in found // batch} == {0}


def test_partners_come_as_they_are_or_after_what_comes_before(tmp_path: Path) -> None:
    index = small_index(tmp_path)
    made = []

    def before(row: int, generator: Generator) -> Scene:
        made.append(row)
        return Scene.of(row, (48, 32), SIZE)

    partners = Pool(index, np.array([2, 5, 7]), 5, SIZE, before)
    generator = Generator().manual_seed(0)
    raw = [partners.raw(generator).layers[0] for _ in range(40)]
    assert {layer.row for layer in raw} == {2, 7}  # never itself where there are others
    assert all(np.array_equal(layer.view.matrix, np.eye(3)) for layer in raw)
    partners.like(generator)
    assert made[0] in (2, 7)
    assert Pool(index, np.array([5]), 5, SIZE, before).raw(generator).layers[0].row == 5


def test_a_damaged_partner_only_wants_another_one(tmp_path: Path) -> None:
    index = small_index(tmp_path, 12)
    index.file(4).write_bytes(b"no picture")
    for workers in (0, 2):
        loader = Loader(index, [Mosaic()], size=SIZE, batch=4, shuffle=True, workers=workers)
        batches = list(loader.epoch(0))
        rows = torch.cat([batch.index for batch in batches]).tolist()
        assert len(rows) == 12
        assert 4 not in rows
        assert {path for path, _ in loader.skipped} == {"04.png"}


def test_mixtures_of_mixtures_are_pure_functions(tmp_path: Path) -> None:
    index = small_index(tmp_path, 12)
    names = ["mosaic", "copy_paste", "affine", "mixup_boxes", "cutmix", "small_object_copy_paste", "horizontal_flip"]
    state = torch.get_rng_state()
    runs = [
        Loader(index, [TRANSFORMS[name]() for name in names], size=SIZE, batch=4, shuffle=True, workers=workers)
        for workers in (0, 0, 3)
    ]
    for epoch in (0, 1):
        for one, two, three in zip(*(run.epoch(epoch) for run in runs), strict=True):
            for other in (two, three):
                assert torch.equal(one.images, other.images)
                assert torch.equal(one.targets.boxes, other.targets.boxes)
                assert torch.equal(one.targets.weights, other.targets.weights)  # type: ignore[arg-type]
            present = one.targets.valid | one.targets.ignore
            boxes = one.targets.boxes[present]
            assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
            assert (boxes >= 0).all()
            assert (boxes[:, 2:] <= torch.tensor(SIZE)).all()
    assert torch.equal(state, torch.get_rng_state())


def test_memory_comes_back_only_when_nobody_holds_it() -> None:
    memory = Memory()
    first = memory.empty(4, 5)
    place = first.data_ptr()
    second = memory.empty(4, 5)
    assert second.data_ptr() != place
    view = first.view(-1)[3:]
    array = first.numpy()
    del first
    assert memory.empty(2, 5).data_ptr() not in (place, second.data_ptr())
    del view
    assert memory.empty(2, 5).data_ptr() != place
    del array
    third = memory.empty(2, 5)
    assert third.data_ptr() == place
    assert third.shape == (2, 5)


def test_batches_that_are_kept_stay_what_they_are(tmp_path: Path) -> None:
    index = small_index(tmp_path, 12)
    loader = Loader(index, [Affine()], size=SIZE, batch=2, shuffle=True)
    kept = list(loader.epoch(0))
    copies = [batch.images.clone() for batch in Loader(index, [Affine()], size=SIZE, batch=2, shuffle=True).epoch(0)]
    assert all(torch.equal(batch.images, copy) for batch, copy in zip(kept, copies, strict=True))


def test_a_picture_that_does_not_show_draws_nothing(tmp_path: Path) -> None:
    index = small_index(tmp_path)
    view = View.of((48, 32), (48, 32))
    away = view.then(shifting(500, 0))
    turned = view.then(np.array([[0.0, -1.0, -90.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    layers = (Layer(0, view), Layer(1, away, over=True), Layer(2, turned, over=True, opacity=0.5))
    canvas, _, objects = drawn(index, Scene(layers, view), mask_stride=1)
    assert np.array_equal(canvas, noise(48, 32, seed=0))
    assert len(objects.rows) == 0

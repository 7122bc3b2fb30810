from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.ops import box_iou

from tests.unit.data.augmented import painted, plain, sampled, seeded
from tests.unit.data.pictures import noise
from torso.data.transforms.crops import IoUCrop, Pad, RandomCrop, ZoomOut
from torso.data.transforms.geometry import HorizontalFlip
from torso.data.transforms.motions import Rotation
from torso.data.views import Border, View, changed, inverse

MODES = st.sampled_from(["edge", "reflect", "symmetric"])


@pytest.mark.part("transform/pad")
@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.tuples(*[st.integers(0, 40)] * 4), MODES)
def test_borders_are_those_of_numpy(width: int, height: int, padding: tuple[int, int, int, int], mode: Border) -> None:
    pixels = noise(width, height, seed=width)
    left, top, right, bottom = padding
    view = Pad(padding, mode)(plain(pixels), torch.Generator())
    assert view.size == (width + left + right, height + top + bottom)
    expected = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode)
    assert np.array_equal(painted(pixels, view), expected)


@pytest.mark.part("transform/random_crop")
def test_every_place_of_a_crop_is_as_likely() -> None:
    view = View.of((23, 14), (20, 20))
    places = [RandomCrop(padding=1)(view, seeded(seed)).matrix[:2, 2] for seed in range(900)]
    x, y = np.array(places).T
    # Free along x are 25 - 20 = 5 pixels; along y the picture with its border moves inside of the canvas.
    assert sorted(set(x)) == [-4, -3, -2, -1, 0, 1]
    assert sorted(set(y)) == [1, 2, 3, 4, 5]
    for values in (x, y):
        assert stats.chisquare(np.unique(values, return_counts=True)[1]).pvalue > 0.01


@pytest.mark.part("transform/random_crop")
def test_a_picture_too_small_is_padded_or_enlarged() -> None:
    pixels = np.full((10, 16, 3), 200, np.uint8)
    for seed in range(10):
        padded = RandomCrop(fill=3)(plain(pixels, (20, 20)), seeded(seed))
        canvas = painted(pixels, padded)
        assert canvas.shape == (20, 20, 3)
        assert (canvas == 200).all(-1).sum() == 160  # the whole picture is there
        assert (canvas == 3).all(-1).sum() == 240
        grown = RandomCrop(pad_if_needed=False)(plain(pixels, (20, 20)), seeded(seed))
        assert (painted(pixels, grown) == 200).all()
        assert np.allclose(grown.matrix[0, 0], 2)


def part_of(view: View, target: tuple[int, int]) -> torch.Tensor:
    """The part of the picture that the canvas shows, xyxy."""
    back = inverse(view.matrix)
    low, high = back @ [0, 0, 1], back @ [*target, 1]
    return torch.tensor([[low[0], low[1], high[0], high[1]]])


@pytest.mark.part("transform/iou_crop")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9]), st.integers(0, 2**31), st.integers(1, 5))
def test_an_iou_crop_reaches_its_overlap(overlap: float, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    low = random.uniform(0, 60, (count, 2))
    boxes = np.concatenate([low, np.minimum(low + random.uniform(5, 60, (count, 2)), (120, 90))], 1)
    start = changed(View.of((120, 90), (50, 40)), boxes=boxes)
    view = IoUCrop(overlaps=(overlap,))(start, seeded(seed))
    assert view.size == (50, 40)
    part = part_of(view, (50, 40))
    if not view.windows:
        assert np.allclose(part, [[0, 0, 120, 90]])  # out of reach for all draws
        return
    width, height = (part[0, 2:] - part[0, :2]).round(decimals=6).tolist()
    assert width == int(width)
    assert 0.3 * 120 - 1 <= width <= 120
    assert 0.3 * 90 - 1 <= height <= 90
    assert 0.5 <= width / height <= 2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > part[0, :2].numpy()) & (centres < part[0, 2:].numpy())).all(1)
    assert inside.any()
    assert box_iou(torch.from_numpy(boxes[inside]), part.double()).max() >= overlap - 1e-6


@pytest.mark.part("transform/iou_crop")
def test_objects_with_their_centre_outside_are_dropped() -> None:
    class Fixed(IoUCrop):
        def _part(self, *_: object) -> tuple[int, int, int, int]:
            return 20, 10, 40, 40

    pixels = noise(100, 80)
    boxes = np.array([[30, 20, 50, 40], [44, 30, 74, 48], [50, 30, 74, 48], [8, 2, 26, 46], [61, 20, 80, 30]], float)
    # Centres: inside; 59 < 60; 62 > 60 although half of it shows; 17 < 20; outside.
    canvas, found = sampled(pixels, boxes, [Fixed()], (40, 40))
    assert found.rows.tolist() == [0, 1]
    assert found.boxes.tolist() == [[10, 10, 30, 30], [24, 20, 40, 38]]
    assert np.array_equal(canvas, pixels[10:50, 20:60])
    # What follows moves the window along.
    _, found = sampled(pixels, boxes, [Fixed(), HorizontalFlip(1.0), Rotation((90, 90))], (40, 40))
    assert found.rows.tolist() == [0, 1]


@pytest.mark.part("transform/iou_crop")
def test_without_objects_or_by_chance_the_whole_picture_is_taken() -> None:
    pixels = noise(60, 50)
    canvas, _ = sampled(pixels, np.zeros((0, 4)), [IoUCrop()], (60, 50))
    assert np.array_equal(canvas, pixels)
    canvas, found = sampled(pixels, np.array([[5, 5, 20, 30.0]]), [IoUCrop(overlaps=(1.0,))], (60, 50))
    assert np.array_equal(canvas, pixels)
    assert len(found.boxes) == 1
    assert IoUCrop().fits
    assert not IoUCrop(stretch=False).fits


@pytest.mark.part("transform/zoom_out")
def test_zooming_out_keeps_the_picture_whole() -> None:
    sizes = []
    for seed in range(60):
        view = ZoomOut((1.0, 4.0), p=1.0)(View.of((50, 40), (50, 40)), seeded(seed))
        left, top = view.matrix[:2, 2]
        assert 0 <= left <= view.size[0] - 50
        assert 0 <= top <= view.size[1] - 40
        sizes.append(view.size[0] / 50)
    assert stats.kstest(sizes, "uniform", (1, 3)).pvalue > 0.01

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.unit.data.pictures import encoded, noise, on_canvas, rectangle, save
from torso.data.decode import decode
from torso.data.render import load, render
from torso.data.transforms.geometry import Affine, HorizontalFlip, Letterbox, Resize, VerticalFlip
from torso.data.views import View, clip, inverse, move, scaling, shifting, to_source

SIZE = (96, 80)
BOX = (20, 16, 68, 60)


def drawn_at(canvas: np.ndarray) -> tuple[float, float, float, float]:
    """The box around what is more than half white."""
    ys, xs = np.nonzero(canvas[..., 0] > 127)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def turned(angle: float, shear: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]])


@settings(max_examples=80, deadline=None)
@given(st.floats(0.3, 2.5), st.floats(0.3, 2.5), st.floats(-20, 40), st.floats(-20, 40), st.booleans(), st.booleans())
def test_a_rectangle_and_its_box_stay_together_without_rotation(
    x: float, y: float, dx: float, dy: float, mirror: bool, upside_down: bool
) -> None:
    view = View(SIZE, (160, 140), (160, 140), fill=0).then(shifting(dx, dy) @ scaling(x, y))
    if mirror:
        view = HorizontalFlip(1.0)(view, torch.Generator())
    if upside_down:
        view = VerticalFlip(1.0)(view, torch.Generator())
    canvas, view = render(rectangle(SIZE, BOX), view)
    box, kept = on_canvas(np.array([BOX], float), view)
    assume(kept[0])
    assert np.abs(np.array(drawn_at(canvas)) - box[0]).max() <= 1.0
    assert np.allclose(view.matrix[:2, :2], scaling(*np.diag(view.matrix)[:2])[:2, :2])


@settings(max_examples=80, deadline=None)
@given(st.floats(0.6, 1.4), st.floats(-math.pi, math.pi), st.floats(-0.3, 0.3), st.floats(-9, 9), st.floats(-9, 9))
def test_a_rectangle_and_its_box_stay_together_with_rotation(
    scale: float, angle: float, shear: float, dx: float, dy: float
) -> None:
    about = shifting(110 + dx, 110 + dy) @ scaling(scale, scale) @ turned(angle, shear) @ shifting(-44, -38)
    view = View(SIZE, (220, 220), (220, 220), fill=0).then(about)
    canvas, view = render(rectangle(SIZE, BOX), view)
    box, _ = on_canvas(np.array([BOX], float), view)
    assume((box > 0).all() and (box < 220).all())
    # Acute corners never fill half of their last pixel.
    assert np.abs(np.array(drawn_at(canvas)) - box[0]).max() <= 1.6
    # The centre of mass knows of no corners: a convention that is half a pixel off shows here.
    weight = canvas[..., 0].astype(float)
    ys, xs = np.mgrid[:220, :220] + 0.5
    mass = np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()
    assert np.abs(mass - (view.matrix @ [44, 38, 1])[:2]).max() < 0.2


def test_a_quarter_turn_is_exact() -> None:
    pixels = noise(30, 20)
    view = View((30, 20), (20, 30), (20, 30)).then(shifting(20, 0) @ turned(math.pi / 2, 0))
    canvas, _ = render(pixels, view)
    assert np.abs(canvas.astype(int) - np.rot90(pixels, -1)).max() <= 1


def test_doing_nothing_changes_nothing() -> None:
    pixels = noise(37, 23)
    canvas, view = render(pixels, View.of((37, 23), (37, 23)))
    assert np.array_equal(canvas, pixels)
    assert np.array_equal(view.matrix, np.eye(3))


@pytest.mark.part("transform/letterbox")
def test_letterbox_by_hand() -> None:
    view = Letterbox()(View.of((200, 100), (60, 50)), torch.Generator())
    # 200 x 100 into 60 x 50: scale 0.3, 60 x 30, ten rows above and below.
    assert np.allclose(view.matrix, [[0.3, 0, 0], [0, 0.3, 10], [0, 0, 1]])
    canvas, _ = render(np.full((100, 200, 3), 7, np.uint8), view)
    assert canvas.shape == (50, 60, 3)
    assert (canvas[:10] == 114).all()
    assert (canvas[40:] == 114).all()
    assert (canvas[10:40] == 7).all()
    smaller = Letterbox(enlarge=False)(View.of((20, 10), (60, 50)), torch.Generator())
    assert np.allclose(smaller.matrix, shifting(20, 20))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_any_shape_survives_every_way_of_fitting(width: int, height: int) -> None:
    assume(width * height < 60_000)
    pixels = np.full((height, width, 3), 200, np.uint8)
    generator = torch.Generator().manual_seed(width)
    for fit in (Letterbox(), Resize()):
        view = View.of((width, height), (64, 48))
        for transform in (fit, HorizontalFlip(), Affine(rotation=10, shear=3)):
            view = transform(view, generator)
        canvas, view = render(pixels, view)
        assert canvas.shape == (48, 64, 3)
        boxes, kept = on_canvas(np.array([[0, 0, width, height]], float), view)
        assert np.isfinite(boxes).all()
        assert ((boxes[kept][:, 2:] - boxes[kept][:, :2]) > 1).all()


def test_a_picture_decoded_smaller_lands_in_the_same_place(tmp_path: Path) -> None:
    pixels = rectangle((1600, 1200), (400, 200, 1200, 1000))
    path = save(pixels, tmp_path / "large.jpg", quality=95)
    view = Letterbox()(View.of((1600, 1200), (200, 200)), torch.Generator())
    loaded = load(path, view)
    assert loaded.shape == (150, 200, 3)  # an eighth, inside the decoder
    small, seen = render(loaded, view)
    full, _ = render(decode(path), view)
    assert np.abs(small.astype(int) - full).mean() < 1.5
    box, _ = on_canvas(np.array([[400, 200, 1200, 1000]], float), seen)
    assert np.abs(np.array(drawn_at(small)) - box[0]).max() <= 1


def test_shrinking_with_rotation_averages() -> None:
    checks = np.indices((400, 400)).sum(0) % 2 * 255
    pixels = np.repeat(checks[..., None], 3, 2).astype(np.uint8)
    view = View((400, 400), (50, 50), (50, 50)).then(scaling(0.125, 0.125) @ turned(1e-3, 0))
    canvas, _ = render(pixels, view)
    assert np.abs(canvas[5:-5, 5:-5].astype(int) - 127).max() <= 12  # skipped pixels would be 0 or 255


def test_boxes_that_leave_are_dropped_and_the_rest_is_clipped() -> None:
    boxes = np.array(
        [[0, 0, 20, 20], [15, 15, 35, 35], [28.5, 0, 48.5, 10], [29.5, 0, 30, 30], [40, 40, 50, 50]], float
    )
    clipped, kept = on_canvas(boxes, View.of((30, 30), (30, 30)))
    assert kept.tolist() == [True, True, False, False, False]  # whole, 56 %, 7.5 %, half a pixel wide, outside
    assert clipped[1].tolist() == [15, 15, 30, 30]
    assert clip(boxes, (30, 30)).max() == 30


@settings(max_examples=50, deadline=None)
@given(st.integers(30, 400), st.integers(30, 400), st.integers(0, 2**31))
def test_the_way_back_is_exact(width: int, height: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    view = View.of((width, height), (96, 64))
    for transform in (Letterbox(), HorizontalFlip(), Affine(scale=(0.4, 0.9), shift=0.0)):
        view = transform(view, generator)
    _, view = render(np.zeros((height, width, 3), np.uint8), view)
    boxes = np.array([[1.5, 2.25, width - 3, height - 1.125], [0, 0, width, height]])
    back = to_source(move(boxes, view.matrix), inverse(view.matrix), (width, height))
    assert np.abs(back - boxes).max() < 1e-6
    tensor = to_source(
        torch.from_numpy(move(boxes, view.matrix)).float(), torch.from_numpy(inverse(view.matrix)), (width, height)
    )
    assert torch.allclose(tensor, torch.from_numpy(boxes), atol=1e-3)


def test_no_boxes_are_no_trouble() -> None:
    boxes, kept = on_canvas(np.zeros((0, 4)), View.of((30, 30), (30, 30)))
    assert boxes.shape == (0, 4)
    assert kept.shape == (0,)
    assert to_source(torch.zeros(0, 4), np.eye(3), (5, 5)).shape == (0, 4)


def test_bytes_or_path_are_the_same(tmp_path: Path) -> None:
    pixels = noise(12, 12)
    assert np.array_equal(decode(encoded(pixels)), decode(save(pixels, tmp_path / "a.png")))

"""What holds for every transform of a single picture, and what the geometric ones draw."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.unit.data.augmented import EVERY, apart, plain, sampled, seeded
from tests.unit.data.pictures import noise, rectangle, smooth
from torso.data.scene import mixes
from torso.data.transforms import TRANSFORMS
from torso.data.transforms.compose import Joint
from torso.data.transforms.crops import CenterCrop
from torso.data.transforms.elastic import Distort, Elastic
from torso.data.transforms.geometry import Affine, Letterbox, Resize
from torso.data.transforms.motions import RandomScale, RandomShortSide, Rotation, Shear, Shift
from torso.data.transforms.perspective import Perspective, perspective
from torso.data.views import View, move_points

SIZE = (96, 80)
BOX = (34, 28, 62, 52)
CASES = {**EVERY, "perspective": {"p": 1.0}, "zoom_out": {"p": 1.0}, "elastic": {"alpha": 70.0}}


def made(name: str) -> list[Any]:
    """A transform with arguments it needs, its parts in its place; nothing where it edits no views."""
    part = TRANSFORMS[name]
    if name in ("joint", "compose", "random_apply", "one_of"):
        return [part([Resize(), Affine()])]
    if name != "preset" and (not isinstance(part, type) or issubclass(part, torch.nn.Module)):
        return []
    one = part(**CASES.get(name, {}))
    if mixes(one):
        return []
    return list(one.transforms) if isinstance(one, Joint) else [one]


EDITS = [name for name in TRANSFORMS if made(name)]
MOVING = [name for name in EDITS if name not in ("preset", "random_apply", "one_of", "joint", "compose", "decode")]


def drawn_at(canvas: np.ndarray) -> np.ndarray:
    """The box around what is more than half white."""
    ys, xs = np.nonzero(canvas[..., 0] > 127)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def viewed(name: str, seed: int) -> View:
    """What a transform does to a view."""
    view = plain(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), (110, 100))
    for one in made(name):
        view = one(view, seeded(seed))
    return view


def is_geometric(name: str) -> bool:
    """Whether a transform can move what a picture shows."""
    for seed in range(12):
        view = viewed(name, seed)
        if view.size != SIZE or not np.array_equal(view.matrix, np.eye(3)) or any(f.moves for f in view.filters):
            return True
    return False


def test_what_moves_a_picture_is_known() -> None:
    still = {name for name in MOVING if not is_geometric(name)}
    assert still >= {"color", "noise", "equalize", "random_erasing", "grid_mask"}
    moving = set(MOVING) - still
    assert moving >= {
        "letterbox",
        "rotation",
        "shear",
        "shift",
        "elastic",
        "perspective",
        "pad",
        "random_crop",
        "iou_crop",
    }


@pytest.mark.parametrize("name", [name for name in MOVING if is_geometric(name)])
@pytest.mark.part("transform/rotation", "transform/shear", "transform/shift", "transform/perspective")
@pytest.mark.part("transform/elastic", "transform/random_scale", "transform/random_crop", "transform/pad")
@pytest.mark.part("transform/iou_crop", "transform/zoom_out", "transform/warp_affine", "transform/random_short_side")
@pytest.mark.part("transform/affine", "transform/letterbox", "transform/auto_augment")
def test_boxes_stay_with_their_pixels(name: str) -> None:
    pixels = rectangle(SIZE, BOX)
    checked = 0
    for seed in range(150):
        view = viewed(name, seed)
        if not np.array_equal(view.color, np.eye(3, 4)) or not all(one.moves for one in view.filters):
            continue  # a policy drew another colour
        canvas, found = sampled(pixels, np.array([BOX], float), made(name), (110, 100), seed)
        height, width = canvas.shape[:2]
        if not len(found.boxes):
            continue
        box = found.boxes[0]
        if (box[:2] < 1).any() or (box[2:] > (width - 1, height - 1)).any() or (box[2:] - box[:2] < 5).any():
            continue  # cut at the edge
        # The fill of a letterbox is grey 114: below half. Acute corners never fill half of their last pixel.
        assert np.abs(drawn_at(canvas) - box).max() <= 1.6, seed
        checked += 1
        if checked == 15:
            break
    assert checked >= 5


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2), (40, 30)])
@pytest.mark.parametrize("name", EDITS)
def test_any_shape_survives(name: str, size: tuple[int, int]) -> None:
    pixels = noise(*size)
    boxes = np.array([[0, 0, *size], [size[0] / 4, 0, size[0] / 2, size[1]]], float)
    target = (64, 48)
    for seed in range(4):
        canvas, found = sampled(pixels, boxes, [*made(name), CenterCrop()], target, seed)
        assert canvas.shape == (48, 64, 3)
        assert np.isfinite(found.boxes).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= np.array([64, 48, 64, 48])).all()
        assert (found.boxes[:, 2:] - found.boxes[:, :2] > 1).all()


@pytest.mark.parametrize("name", EDITS)
def test_a_transform_is_a_function_of_its_generator(name: str) -> None:
    pixels, boxes = noise(*SIZE), np.array([BOX], float)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002 (the global one)
    one, two = (sampled(pixels.copy(), boxes, made(name), (110, 100), 7) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1].boxes, two[1].boxes)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert states[2] == random.getstate()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(MOVING), min_size=1, max_size=4), st.integers(0, 2**31), st.integers(1, 90))
def test_no_list_of_transforms_emits_a_box_that_is_none(names: list[str], seed: int, side: int) -> None:
    parts = [part for name in names for part in made(name)]
    width, height = side, max(91 - side, 1)
    boxes = np.random.default_rng(seed).uniform(0, 1, (6, 2, 2)) * (width, height)
    boxes = np.concatenate([boxes.min(1), boxes.max(1)], 1)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] > 0.01).all(1)]
    canvas, found = sampled(noise(width, height), boxes, [*parts, CenterCrop()], (56, 40), seed)
    assert canvas.shape == (40, 56, 3)
    assert ((found.boxes[:, 2:] - found.boxes[:, :2]) > 1).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.array([56, 40, 56, 40])).all()


def test_numbers_are_drawn_evenly() -> None:
    view = View.of((200, 100), (200, 100))
    angles, shifts, shears, scales, sizes = [], [], [], [], []
    for seed in range(400):
        turn = Rotation((-20, 40))(view, seeded(seed)).matrix
        angles.append(-np.degrees(np.arctan2(turn[1, 0], turn[0, 0])))
        shifts.append(Shift((0.1, 0.2))(view, seeded(seed)).matrix[:2, 2])
        shears.append(np.degrees(np.arctan(-Shear((-15, 5))(view, seeded(seed)).matrix[0, 1])))
        scales.append(RandomScale((0.5, 1.5))(view, seeded(seed)).size[0] / 200)
        sizes.append(min(RandomShortSide((50, 60, 70), None)(view, seeded(seed)).size))
    assert stats.kstest(angles, "uniform", (-20, 60)).pvalue > 0.01
    assert stats.kstest(shears, "uniform", (-15, 20)).pvalue > 0.01
    assert stats.kstest(scales, "uniform", (0.5, 1.0)).pvalue > 0.01
    moved = np.array(shifts)
    assert np.array_equal(moved, moved.round())
    assert moved.min(0).tolist() == [-20, -20]
    assert moved.max(0).tolist() == [20, 20]
    assert stats.chisquare(np.unique(sizes, return_counts=True)[1]).pvalue > 0.01


@pytest.mark.part("transform/perspective")
def test_a_perspective_takes_corners_to_corners() -> None:
    starts = np.array([[0, 0], [80, 0], [80, 60], [0, 60]], float)
    for seed in range(50):
        view = Perspective(0.6, p=1.0)(View.of((80, 60), (80, 60)), seeded(seed))
        ends = move_points(starts, view.matrix)
        inwards = np.abs(ends - starts) / (40, 30)
        assert (inwards <= 0.6 + 1e-9).all()
        assert (ends >= -1e-9).all()
        assert np.allclose(move_points(starts, perspective(starts, ends)), ends)
    assert Perspective(0.6, p=0.0)(View.of((80, 60), (80, 60)), seeded()).matrix.tolist() == np.eye(3).tolist()
    with pytest.raises(ValueError, match="distortion"):
        Perspective(1.0)


@pytest.mark.part("transform/elastic")
@pytest.mark.parametrize(("alpha", "sigma"), [(50.0, 5.0), (108.0, 6.0), (300.0, 10.0), (3.0, 1.0)])
def test_elastic_positions_go_where_their_pixels_go(alpha: float, sigma: float) -> None:
    one = Distort(alpha, sigma, seed=3)
    size = (90, 70)
    random_points = np.random.default_rng(0).uniform(12, 58, (200, 2))
    moved = one.points(random_points, size)
    field = one.field(size)
    # The pixel drawn at the new place is read from the old one.
    for old, new in zip(random_points, moved, strict=True):
        x, y = (new - 0.5).round().astype(int)
        assert np.abs(new + field[y, x] - old).max() < 1
    # A dot drawn at a position is found where the position went, and not on the other side.
    away = np.abs(field).sum(-1)[15:55, 15:75]
    y, x = np.unravel_index(away.argmax(), away.shape)
    spot = np.array([[x + 15.5, y + 15.5]]) + field[y + 15, x + 15]
    dots = np.zeros((size[1], size[0], 3), np.uint8)
    column, row = spot[0].astype(int)
    dots[row - 1 : row + 2, column - 1 : column + 2] = 255
    drawn = one.pixels(dots)[..., 0].astype(float)
    ys, xs = np.mgrid[: size[1], : size[0]] + 0.5
    mass = np.array([(drawn * xs).sum(), (drawn * ys).sum()]) / drawn.sum()
    centre = np.array([[column + 0.5, row + 0.5]])
    assert np.abs(mass - one.points(centre, size)[0]).max() < 1
    assert one.points(np.zeros((0, 2)), size).shape == (0, 2)


@pytest.mark.part("transform/elastic")
def test_elastic_never_folds() -> None:
    with pytest.raises(ValueError, match="fold"):
        Elastic(alpha=80, sigma=5)
    for seed in range(20):
        field = Distort(75.0, 5.0, seed).field((200, 200)).astype(float)
        across = 1 + np.diff(field[..., 0], axis=1)[:-1]
        down = 1 + np.diff(field[..., 1], axis=0)[:, :-1]
        cross = np.diff(field[..., 0], axis=0)[:, :-1] * np.diff(field[..., 1], axis=1)[:-1]
        assert (across * down - cross > 0).all()


def test_a_border_that_mirrors_stays_with_the_picture() -> None:
    pixels = smooth(40, 30)
    view = View((40, 30), (60, 50), (60, 50), border="symmetric")
    canvas, _ = sampled(pixels, np.zeros((0, 4)), [Letterbox()], (60, 50), 0)
    assert (canvas[0] == 114).all()
    from torso.data.render import render

    drawn = render(pixels, view.then(np.array([[1, 0, 10], [0, 1, 10], [0, 0, 1.0]])))[0]
    assert apart(drawn, np.pad(pixels, ((10, 10), (10, 10), (0, 0)), "symmetric")).max() == 0

"""Erased regions: where they lie, how often, how large, and what shows there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from torchvision.transforms import v2

from tests.unit.data.augmented import painted, plain, sampled, seeded
from tests.unit.data.pictures import noise
from torso.data.transforms.erase import Cutout, GridMask, HideAndSeek, RandomErasing, grid
from torso.data.transforms.geometry import HorizontalFlip, Letterbox, VerticalFlip
from torso.data.transforms.pixelwise import Posterize
from torso.data.views import View, changed

GREY = np.full((60, 80, 3), 90, np.uint8)


def hidden(pixels: np.ndarray, transform: object, seed: int = 0) -> np.ndarray:
    """Which pixels a transform has changed, ``[H, W]``."""
    return (painted(pixels, transform(plain(pixels), seeded(seed))) != pixels).any(-1)


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


@pytest.mark.part("transform/random_erasing")
def test_rectangles_are_as_large_as_those_of_torchvision() -> None:
    pixels = np.full((120, 160, 3), 7, np.uint8)
    ours, theirs = [], []
    their = v2.RandomErasing(1.0, (0.02, 0.33), (0.3, 3.3))
    image = torch.zeros(3, 120, 160)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for seed in range(400):
            x0, y0, x1, y1 = bounds(hidden(pixels, RandomErasing(1.0, fill=(0, 0, 0)), seed))
            ours.append((x1 - x0, y1 - y0, x0 / (160 - x1 + x0), y0 / (120 - y1 + y0)))
            drawn = their.make_params([image])
            free = (160 - drawn["w"], 120 - drawn["h"])
            theirs.append((drawn["w"], drawn["h"], drawn["j"] / free[0], drawn["i"] / free[1]))
    for one, two in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        assert stats.ks_2samp(one, two).pvalue > 0.01
    width, height = np.array(ours).T[:2]
    assert (np.abs(width * height / 19200 - 0.175) < 0.165).all()  # rounding to whole pixels moves it a little
    assert (height / width > 0.28).all()
    assert (height / width < 3.6).all()


@pytest.mark.part("transform/random_erasing")
def test_what_shows_instead() -> None:
    for fill in ((0, 0, 0), (124, 116, 104), (255, 255, 255)):
        canvas = painted(GREY, RandomErasing(1.0, fill=fill)(plain(GREY), seeded(3)))
        changed_to = np.unique(canvas[(canvas != GREY).any(-1)], axis=0)
        assert changed_to.tolist() == [list(fill)]
    canvas = painted(GREY, RandomErasing(1.0, scale=(0.3, 0.33))(plain(GREY), seeded(3)))
    found = canvas[(canvas != GREY).any(-1)]
    assert stats.kstest(found.ravel() / 256, "uniform").pvalue > 0.001
    assert stats.spearmanr(found[:, 0], found[:, 1]).pvalue > 0.001  # the channels have nothing in common
    other = painted(GREY, RandomErasing(1.0, scale=(0.3, 0.33))(plain(GREY), seeded(4)))
    assert not np.array_equal(canvas, other)


@pytest.mark.part("transform/random_erasing")
def test_inside_of_each_object() -> None:
    boxes = np.array([[5, 5, 35, 30], [40, 20, 78, 58]], float)
    times = 0
    for seed in range(40):
        view = RandomErasing(0.5, (0.2, 0.4), where="objects", fill=(0, 0, 0))(
            changed(plain(GREY), boxes=boxes), seeded(seed)
        )
        mask = (painted(GREY, view) != GREY).any(-1)
        inside = np.zeros_like(mask)
        for x0, y0, x1, y1 in boxes.astype(int):
            inside[y0:y1, x0:x1] = True
            share = mask[y0:y1, x0:x1].mean()
            assert share == 0 or 0.15 < share < 0.45
            times += share > 0
        assert not (mask & ~inside).any()
    assert 20 < times < 60  # half of eighty
    # Through the loader's way the objects are known, and both kinds come together.
    canvas, found = sampled(GREY, boxes, [RandomErasing(1.0, where="both", fill=(0, 0, 0))], (80, 60))
    assert (canvas == 0).any()
    assert found.boxes.tolist() == boxes.tolist()


def test_erasures_follow_what_comes_after() -> None:
    pixels = noise(80, 60)
    erased = hidden(pixels, RandomErasing(1.0, fill=(1, 2, 3)), 5)
    canvas, _ = sampled(
        pixels,
        np.zeros((0, 4)),
        [RandomErasing(1.0, fill=(1, 2, 3)), HorizontalFlip(1.0), VerticalFlip(1.0)],
        (80, 60),
        5,
    )
    canvas_alone, _ = sampled(
        pixels, np.zeros((0, 4)), [Letterbox(), HorizontalFlip(1.0), VerticalFlip(1.0)], (80, 60), 5
    )
    assert np.array_equal((canvas != canvas_alone).any(-1), erased[::-1, ::-1])


def test_erasures_and_filters_keep_their_order() -> None:
    pixels = np.full((60, 80, 3), 0b10101010, np.uint8)
    erase, posterize = RandomErasing(1.0, fill=(99, 99, 99)), Posterize(2, 1.0)
    first, _ = sampled(pixels, np.zeros((0, 4)), [erase, posterize], (80, 60))
    last, _ = sampled(pixels, np.zeros((0, 4)), [posterize, erase], (80, 60))
    assert set(np.unique(first)) == {0b10000000, 0b01000000}
    assert set(np.unique(last)) == {0b10000000, 99}


@pytest.mark.part("transform/cutout")
def test_cutout_is_a_square_that_may_leave_the_picture() -> None:
    sides, cut = [], 0
    rows = np.zeros(60)
    for seed in range(300):
        mask = hidden(GREY, Cutout(16), seed)
        x0, y0, x1, y1 = bounds(mask)
        assert mask[y0:y1, x0:x1].all()
        assert mask.sum() == (x1 - x0) * (y1 - y0)
        whole = x0 > 0 and x1 < 80 and y0 > 0 and y1 < 60
        assert (x1 - x0, y1 - y0) == (16, 16) if whole else max(x1 - x0, y1 - y0) <= 16
        cut += (x1 - x0, y1 - y0) != (16, 16)
        sides.append(x1 - x0)
        rows += mask.any(1)
        assert (painted(GREY, Cutout(16)(plain(GREY), seeded(seed)))[mask] == 0).all()
    assert min(sides) >= 8  # its centre lies in the picture
    # Centres are even over the picture: 1 - 65/80 * 45/60 of the squares are cut at an edge.
    assert abs(cut / 300 - 0.39) < 0.1
    assert hidden(GREY, Cutout(8, count=3), 1).sum() > 100


@pytest.mark.part("transform/hide_and_seek")
@settings(max_examples=30, deadline=None)
@given(st.sampled_from([7, 16, 20]), st.floats(0.1, 0.9), st.integers(0, 2**31))
def test_hide_and_seek_hides_whole_patches(size: int, p: float, seed: int) -> None:
    mask = hidden(GREY, HideAndSeek((size,), p), seed)
    shares = []
    for y in range(0, 60, size):
        for x in range(0, 80, size):
            patch = mask[y : y + size, x : x + size]
            assert patch.all() or not patch.any()
            shares.append(bool(patch.all()))
    assert stats.binomtest(sum(shares), len(shares), p).pvalue > 1e-4
    shown = painted(GREY, HideAndSeek((size,), p)(plain(GREY), seeded(seed)))
    assert (shown[mask] == (124, 116, 104)).all()


@pytest.mark.part("transform/hide_and_seek")
def test_hide_and_seek_draws_its_patches_and_sometimes_none() -> None:
    none = sum(not hidden(GREY, HideAndSeek((0, 16, 32), 0.9), seed).any() for seed in range(300))
    assert stats.binomtest(none, 300, 1 / 3).pvalue > 1e-3


@pytest.mark.part("transform/grid_mask")
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.6, 0.8])
def test_a_grid_leaves_the_share_of_the_paper(ratio: float) -> None:
    # Equation 3: k = 1 - (1 - r)^2 = 2 r - r^2 of the picture stays, whatever d, offset and angle are.
    pixels = np.full((600, 600, 3), 90, np.uint8)
    for d, offset, angle in ((30, (0, 0), 0), (40, (7, 31), 0), (50, (3, 9), 33), (75, (60, 1), 200)):
        view = plain(pixels).erasing(grid((600, 600), d, ratio, offset, angle), (0, 0, 0))
        kept = (painted(pixels, view) == 90).all(-1).mean()
        assert abs(kept - (2 * ratio - ratio**2)) < 0.03, (d, angle)


@pytest.mark.part("transform/grid_mask")
def test_the_squares_of_a_grid() -> None:
    squares = grid((600, 600), 40, 0.6, (11, 23), 0)
    low, high = squares.min(1), squares.max(1)
    assert np.allclose(high - low, 40 * 0.4)
    assert np.allclose((low - (311, 323)) / 40, ((low - (311, 323)) / 40).round())
    mask = (painted(GREY, plain(GREY).erasing(grid((80, 60), 20, 0.5, (0, 0), 0), (0, 0, 0))) == 0).all(-1)
    assert ndimage.label(mask)[1] == 12
    turned = grid((600, 600), 40, 0.6, (0, 0), 30)
    sides = np.roll(turned, -1, 1) - turned
    angles = np.degrees(np.arctan2(sides[..., 1], sides[..., 0])) % 90
    assert np.allclose(angles, 30)
    assert np.allclose(np.linalg.norm(sides, axis=-1), 16)


@pytest.mark.part("transform/grid_mask")
def test_a_grid_is_drawn_from_its_ranges() -> None:
    view = View.of((224, 224), (224, 224))
    units, angles, none = [], [], 0
    for seed in range(300):
        drawn = GridMask((96, 224), 0.6, (0, 360), p=0.7)(view, seeded(seed))
        if not drawn.erased:
            none += 1
            continue
        side = drawn.erased[0].polygons[0, 1] - drawn.erased[0].polygons[0, 0]
        units.append(np.hypot(*side) / 0.4)
        angles.append(np.degrees(np.arctan2(side[1], side[0])) % 360)
    assert stats.binomtest(none, 300, 0.3).pvalue > 1e-3
    assert 95.999 < min(units) < 104
    assert 216 < max(units) <= 224.001
    assert stats.kstest(units, "uniform", (96, 128)).pvalue > 0.01
    assert stats.kstest(angles, "uniform", (0, 360)).pvalue > 0.01

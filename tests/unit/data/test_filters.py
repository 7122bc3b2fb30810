"""Pixel operations: that each happens as often as asked, and what torchvision cannot be asked about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.unit.data.augmented import filtered, painted, plain, sampled, seeded
from tests.unit.data.pictures import noise, smooth
from torso.data.transforms import filters, filters_noise, photometric, pixelwise
from torso.data.transforms.color import Color
from torso.data.views import View

VIEW = View.of((20, 20), (20, 20))
CHANCES = [
    pixelwise.Grayscale, pixelwise.Invert, pixelwise.Posterize, pixelwise.Solarize, pixelwise.AutoContrast,
    pixelwise.Equalize, pixelwise.Sharpness, pixelwise.Blur, pixelwise.MotionBlur, pixelwise.Noise, pixelwise.Jpeg,
]  # fmt: skip


@pytest.mark.part("transform/grayscale", "transform/invert", "transform/posterize", "transform/solarize")
@pytest.mark.part("transform/autocontrast", "transform/equalize", "transform/sharpness", "transform/blur")
@pytest.mark.part("transform/motion_blur", "transform/noise", "transform/jpeg")
@pytest.mark.parametrize("part", CHANCES)
def test_it_happens_with_its_probability(part: Any) -> None:
    def happens(p: float, seed: int) -> bool:
        view = part(p=p)(VIEW, seeded(seed))
        return bool(view.filters) or not np.array_equal(view.color, VIEW.color)

    assert all(happens(1.0, seed) for seed in range(20))
    assert not any(happens(0.0, seed) for seed in range(20))
    assert stats.binomtest(sum(happens(0.3, seed) for seed in range(300)), 300, 0.3).pvalue > 1e-3


def test_what_is_drawn_lies_in_its_range() -> None:
    sigmas = [pixelwise.Blur((0.5, 2.0), p=1.0)(VIEW, seeded(seed)).filters[0].sigma for seed in range(200)]
    assert stats.kstest(sigmas, "uniform", (0.5, 1.5)).pvalue > 0.01
    sizes = {pixelwise.MotionBlur((3, 9), p=1.0)(VIEW, seeded(seed)).filters[0].size for seed in range(100)}
    assert sizes == {3, 5, 7, 9}
    qualities = [pixelwise.Jpeg((40, 43), p=1.0)(VIEW, seeded(seed)).filters[0].quality for seed in range(400)]
    assert stats.chisquare(np.unique(qualities, return_counts=True)[1]).pvalue > 0.01
    assert set(qualities) == {40, 41, 42, 43}


@pytest.mark.part("transform/motion_blur")
def test_motion_smears_along_its_line_only() -> None:
    dot = np.zeros((31, 31, 3), np.uint8)
    dot[15, 15] = 240
    for angle, axis in ((0, 1), (90, 0)):
        smeared = filtered(dot, filters.MotionBlur(9, angle))[..., 0]
        ys, xs = np.nonzero(smeared)
        along, across = (xs, ys) if axis == 1 else (ys, xs)
        assert sorted(along) == list(range(11, 20))
        assert set(across) == {15}
        assert set(smeared[smeared > 0]) == {27}  # 240 / 9
    slanted = filtered(dot, filters.MotionBlur(9, 45))[..., 0]
    ys, xs = np.nonzero(slanted)
    assert (xs == ys).all()
    assert len(xs) > 4


@pytest.mark.part("transform/noise")
def test_noise_has_the_strength_asked() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    gaussian = filtered(grey, filters_noise.Noise("gaussian", 0.1, 5)).astype(float) - 128
    assert abs(gaussian.std() - 25.5) < 0.4
    assert abs(gaussian.mean()) < 0.4
    assert np.abs(np.corrcoef(gaussian.reshape(-1, 3).T) - np.eye(3)).max() < 0.02
    salted = filtered(grey, filters_noise.Noise("salt_pepper", 0.1, 5))
    assert abs((salted == 255).all(-1).mean() - 0.05) < 0.005
    assert abs((salted == 0).all(-1).mean() - 0.05) < 0.005
    assert ((salted == 128).all(-1) | (salted == 0).all(-1) | (salted == 255).all(-1)).all()
    # Poisson: of 100 photons for white, 128/255 of them come on average, with that variance.
    photons = filtered(grey, filters_noise.Noise("poisson", 0.01, 5)) / 255 * 100
    assert abs(photons.mean() - 100 * 128 / 255) < 0.2
    assert abs(photons.var() - 100 * 128 / 255) < 2
    assert (filtered(grey * 0, filters_noise.Noise("poisson", 0.01, 5)) == 0).all()


@pytest.mark.part("transform/noise")
def test_noise_belongs_to_the_sample() -> None:
    pixels, none = smooth(40, 30), np.zeros((0, 4))
    kinds = ("gaussian", "salt_pepper", "poisson")
    for kind in kinds:
        one, two, three = (
            sampled(pixels, none, [pixelwise.Noise(kind, p=1.0)], (40, 30), seed)[0] for seed in (1, 1, 2)
        )
        assert np.array_equal(one, two)
        assert not np.array_equal(one, three)


@pytest.mark.part("transform/photometric")
def test_each_step_of_photometric_comes_half_of_the_time() -> None:
    kinds: dict[str, int] = {}
    last = 0
    for seed in range(400):
        names = [type(one).__name__ for one in photometric.Photometric()(VIEW, seeded(seed)).filters]
        for name in names:
            kinds[name] = kinds.get(name, 0) + 1
        if {"Contrast", "Saturate"} <= set(names):
            last += 1 if names.index("Contrast") > names.index("Saturate") else -1
        wanted = [name for name in ("Brighten", "Saturate", "Hue", "Tint") if name in names]
        assert [name for name in names if name != "Contrast"] == wanted
    assert set(kinds) == {"Brighten", "Contrast", "Saturate", "Hue", "Tint"}
    assert all(stats.binomtest(count, 400, 0.5).pvalue > 1e-3 for count in kinds.values())
    assert abs(last) < 40


@pytest.mark.part("transform/color_jitter")
def test_colour_jitter_comes_in_every_order() -> None:
    orders = set()
    factors = []
    for seed in range(300):
        steps = photometric.ColorJitter(0.4, 0.4, 0.4, 0.1)(VIEW, seeded(seed)).filters
        orders.add(tuple(type(one).__name__ for one in steps))
        factors += [one.factor for one in steps if isinstance(one, filters.Contrast)]
    assert len(orders) == 24
    assert stats.kstest(factors, "uniform", (0.6, 0.8)).pvalue > 0.01
    assert not photometric.ColorJitter(0, 0, 0, 0)(VIEW, seeded()).filters


def test_a_colour_matrix_after_a_filter_comes_after_it() -> None:
    pixels = noise(30, 20)
    equalize = filters.Equalize()
    view = plain(pixels).filtered(equalize).tinted(pixelwise.inverting())
    assert np.array_equal(painted(pixels, view), 255 - filtered(pixels, equalize))
    view = plain(pixels).tinted(pixelwise.inverting()).filtered(equalize)
    assert np.array_equal(painted(pixels, view), filtered(255 - pixels, equalize))


@pytest.mark.part("transform/color_jitter", "transform/color")
def test_the_fast_colour_is_near_the_exact_one_in_the_middle_of_the_range() -> None:
    pixels = np.clip(smooth(40, 30), 90, 160)
    exact = painted(pixels, photometric.distorted(plain(pixels), 1.1, None, 1.2, None, True, None))
    from torso.data.transforms.color import color_matrix

    fast = painted(pixels, plain(pixels).tinted(color_matrix(brightness=1.1, saturation=1.2)))
    assert np.abs(exact.astype(int) - fast).max() <= 2
    assert Color.fits == photometric.ColorJitter.fits


def test_filters_leave_positions_alone() -> None:
    points = np.array([[1.5, 2.5]])
    for one in (filters.Equalize(), filters.Blur(3, 1.0), filters_noise.Noise("gaussian", 0.1, 1)):
        assert not one.moves
        assert one.points(points, (5, 5)) is points
        plane = np.zeros((5, 5), np.uint8)
        assert one.plane(plane) is plane

"""The resizing formulas against torch, and where Pillow and OpenCV follow others."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from torso.nn.resize import bicubic, bilinear, cubic, nearest, places, to_input

SIZES = [(7, 5), (14, 10), (13, 11), (21, 4), (3, 2), (1, 1), (50, 31)]  # of a map of 7 x 5: as it is, up, down, mixed


def maps(height: int = 7, width: int = 5) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def check_torch(ours: Callable[[Tensor, tuple[int, int]], Tensor], size: tuple[int, int], **options: object) -> None:
    """Outputs and gradients."""
    results = []
    for function in (lambda x: ours(x, size), lambda x: functional.interpolate(x, size, **options)):  # type: ignore[arg-type]
        x = maps().requires_grad_()
        y = function(x)
        (y * torch.arange(y.numel()).reshape(y.shape)).sum().backward()
        results.append((y.detach(), x.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def pillow(row: Tensor, size: tuple[int, int], how: Image.Resampling) -> Tensor:
    picture = Image.fromarray(row.numpy().astype(np.float32))
    return torch.from_numpy(np.asarray(picture.resize(size[::-1], how)).copy())


def opencv(row: Tensor, size: tuple[int, int], how: int) -> Tensor:
    return torch.from_numpy(cv2.resize(row.numpy().astype(np.float32), size[::-1], interpolation=how))


@pytest.mark.part("resize/nearest")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nearest_is_torchs(size: tuple[int, int]) -> None:
    check_torch(nearest, size, mode="nearest")
    check_torch(lambda x, size: nearest(x, size, "exact"), size, mode="nearest-exact")


@pytest.mark.part("resize/nearest")
def test_four_pixels_to_eight_by_three_rules() -> None:
    row = torch.arange(4.0).reshape(1, 4)
    found = {rule: nearest(row, (1, 8), rule)[0].int().tolist() for rule in ("floor", "exact", "round")}  # type: ignore[arg-type]
    assert found["round"] == [
        0,
        0,
        1,
        2,
        2,
        2,
        3,
        3,
    ]  # Python rounds 0.5 to 0, 1.5 and 2.5 to 2, and 3.5 to 4: cut to 3
    assert found["exact"] == found["floor"] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert functional.interpolate(row[None], 8, mode="nearest-exact")[0, 0].int().tolist() == found["exact"]


@pytest.mark.part("resize/nearest")
@pytest.mark.parametrize("size", [(14, 10), (3, 2), (13, 11), (5, 3)], ids=str)
def test_nearest_of_pillow_is_exact_and_opencv_has_both(size: tuple[int, int]) -> None:
    row = maps()[0, 0]
    exact, floor = (nearest(row, size, rule).float() for rule in ("exact", "floor"))  # type: ignore[arg-type]
    assert torch.equal(pillow(row, size, Image.Resampling.NEAREST), exact)
    assert torch.equal(opencv(row, size, cv2.INTER_NEAREST), floor)
    assert torch.equal(opencv(row, size, cv2.INTER_NEAREST_EXACT), exact)
    assert torch.equal(exact, floor) is (size == (14, 10))


@pytest.mark.part("resize/bilinear")
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bilinear_is_torchs(size: tuple[int, int], align_corners: bool) -> None:
    check_torch(lambda x, size: bilinear(x, size, align_corners), size, mode="bilinear", align_corners=align_corners)


@pytest.mark.part("resize/bicubic")
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bicubic_is_torchs(size: tuple[int, int], align_corners: bool) -> None:
    check_torch(lambda x, size: bicubic(x, size, align_corners), size, mode="bicubic", align_corners=align_corners)


@pytest.mark.part("resize/bilinear", "resize/bicubic")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_antialias_is_torchs_with_another_cubic(size: tuple[int, int]) -> None:
    check_torch(lambda x, size: bilinear(x, size, antialias=True), size, mode="bilinear", antialias=True)
    check_torch(lambda x, size: bicubic(x, size, antialias=True), size, mode="bicubic", antialias=True)
    check_torch(lambda x, size: bicubic(x, size, antialias=True, a=-0.5), size, mode="bicubic", antialias=True)


@pytest.mark.part("resize/bilinear", "resize/bicubic")
@pytest.mark.parametrize("size", [(14, 10), (3, 2), (13, 4)], ids=str)
def test_pillow_is_torch_with_antialias(size: tuple[int, int]) -> None:
    row = maps()[0, 0]
    for how, function in ((Image.Resampling.BILINEAR, bilinear), (Image.Resampling.BICUBIC, bicubic)):
        torch.testing.assert_close(pillow(row, size, how), function(row, size, antialias=True).float())
    sharp = bicubic(row, size).float()  # a = -0.75, kernel not widened, edges repeated
    assert float((pillow(row, size, Image.Resampling.BICUBIC) - sharp).abs().max()) > 0.02


@pytest.mark.part("resize/bilinear", "resize/bicubic")
@pytest.mark.parametrize("size", [(14, 10), (3, 2), (13, 4)], ids=str)
def test_opencv_is_torch_without_antialias(size: tuple[int, int]) -> None:
    row = maps()[0, 0]
    for how, function in ((cv2.INTER_LINEAR, bilinear), (cv2.INTER_CUBIC, bicubic)):
        torch.testing.assert_close(opencv(row, size, how), function(row, size).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.part("resize/bilinear", "resize/bicubic")
def test_without_antialias_a_fine_pattern_survives_as_another_one() -> None:
    """Stripes of one pixel, made 8 / 3 times smaller: grey is the truth."""
    stripes = (torch.arange(48) % 2).double().expand(48, 48)
    for function in (bilinear, bicubic):
        assert float(function(stripes, (18, 18)).std()) > 0.15
        assert float(function(stripes, (18, 18), antialias=True)[:, 2:-2].std()) < 0.03


@pytest.mark.part("resize/bicubic")
@pytest.mark.parametrize("a", [-0.75, -0.5])
def test_the_cubic_kernel(a: float) -> None:
    """1 at 0, 0 at the other pixels, no jump; four weights sum to 1; slope a at distance 1."""
    at = torch.tensor([0.0, 1, 2, 3, 0.5, 1.5], dtype=torch.float64)
    assert cubic(at, a).tolist() == pytest.approx([1, 0, 0, 0, 0.5 - a / 8, a / 8])
    between = torch.linspace(0, 1, 11, dtype=torch.float64)
    weights = torch.stack([cubic(between - step, a) for step in (-1, 0, 1, 2)])
    torch.testing.assert_close(weights.sum(0), torch.ones(11, dtype=torch.float64))
    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(cubic(one * (1 - 1e-9), a), one)[0].item() == pytest.approx(a, abs=1e-6)
    assert torch.autograd.grad(cubic(one * (1 + 1e-9), a), one)[0].item() == pytest.approx(a, abs=1e-6)


@pytest.mark.part("resize/bicubic")
def test_only_keys_own_slope_keeps_parabolas() -> None:
    """With a = -0.5 a parabola is met exactly; with -0.75 only straight lines are, up to its overshoot."""
    x = torch.arange(16, dtype=torch.float64).square().reshape(1, 16)
    at = places(16, 32)
    errors = {a: (bicubic(x, (1, 32), a=a)[0] - at.square())[8:-8].abs().max() for a in (-0.5, -0.75)}
    assert errors[-0.5] < 1e-12
    assert errors[-0.75] > 0.04


@pytest.mark.part("resize/bilinear", "resize/bicubic", "resize/nearest")
def test_a_plain_picture_stays_plain_and_the_same_size_changes_nothing() -> None:
    x = maps()
    for function in (nearest, bilinear, bicubic):
        torch.testing.assert_close(function(torch.full_like(x, 7), (11, 3)), torch.full((2, 3, 11, 3), 7.0).double())
        torch.testing.assert_close(function(x, (7, 5)), x)


def test_corners_and_antialias_do_not_go_together() -> None:
    for function in (bilinear, bicubic):
        with pytest.raises(ValueError, match="leave align_corners out"):
            function(maps(), (3, 3), align_corners=True, antialias=True)


@pytest.mark.part("resize/to_input")
@pytest.mark.parametrize("size", [(56, 40), (55, 39), (200, 7)], ids=str)
def test_maps_come_back_to_the_size_of_the_picture(size: tuple[int, int]) -> None:
    x = maps()
    torch.testing.assert_close(to_input(x, size), bilinear(x, size))
    torch.testing.assert_close(to_input(x, size), functional.interpolate(x, size, mode="bilinear"))


@pytest.mark.part("resize/to_input")
def test_it_is_fcns_bilinear_transposed_convolution_away_from_the_border() -> None:
    stride = 4
    up = nn.ConvTranspose2d(1, 1, 2 * stride, stride, padding=stride // 2, bias=False).double()
    tent = 1 - (torch.arange(2 * stride).double() - stride + 0.5).abs() / stride
    with torch.no_grad():
        up.weight.copy_(torch.outer(tent, tent))
    x = maps()[:, :1]
    inside = (..., slice(stride, -stride), slice(stride, -stride))
    torch.testing.assert_close(up(x)[inside], to_input(x, (7 * stride, 5 * stride))[inside])

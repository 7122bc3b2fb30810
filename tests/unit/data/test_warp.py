"""A given affine warp against OpenCV and torch, and the normalisations of a device against numpy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms import v2

from tests.unit.data.augmented import apart, painted, plain
from tests.unit.data.pictures import noise, smooth
from torso.data.transforms.intensity import NormalizeRobust, ToTensor, percentile
from torso.data.transforms.warp import WarpAffine, warp_affine
from torso.data.views import scaling, shifting

MATRICES = [
    (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    (1.0, 0.0, 7.0, 0.0, 1.0, -3.0),
    (0.9, 0.2, 3.5, -0.15, 1.1, 1.25),
    (-1.0, 0.0, 60.0, 0.0, 1.0, 0.0),
]


@pytest.mark.part("transform/warp_affine")
@pytest.mark.parametrize("matrix", MATRICES)
def test_warps_equal_opencv(matrix: tuple[float, ...]) -> None:
    pixels = smooth(60, 44)
    full = np.array([*matrix, 0, 0, 1]).reshape(3, 3)
    # OpenCV counts from pixel centres.
    centred = (shifting(-0.5, -0.5) @ full @ shifting(0.5, 0.5))[:2]
    expected = cv2.warpAffine(pixels, centred, (60, 44), flags=cv2.INTER_LINEAR)
    view = WarpAffine(matrix, fill=0)(plain(pixels), torch.Generator())
    assert apart(painted(pixels, view), expected).max() <= 1
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    warped = warp_affine(images, torch.tensor(matrix).view(2, 3))
    assert apart(warped[0].permute(1, 2, 0).round().numpy(), expected).max() <= 1


@pytest.mark.part("transform/warp_affine")
def test_warps_equal_torch_and_take_a_matrix_for_each_picture() -> None:
    images = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    half = torch.tensor([[0.5, 0, 0], [0, 0.5, 0]])
    shrunk = warp_affine(images, half, (15, 10))
    expected = functional.interpolate(images, size=(10, 15), mode="bilinear", align_corners=False)
    torch.testing.assert_close(shrunk, expected, atol=1e-5, rtol=0)
    matrices = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[1.0, 0, 4], [0, 1, 0]]])
    moved = warp_affine(images, matrices, fill=0.25)
    torch.testing.assert_close(moved[0], images[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[1, :, :, 4:], images[1, :, :, :-4], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[1, :, :, :4], torch.full((3, 20, 4), 0.25))
    nearest = warp_affine(images, torch.tensor([[1.0, 0, 0.3], [0, 1, 0]]), mode="nearest")
    assert torch.equal(nearest, images)


@pytest.mark.part("transform/warp_affine")
def test_gradients_pass_through_a_warp() -> None:
    images = torch.rand(1, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    matrix = torch.tensor([[0.9, 0.1, 0.3], [-0.1, 1.1, 0.2]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: warp_affine(x, matrix, (5, 4)), images)


@pytest.mark.part("transform/to_tensor")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32])
def test_to_tensor_equals_torchvision(dtype: torch.dtype) -> None:
    images = torch.from_numpy(noise(9, 7)).permute(2, 0, 1)[None].to(dtype)
    torch.testing.assert_close(ToTensor()(images), v2.functional.to_dtype(images, torch.float32, scale=True))
    batch = images.contiguous(memory_format=torch.channels_last)
    assert ToTensor()(batch).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.part("transform/normalize_robust")
@pytest.mark.parametrize("each", ["channel", "picture"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_percentiles_equal_numpy(each: str, dtype: type) -> None:
    random = np.random.default_rng(0)
    scans = random.gamma(2.0, 20.0, (3, 4, 31, 17)).clip(0, 255).astype(dtype)
    scans[0, 0, 0, 0] = scans.max()  # a wild value
    axes = (2, 3) if each == "channel" else (1, 2, 3)
    low, high = (np.percentile(scans, q, axis=axes, keepdims=True) for q in (2.0, 97.5))
    expected = np.clip((scans - low) / (high - low), 0, 1)
    ours = NormalizeRobust("percentile", 2.0, 97.5, each)(torch.from_numpy(scans))
    assert ours.dtype == torch.float32
    assert np.abs(ours.numpy() - expected).max() < 1e-5
    mean, std = scans.mean(axes, keepdims=True), scans.std(axes, keepdims=True)
    standard = NormalizeRobust("zscore", each=each)(torch.from_numpy(scans))
    assert np.abs(standard.numpy() - (scans - mean) / std).max() < 1e-3


@pytest.mark.part("transform/normalize_robust")
def test_an_even_picture_is_no_trouble() -> None:
    flat = torch.full((2, 3, 5, 5), 7, dtype=torch.uint8)
    for by in ("percentile", "zscore"):
        assert torch.equal(NormalizeRobust(by)(flat), torch.zeros(2, 3, 5, 5))
    assert torch.equal(NormalizeRobust()(flat[..., :1, :1]), torch.zeros(2, 3, 1, 1))
    with pytest.raises(ValueError, match="low < high"):
        NormalizeRobust(low=60, high=40)


def test_percentiles_at_the_ends() -> None:
    values = torch.rand(3, 11, generator=torch.Generator().manual_seed(1))
    for q in (0.0, 1.0, 10.0, 33.3, 50.0, 100.0):
        expected = np.percentile(values.numpy(), q, axis=-1)
        assert np.abs(percentile(values, q).numpy() - expected).max() < 1e-6


def test_a_scale_has_its_corner_at_the_edge_of_a_pixel() -> None:
    pixels = noise(8, 6)
    view = WarpAffine((2.0, 0, 0, 0, 2.0, 0))(plain(pixels), torch.Generator())
    assert np.array_equal(view.matrix, scaling(2, 2))
    corner = painted(pixels, view)[0, 0]
    assert np.array_equal(corner, pixels[0, 0])  # not a mixture with its neighbours

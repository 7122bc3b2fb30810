"""Histograms of oriented gradients against scikit-image, and what they promise beside."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torso.nn.hog import HOG, gradients
from torso.testing import check_module

NORMS = {"l1": "L1", "l1_sqrt": "L1-sqrt", "l2": "L2", "l2_hys": "L2-Hys"}


def peer(images: np.ndarray, hog: HOG) -> np.ndarray:
    """scikit-image, one picture ``[3, H, W]`` after the other: ``[B, rows, columns, block, block, bins]``."""
    from skimage import feature

    found = [
        feature.hog(
            picture,
            orientations=hog.orientations,
            pixels_per_cell=(hog.cell, hog.cell),
            cells_per_block=(hog.block, hog.block),
            block_norm=NORMS[hog.norm],
            transform_sqrt=hog.root,
            feature_vector=False,
            channel_axis=0,
        )
        for picture in images
    ]
    return np.stack(found)


def check_equal(images: np.ndarray, hog: HOG) -> None:
    wanted = torch.from_numpy(peer(images, hog))
    wanted = wanted.flatten(3).permute(0, 3, 1, 2)  # [B, block * block * bins, rows, columns]
    # scikit-image takes and gives float64, but sums a cell in float32.
    torch.testing.assert_close(hog(torch.from_numpy(images)), wanted, rtol=1e-6, atol=1e-7)


def pixel_by_pixel(picture: np.ndarray, hog: HOG) -> np.ndarray:
    """The histograms ``[bins, rows, columns]`` of one picture ``[3, H, W]``, with an arc tangent."""
    _, height, width = picture.shape
    found = np.zeros((hog.orientations, height // hog.cell, width // hog.cell))
    for row in range(height // hog.cell * hog.cell):
        for column in range(width // hog.cell * hog.cell):
            best = (0.0, 0.0)
            for channel in picture:
                y = channel[row + 1, column] - channel[row - 1, column] if 0 < row < height - 1 else 0.0
                x = channel[row, column + 1] - channel[row, column - 1] if 0 < column < width - 1 else 0.0
                best = max(best, (x, y), key=lambda each: np.hypot(*each))
            angle = np.rad2deg(np.arctan2(best[1], best[0])) % 180
            place = int(angle // (180 / hog.orientations)) % hog.orientations
            found[place, row // hog.cell, column // hog.cell] += np.hypot(*best) / hog.cell**2
    return found


@pytest.mark.part("recipe/hog_svm")
@pytest.mark.parametrize("norm", sorted(NORMS))
@pytest.mark.parametrize(("orientations", "cell", "block"), [(9, 8, 2), (8, 6, 3), (12, 5, 1), (1, 4, 2)])
def test_blocks_equal_scikit_image_in_float64(norm, orientations, cell, block):
    images = np.random.default_rng(0).uniform(0, 255, (2, 3, 53, 67))
    check_equal(images, HOG(orientations, cell, block, norm))


@pytest.mark.part("recipe/hog_svm")
def test_blocks_equal_scikit_image_on_roots_of_pixels():
    check_equal(np.random.default_rng(3).uniform(0, 255, (2, 3, 40, 41)), HOG(root=True))


@pytest.mark.part("recipe/hog_svm")
def test_blocks_equal_scikit_image_on_whole_numbers_and_flat_regions():
    # Gradients exactly on the border of a bin, channels that tie, and nothing at all.
    images = np.random.default_rng(1).integers(0, 4, (2, 3, 64, 48)).astype(np.float64)
    images[:, :, 20:44] = images[:, :1, 20:44]
    images[1, :, :30] = 7
    check_equal(images, HOG())


@pytest.mark.part("recipe/hog_svm")
def test_cells_equal_a_walk_over_pixels_to_the_last_digits():
    picture = np.random.default_rng(2).uniform(0, 255, (3, 26, 35))
    hog = HOG(orientations=7, cell=6)
    x, y = gradients(torch.from_numpy(picture)[None])
    wanted = torch.from_numpy(pixel_by_pixel(picture, hog))
    torch.testing.assert_close(hog.cells(x, y)[0], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.part("recipe/hog_svm")
def test_every_direction_falls_into_its_bin_and_its_opposite_into_the_same():
    hog = HOG(orientations=9, cell=4, block=1, norm="l1")
    for degrees in range(3, 360, 8):
        angle = torch.tensor(float(degrees), dtype=torch.float64).deg2rad()
        y, x = torch.meshgrid(*[torch.arange(12, dtype=torch.float64)] * 2, indexing="ij")
        ramp = x * angle.cos() + y * angle.sin()  # rises in this direction everywhere
        middle = hog(ramp[None, None])[0, :, 1, 1]
        assert middle.argmax() == degrees % 180 // 20
        assert middle.max() > 0.99


@pytest.mark.part("recipe/hog_svm")
def test_gradients_are_of_the_strongest_channel_and_nothing_at_the_border():
    images = torch.zeros(1, 3, 5, 5)
    images[0, 2, :, 3:] = 9.0
    images[0, 0, 3:] = 4.0
    x, y = gradients(images)
    assert x[0, 1].tolist() == [0, 0, 9, 9, 0]
    assert y[0, :, 0].tolist() == [0, 0, 4, 4, 0]
    assert y[0, 2, 2] == 0, "where the other channel is stronger, all of the gradient is its own"


@pytest.mark.part("recipe/hog_svm")
def test_a_window_is_a_slice_of_the_blocks_of_its_picture():
    """Cells are computed once: away from the border of its crop, a window of a picture says what the crop does."""
    picture = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    hog = HOG(norm="l2")
    whole, crop = hog(picture), hog(picture[..., 16:56, 8:48])
    torch.testing.assert_close(whole[..., 3:5, 2:4], crop[..., 1:3, 1:3])


@pytest.mark.part("recipe/hog_svm")
def test_hog_keeps_the_contract_of_a_layer():
    check_module(HOG(), lambda: (torch.rand(2, 3, 40, 40).requires_grad_(),))


@pytest.mark.part("recipe/hog_svm")
def test_arguments_without_sense_are_refused():
    with pytest.raises(ValueError, match="1 or more"):
        HOG(cell=0)
    with pytest.raises(ValueError, match="one of l1, l1_sqrt"):
        HOG(norm="l3")  # type: ignore[arg-type]

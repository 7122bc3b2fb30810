"""Masks laid over pictures, and their run lengths, against the plain way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from torso.boxes.masks import paste
from torso.data.masks import encoded_window


def slow_paste(mask: np.ndarray, box: np.ndarray, to_source: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Every pixel of the picture: where its centre lies in the mask, and what four cells around say there."""
    width, height = size
    back = np.linalg.inv(to_source)
    cells = mask.shape[-1]
    values = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            at = back @ (x + 0.5, y + 0.5, 1)
            u = (at[0] - box[0]) / (box[2] - box[0]) * cells - 0.5
            v = (at[1] - box[1]) / (box[3] - box[1]) * cells - 0.5
            for row in (int(np.floor(v)), int(np.floor(v)) + 1):
                for column in (int(np.floor(u)), int(np.floor(u)) + 1):
                    if 0 <= row < cells and 0 <= column < cells:
                        values[y, x] += mask[row, column] * (1 - abs(v - row)) * (1 - abs(u - column))
    return values


def whole(window: tuple[np.ndarray, int, int], size: tuple[int, int]) -> np.ndarray:
    pixels, left, top = window
    found = np.zeros(size[::-1], bool)
    found[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return found


WAYS = {
    "as it is": np.eye(3),
    "letterbox": np.array([[1.7, 0, -3], [0, 1.7, -9], [0, 0, 1]]),
    "stretched and mirrored": np.array([[-0.6, 0, 30], [0, 1.3, -2], [0, 0, 1]]),
    "turned": np.array([[0.9, -0.5, 6], [0.4, 1.1, -4], [0, 0, 1]]),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_mask_is_laid_over_the_picture_pixel_by_pixel(way: str) -> None:
    generator = np.random.default_rng(0)
    seen = 0
    for _ in range(6):
        mask = generator.random((7, 7)) * 1.2 % 1
        low = generator.random(2) * 20 - 4
        box = np.concatenate([low, low + 3 + generator.random(2) * 15])
        values = slow_paste(mask, box, WAYS[way], (34, 26))
        found = whole(paste(mask, box, WAYS[way], (34, 26)), (34, 26))
        sure = np.abs(values - 0.5) > (0.02 if way == "turned" else 1e-9)  # OpenCV's weights have five bits
        assert (found == (values >= 0.5))[sure].all()
        seen += int(found.sum())
    assert seen > 50


def test_a_full_mask_fills_its_box_and_an_empty_box_nothing() -> None:
    full = np.ones((28, 28))
    found = whole(paste(full, np.array([3.0, 4, 9, 7]), np.eye(3), (12, 10)), (12, 10))
    expected = np.zeros((10, 12), bool)
    expected[4:7, 3:9] = True
    assert (found == expected).all()
    for box in ([5.0, 5, 5, 9], [50.0, 50, 60, 60], [-9.0, -9, -2, -2]):
        assert not whole(paste(full, np.array(box), np.eye(3), (12, 10)), (12, 10)).any()


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_run_lengths_of_a_window_are_cocos_of_the_whole(seed: int, width: int, height: int) -> None:
    generator = np.random.default_rng(seed)
    left, right = np.sort(generator.integers(0, width + 1, 2)).tolist()
    top, bottom = np.sort(generator.integers(0, height + 1, 2)).tolist()
    pixels = generator.random((bottom - top, right - left)) < generator.choice([0.2, 0.8, 1.0])
    picture = whole((pixels, left, top), (width, height))
    found = encoded_window(pixels, left, top, (width, height))
    expected = coco.encode(np.asfortranarray(picture.astype(np.uint8)))
    assert found == {"size": [height, width], "counts": expected["counts"].decode()}
    assert (coco.decode(found) == picture).all()

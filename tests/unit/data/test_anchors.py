from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.data.pictures import small_index
from torso.boxes.overlap import pairwise_iou
from torso.config import DataError
from torso.data.anchors import FITS, kmeans_anchors, letterboxed, measured, overlap
from torso.data.transforms.geometry import Letterbox
from torso.data.views import View

SIDE = st.floats(1, 600, allow_nan=False)
SIZES = st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=40).map(np.array)


def at_origin(sizes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([np.zeros_like(sizes), sizes], axis=1))


@given(SIZES, SIZES)
def test_overlap_of_sizes_is_the_iou_of_boxes_with_one_corner(sizes: np.ndarray, anchors: np.ndarray) -> None:
    expected = pairwise_iou(at_origin(sizes), at_origin(anchors)).numpy()
    assert np.allclose(overlap(sizes, anchors), expected, atol=1e-12)


def by_hand(anchors: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Mean of the best IoU, and best possible recall, box by box."""
    best, learned = [], 0
    for w, h in sizes.tolist():
        overlaps, fits = [], []
        for a, b in anchors.tolist():
            shared = min(w, a) * min(h, b)
            overlaps.append(shared / (w * h + a * b - shared))
            fits.append(min(w / a, a / w, h / b, b / h))
        best.append(max(overlaps))
        learned += max(fits) > 0.25
    return sum(best) / len(best), learned / len(sizes)


@given(SIZES, st.integers(1, 6))
@settings(max_examples=60)
def test_the_measures_are_those_counted_box_by_box(sizes: np.ndarray, count: int) -> None:
    found = kmeans_anchors(sizes, count, starts=1)
    iou, recall = by_hand(found.sizes, sizes)
    assert found.mean_iou == pytest.approx(iou, abs=1e-12)
    assert found.recall == recall
    assert len(found.sizes) == min(count, len(np.unique(sizes, axis=0)))
    assert (np.diff(found.sizes.prod(axis=1)) >= 0).all()
    assert (found.sizes >= sizes.min(axis=0) - 1e-9).all()
    assert (found.sizes <= sizes.max(axis=0) + 1e-9).all()


def best_of_all(sizes: np.ndarray, count: int) -> float:
    """The best mean IoU of centres that are each the mean of some boxes: all choices are tried."""
    chosen = (list(rows) for size in range(1, len(sizes) + 1) for rows in combinations(range(len(sizes)), size))
    means = [sizes[rows].mean(axis=0) for rows in chosen]
    return max(by_hand(np.array(centres), sizes)[0] for centres in combinations(means, count))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_boxes_get_the_best_anchors_there_are(seed: int, count: int) -> None:
    sizes = np.random.default_rng(seed).uniform(5, 200, (5, 2))
    best = best_of_all(sizes, count)
    found = kmeans_anchors(sizes, count, seed=seed, starts=20)
    assert best * 0.97 <= found.mean_iou <= best + 1e-9


def lloyd(sizes: np.ndarray, centres: list[list[float]], rounds: int) -> list[list[float]]:
    """Plain rounds of k-means on 1 - IoU, one box after the other."""
    for _ in range(rounds):
        owned: list[list[list[float]]] = [[] for _ in centres]
        for w, h in sizes.tolist():
            overlaps = []
            for a, b in centres:
                shared = min(w, a) * min(h, b)
                overlaps.append(shared / (w * h + a * b - shared))
            owned[overlaps.index(max(overlaps))].append([w, h])
        centres = [
            [sum(side) / len(side) for side in zip(*own, strict=True)] if own else old
            for own, old in zip(owned, centres, strict=True)
        ]
    return centres


def test_clusters_that_lie_apart_are_found_and_stay() -> None:
    random = np.random.default_rng(0)
    middles = np.array([[20.0, 30.0], [60.0, 50.0], [150.0, 300.0], [400.0, 200.0]])
    sizes = np.concatenate([middle * random.uniform(0.9, 1.1, (50, 2)) for middle in middles])
    found = kmeans_anchors(sizes, 4)
    means = np.array([sizes[50 * k : 50 * (k + 1)].mean(axis=0) for k in range(4)])
    assert np.allclose(found.sizes, means[np.argsort(means.prod(axis=1))])
    assert np.allclose(lloyd(sizes, found.sizes.tolist(), 3), found.sizes)
    assert found.recall == 1
    assert found.mean_iou > 0.9


def test_more_anchors_fit_better_and_the_seed_decides() -> None:
    sizes = np.random.default_rng(1).lognormal(4, 0.8, (500, 2))
    means = [kmeans_anchors(sizes, count).mean_iou for count in (1, 3, 9, 27)]
    assert means == sorted(means)
    again = [kmeans_anchors(sizes, 9, seed=3) for _ in range(2)]
    assert np.array_equal(again[0].sizes, again[1].sizes)
    assert not np.array_equal(again[0].sizes, kmeans_anchors(sizes, 9, seed=4).sizes)
    # They are not moved by a box that is repeated in the same proportion.
    assert kmeans_anchors(np.tile(sizes, (2, 1)), 9).mean_iou == pytest.approx(means[2], rel=0.02)


def test_an_anchor_fits_up_to_four_times_in_either_direction() -> None:
    sizes = np.array([[10.0, 10], [39.9, 10], [40.0, 10], [10, 2.6], [10, 2.5], [39.9, 2.6]])
    assert measured(np.array([[10.0, 10]]), sizes).recall == pytest.approx(4 / 6)
    assert FITS == 0.25


def test_fewer_sizes_than_anchors_are_the_anchors() -> None:
    sizes = np.array([[30.0, 20], [10, 10], [30, 20], [10, 10]])
    found = kmeans_anchors(sizes, 9)
    assert found.sizes.tolist() == [[10, 10], [30, 20]]
    assert (found.mean_iou, found.recall) == (1, 1)
    assert kmeans_anchors(np.array([[0.2, 300.4]]), 2).rounded() == [[1, 300]]
    # Sizes that are told apart by no IoU do not end in a division by nothing.
    assert len(kmeans_anchors(np.array([[1.0, 1], [1, 1 + 2e-16], [1, 1 + 4e-16]]), 2).sizes) <= 2


def test_what_has_no_area_makes_no_anchors() -> None:
    for sizes in (np.zeros((0, 2)), np.array([[3.0, 0.0]]), np.array([[3.0, np.nan]])):
        with pytest.raises(DataError, match="width and a height above 0"):
            kmeans_anchors(sizes, 3)
    with pytest.raises(DataError, match="expected 1 or more, came 0"):
        kmeans_anchors(np.ones((3, 2)), 0)


@pytest.mark.parametrize("canvas", [(640, 640), (640, 384)])
def test_boxes_are_as_large_as_letterbox_makes_them(tmp_path: Path, canvas: tuple[int, int]) -> None:
    index = small_index(tmp_path, count=6, size=(50, 40))
    found = letterboxed(index, canvas)
    matrix = Letterbox()(View.of((50, 40), canvas), torch.Generator()).matrix
    expected = (index.boxes[:, 2:] - index.boxes[:, :2]) * [matrix[0, 0], matrix[1, 1]]
    assert np.allclose(found, expected, rtol=2e-3)  # letterbox rounds the picture to whole pixels
    crowded = replace(index, crowd=np.arange(len(index.labels)) == 0)
    assert len(letterboxed(crowded, canvas)) == len(index.labels) - 1

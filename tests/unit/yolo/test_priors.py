"""Sizes from k-means, published and your own, and the cells of a grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Reference

from torso.boxes.clusters import CLUSTERS, Grid, KMeans
from torso.data.anchors import kmeans_anchors, measured


def sizes_of(prior: torch.nn.Module, sizes: list[tuple[int, int]]) -> torch.Tensor:
    boxes = prior(sizes).boxes
    return boxes[:, 2:] - boxes[:, :2]


@pytest.mark.part("prior/kmeans")
def test_yolov3_sees_three_sizes_on_each_of_three_levels_the_small_ones_on_the_finest() -> None:
    """Section 2.3 of the paper lists the nine sizes; 416 px give 52, 26 and 13 cells a side."""
    prior = KMeans([8, 16, 32])
    grids = [(52, 52), (26, 26), (13, 13)]
    assert prior.per_cell == [3, 3, 3]
    sizes = sizes_of(prior, grids)
    assert len(sizes) == 3 * (52**2 + 26**2 + 13**2) == 10_647
    start = 0
    paper = [[(10, 13), (16, 30), (33, 23)], [(30, 61), (62, 45), (59, 119)], [(116, 90), (156, 198), (373, 326)]]
    for (height, width), expected in zip(grids, paper, strict=True):
        level = sizes[start : start + 3 * height * width].reshape(-1, 3, 2)
        assert (level == torch.tensor(expected)).all()
        start += 3 * height * width


@pytest.mark.part("prior/kmeans")
@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("yolov2_voc", "1.3221,1.73145, 3.19275,4.00944, 5.05587,8.09892, 9.47112,4.84053, 11.2364,10.0071"),
        ("yolov2_coco", "0.57273,0.677385, 1.87446,2.06253, 3.33843,5.47434, 7.88282,3.52778, 9.77052,9.16828"),
    ],
)
def test_yolov2s_sizes_are_those_of_its_files_which_count_in_cells(name: str, cells: str) -> None:
    expected = torch.tensor([float(x) for x in cells.split(",")]).reshape(5, 2)
    expected = expected[expected.prod(dim=1).argsort()]
    prior = KMeans([32], name)
    torch.testing.assert_close(sizes_of(prior, [(1, 1)]) / 32, expected)
    assert prior.per_cell == [5]


@pytest.mark.part("prior/kmeans")
def test_a_box_stands_in_the_middle_of_its_cell_and_rows_go_cell_by_cell() -> None:
    prior = KMeans([(8, 16), (16, 16)], sizes=[(4, 6), (40, 20), (10, 12)], scale=2)
    boxes, strides = prior([(2, 3), (1, 2)])
    expected = [
        (16 * (x + 0.5), 8 * (y + 0.5), w, h) for y in range(2) for x in range(3) for w, h in ((8, 12), (20, 24))
    ]
    expected += [(16 * (x + 0.5), 8.0, 80, 40) for x in range(2)]
    assert prior.per_cell == [2, 1]  # the finer level takes the one that is left over
    assert boxes.tolist() == [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in expected]
    assert strides.tolist() == [[16, 8]] * 12 + [[16, 16]] * 2


@pytest.mark.part("prior/kmeans")
def test_the_anchors_of_data_stats_go_straight_in() -> None:
    random = np.random.default_rng(0)
    boxes = random.lognormal(3, 0.7, (500, 2))
    made = kmeans_anchors(boxes, 6)
    prior = KMeans([8, 16], sizes=made.rounded())
    found = sizes_of(prior, [(1, 1), (1, 1)])
    assert found.tolist() == made.rounded()
    assert measured(found.double().numpy(), boxes).mean_iou == pytest.approx(made.mean_iou, abs=5e-3)


@pytest.mark.part("prior/kmeans")
def test_on_clusters_that_lie_apart_the_centres_are_scikit_learns() -> None:
    """There 1 - IoU and Euclid agree on whose box is whose, and both take means."""
    random = np.random.default_rng(1)
    middles = np.array([[12, 20], [60, 30], [50, 140], [300, 280]])
    boxes = np.concatenate([middle * random.uniform(0.9, 1.1, (80, 2)) for middle in middles])
    reference = Reference(4, n_init=10, random_state=0).fit(boxes).cluster_centers_
    reference = reference[np.argsort(reference.prod(axis=1))]
    np.testing.assert_allclose(kmeans_anchors(boxes, 4).sizes, reference, rtol=1e-12)
    prior = KMeans([8, 32], sizes=[tuple(size) for size in reference])
    torch.testing.assert_close(sizes_of(prior, [(1, 1), (1, 1)]), torch.tensor(reference).float())


@pytest.mark.part("prior/kmeans")
def test_published_sizes_are_small_to_large() -> None:
    for name, sizes in CLUSTERS.items():
        areas = [width * height for width, height in sizes]
        assert areas == sorted(areas), name


@pytest.mark.part("prior/kmeans")
def test_sizes_that_cannot_be_are_told() -> None:
    with pytest.raises(ValueError, match="2 sizes for 3 levels"):
        KMeans([8, 16, 32], sizes=[(3, 4), (5, 6)])
    with pytest.raises(ValueError, match="above 0"):
        KMeans([8], sizes=[(3, 0)])
    with pytest.raises(ValueError, match="above 0"):
        KMeans([8], scale=0)


@pytest.mark.part("prior/grid")
def test_a_slot_is_a_square_of_cells_around_each_cells_middle() -> None:
    boxes, strides = Grid([(4, 8)], slots=[1, 3])([(2, 1)])
    assert boxes.tolist() == [[0, 0, 8, 4], [-8, -4, 16, 8], [0, 4, 8, 8], [-8, 0, 16, 12]]
    assert strides.tolist() == [[8, 4]] * 4
    with pytest.raises(ValueError, match="above 0"):
        Grid([8], slots=[])
    with pytest.raises(ValueError, match="above 0"):
        Grid([8], slots=[1, 0])

"""Gaussians, their radius, the cells of regions, and peaks: against plain loops and the definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torso.boxes import heatmap
from torso.boxes.heatmap import cells_of, covered, gaussian_radius, grid_of, peaks, peaks_of_levels, splat

SIDES = st.floats(0.5, 300)
OVERLAPS = st.floats(0.05, 0.95)


def overlap_of(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    size = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(size) - width * height)


def moved(width: float, height: float, first: float, second: float) -> float:
    """IoU of a box with itself after its corners moved along both axes by so much."""
    box = (0.0, 0.0, width, height)
    return overlap_of(box, (first, first, width + second, height + second))


@pytest.mark.part("criterion/corner", "criterion/centernet")
@given(SIDES, SIDES, OVERLAPS)
def test_at_the_radius_the_worst_of_three_cases_overlaps_as_wanted(width: float, height: float, overlap: float) -> None:
    radius = float(gaussian_radius(torch.tensor([width, height], dtype=torch.float64), overlap))
    assert 0 <= radius <= min(width, height) / 2
    cases = [moved(width, height, radius, radius), moved(width, height, radius, -radius)]
    cases.append(moved(width, height, -radius, radius))
    assert min(cases) == pytest.approx(overlap, rel=1e-6)


@pytest.mark.part("criterion/corner", "criterion/centernet")
@given(SIDES, SIDES, OVERLAPS, st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_no_corner_within_the_radius_overlaps_less(
    width: float, height: float, overlap: float, moves: list[float]
) -> None:
    radius = float(gaussian_radius(torch.tensor([width, height], dtype=torch.float64), overlap))
    a, b, c, d = (move * radius for move in moves)
    assert overlap_of((0, 0, width, height), (a, b, width + c, height + d)) >= overlap - 1e-6


@pytest.mark.part("criterion/corner")
def test_a_box_without_area_has_a_radius_of_0() -> None:
    assert gaussian_radius(torch.tensor([[0.0, 0.0], [5.0, 0.0], [-3.0, 4.0]]), 0.3).tolist() == [0, 0, 0]


def slow_splat(
    cells: Tensor, radius: Tensor, labels: Tensor, there: Tensor, classes: int, grid: tuple[int, int]
) -> Tensor:
    heat = torch.zeros(len(cells), classes, *grid, dtype=radius.dtype)
    for i in range(len(cells)):
        for k in range(cells.shape[1]):
            if not there[i, k]:
                continue
            x, y, r = *cells[i, k].tolist(), int(radius[i, k])
            deviation = (2 * r + 1) / 6
            for row in range(max(y - r, 0), min(y + r + 1, grid[0])):
                for column in range(max(x - r, 0), min(x + r + 1, grid[1])):
                    value = math.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * deviation**2))
                    at = (i, int(labels[i, k]), row, column)
                    heat[at] = max(float(heat[at]), value)
    return heat


def objects(count: int, grid: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randint(0, side, (2, count), generator=generator) for side in (grid[1], grid[0]))
    radius = torch.randint(0, 5, (2, count), generator=generator).double()
    labels = torch.randint(0, 3, (2, count), generator=generator)
    return torch.stack([x, y], -1), radius, labels, torch.rand(2, count, generator=generator) > 0.2


@pytest.mark.part("criterion/corner", "criterion/centernet")
@pytest.mark.parametrize("count", [0, 1, 10, 40])
def test_gaussians_are_drawn_one_over_the_other(count: int) -> None:
    grid = (9, 13)
    case = objects(count, grid)
    found = splat(*case, 3, grid)
    torch.testing.assert_close(found, slow_splat(*case, 3, grid))
    cells, _, labels, there = case
    for i, k in there.nonzero().tolist():
        assert found[i, labels[i, k], cells[i, k, 1], cells[i, k, 0]] == 1, "exactly 1, or it is no positive"


@pytest.mark.part("criterion/corner", "criterion/centernet")
def test_chunks_of_objects_bound_what_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crowds change nothing but the number of chunks."""
    grid = (16, 16)
    sizes: list[int] = []
    scatter = Tensor.scatter_reduce

    def watched(self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str) -> Tensor:
        sizes.append(src.numel())
        return scatter(self, dim, index, src, reduce)

    monkeypatch.setattr(Tensor, "scatter_reduce", watched)
    case = objects(300, grid)
    whole = splat(*case, 3, grid)
    assert max(sizes) <= 2 * heatmap.CHUNK * 256
    assert len(sizes) == -(-300 // heatmap.CHUNK)
    monkeypatch.setattr(heatmap, "CHUNK", 7)
    assert torch.equal(splat(*case, 3, grid), whole)


@pytest.mark.part("criterion/corner", "criterion/centernet")
def test_points_lie_in_cells_and_those_outside_in_the_nearest() -> None:
    points = torch.tensor([[0.0, 0.0], [3.9, 4.0], [31.9, 15.0], [32.0, 16.0], [-5.0, 99.0]])
    assert cells_of(points, 4, (4, 8)).tolist() == [[0, 0], [0, 1], [7, 3], [7, 3], [0, 3]]


@pytest.mark.part("criterion/corner", "criterion/centernet")
def test_a_region_covers_the_cells_it_touches() -> None:
    boxes = torch.tensor(
        [[[5.0, 1.0, 9.0, 6.0], [0.0, 0.0, 99.0, 99.0]], [[-9.0, -9.0, 1.0, 1.0], [8.0, 8.0, 8.0, 8.0]]]
    )
    there = torch.tensor([[True, False], [True, True]])
    found = covered(boxes, there, 4, (3, 4))
    expected = torch.zeros(2, 3, 4, dtype=torch.bool)
    expected[0, 0:2, 1:3] = True
    expected[1, 0, 0] = expected[1, 2, 2] = True
    assert torch.equal(found, expected)


@pytest.mark.part("criterion/centernet")
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 40))
def test_the_number_of_cells_says_how_they_lie(height: int, width: int, stride: int) -> None:
    grid = (-(-height // stride), -(-width // stride))
    assert grid_of(grid[0] * grid[1], (height, width)) == grid


@pytest.mark.part("criterion/centernet")
def test_a_number_of_cells_that_no_stride_makes_is_refused() -> None:
    with pytest.raises(ValueError, match="no square cells cover 8x8 pixels with 15"):
        grid_of(15, (8, 8))


def slow_peaks(scores: Tensor, window: int) -> Tensor:
    found = torch.zeros_like(scores)
    reach = window // 2
    for y in range(scores.shape[0]):
        for x in range(scores.shape[1]):
            around = scores[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            if scores[y, x] == around.max():
                found[y, x] = scores[y, x]
    return found


@pytest.mark.part("recipe/centernet", "recipe/cornernet")
@pytest.mark.parametrize("window", [1, 3, 5])
def test_a_peak_is_the_highest_around(window: int) -> None:
    scores = (torch.rand(2, 3, 7, 5, generator=torch.Generator().manual_seed(0)) * 20).round() / 20  # with equals
    found = peaks(scores, window)
    for i in range(2):
        for c in range(3):
            assert torch.equal(found[i, c], slow_peaks(scores[i, c], window))


@pytest.mark.part("recipe/centernet")
def test_every_level_and_every_prior_of_a_cell_has_peaks_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    fine, coarse = torch.rand(2, 5 * 4 * 2, 3, generator=generator), torch.rand(2, 3 * 2 * 2, 3, generator=generator)
    found = peaks_of_levels(torch.cat([fine, coarse], 1), (40, 12), [4, (8, 8)], (18, 15), 3)
    for level, (height, width), start in ((fine, (5, 4), 0), (coarse, (3, 2), 40)):
        maps = level.reshape(2, height, width, 2, 3)
        here = found[:, start : start + level.shape[1]].reshape(maps.shape)
        for i in range(2):
            for a in range(2):
                for c in range(3):
                    assert torch.equal(here[i, :, :, a, c], slow_peaks(maps[i, :, :, a, c], 3))

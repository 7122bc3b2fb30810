"""The grid coder against a loop over cells, and what comes back."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torso.boxes.clusters import Grid as Cells
from torso.boxes.clusters import KMeans
from torso.boxes.grid_coder import Grid
from torso.recipes.recipe import Recipe

pytestmark = pytest.mark.part("coder/grid")

FORMS = list(
    itertools.product(["sigmoid", "linear"], ["exp", "square", "root", "linear"], [1.0, 1.05, 2.0], [1.0, 7.0])
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(("centre", "side", "scale", "unit"), FORMS)
def test_boxes_are_those_of_a_loop_over_cells(centre: str, side: str, scale: float, unit: float) -> None:
    """Darknet's loop: rows, columns, priors of a cell, and the formulas as the papers write them."""
    shapes = [(10.0, 20.0), (30.0, 16.0)]
    priors, strides = KMeans([(8, 16)], sizes=shapes)([(3, 4)])
    shapes.sort(key=math.prod)
    raw = torch.randn(len(priors), 4, dtype=torch.float64)
    found = Grid(centre, side, scale, unit).decode(raw, priors.double(), strides.double())
    expected = []
    rows = iter(raw.tolist())
    for cy, cx, (pw, ph) in itertools.product(range(3), range(4), shapes):
        tx, ty, tw, th = next(rows)
        if centre == "sigmoid":
            tx, ty = (sigmoid(t) * scale - (scale - 1) / 2 for t in (tx, ty))
        bx, by = (cx + tx) * 16, (cy + ty) * 8
        bw, bh = (
            unit * p * {"exp": math.exp(t), "square": (2 * sigmoid(t)) ** 2, "root": t * t, "linear": max(t, 0)}[side]
            for p, t in ((pw, tw), (ph, th))
        )
        expected.append([bx - bw / 2, by - bh / 2, bx + bw / 2, by + bh / 2])
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("centre", "side", "scale", "unit"), FORMS)
def test_a_box_that_its_cell_can_say_comes_back(centre: str, side: str, scale: float, unit: float) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    corner = torch.randint(0, 9, (200, 2), generator=generator) * 16.0
    prior_size = draw(200, 2) * 60 + 4
    priors = torch.cat([corner + 8 - prior_size / 2, corner + 8 + prior_size / 2], dim=1)
    reach = 1.0 if centre == "sigmoid" else 8.0
    middle = corner + 8 + (draw(200, 2) - 0.5) * 16 * scale * reach
    size = prior_size * unit * (draw(200, 2) * 3.9 + 0.05)
    boxes = torch.cat([middle - size / 2, middle + size / 2], dim=1)
    coder, strides = Grid(centre, side, scale, unit), torch.full((200, 2), 16.0, dtype=torch.float64)
    torch.testing.assert_close(coder.decode(coder.encode(boxes, priors, strides), priors, strides), boxes)


def test_a_centre_out_of_reach_becomes_the_nearest_that_the_cell_can_say() -> None:
    priors, strides = torch.tensor([[16.0, 16, 32, 32]]), torch.tensor([[16.0, 16.0]])
    box = torch.tensor([[90.0, 20, 110, 28]])
    for scale, edge in ((1.0, 32.0), (2.0, 40.0)):
        coder = Grid(scale=scale)
        back = coder.decode(coder.encode(box, priors, strides), priors, strides)
        torch.testing.assert_close(back, torch.tensor([[edge - 10, 20, edge + 10, 28]]), rtol=0, atol=1e-3)


@given(st.lists(st.floats(-300, 300, width=32), min_size=4, max_size=4), st.sampled_from(FORMS))
def test_whatever_is_encoded_or_said_is_finite(values: list[float], form: tuple[str, str, float, float]) -> None:
    priors, strides = torch.tensor([[3.0, 5.0, 40.0, 29.0]]), torch.tensor([[8.0, 8.0]])
    coder, row = Grid(*form), torch.tensor([values], requires_grad=True)
    assert coder.encode(row.detach(), priors, strides).isfinite().all()
    boxes = coder.decode(row, priors, strides)
    boxes.sum().backward()
    assert boxes.isfinite().all()
    assert row.grad is not None
    assert row.grad.isfinite().all()


def test_yolov1s_numbers_are_places_in_cells_and_roots_of_shares_of_the_picture() -> None:
    """A box at (219, 96) of 224 x 56 px of 448: cell (3, 1), (0.421875, 0.5), roots of 1/2 and 1/8."""
    coder = Recipe.load("yolov1", without_data=True).tree["model"]["coder"]
    priors, strides = Cells([64], [1, 1])([(7, 7)])
    row = (1 * 7 + 3) * 2
    box = torch.tensor([219 - 112.0, 96 - 28, 219 + 112, 96 + 28])
    made = Grid(coder["centre"], coder["side"], unit=coder["unit"])
    expected = torch.tensor([219 / 64 - 3, 96 / 64 - 1, math.sqrt(0.5), math.sqrt(0.125)])
    for slot in (row, row + 1):
        torch.testing.assert_close(made.encode(box, priors[slot], strides[slot]), expected)


def test_it_measures_in_cells_and_says_so() -> None:
    with pytest.raises(ValueError, match="need strides"):
        Grid().decode(torch.zeros(1, 4), torch.zeros(1, 4))
    for wrong in ({"scale": 0.9}, {"unit": 0.0}, {"max_ratio": 0.0}):
        with pytest.raises(ValueError, match="expected scale"):
            Grid(**wrong)

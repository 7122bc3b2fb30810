"""From maps of corners to boxes, against plain loops; what a detector of corners refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.recipes.small import SMALL, TINY
from torso.boxes.corners import central
from torso.config import ModelError, RecipeError
from torso.models.corners import Corners
from torso.recipes.recipe import Recipe
from torso.structures import Detections

CLASSES, GRID, STRIDE = 2, (8, 9), 4


class Given(nn.Module):
    """What a detector asks of its parts, and a head's number of points."""

    strides, mean, std = (4,), (0.5,) * 3, (0.5,) * 3

    def __init__(self, points: int = 2):
        super().__init__()
        self.points = points


class AsTheyCome(nn.Module):
    """All candidates, in the order they have."""

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        return Detections(boxes, scores, labels, scores > 0)


def model(points: int, **options: object) -> Corners:
    head = Given(points)
    return Corners(head, head, head, nn.Identity(), AsTheyCome(), num_classes=CLASSES, **options)  # type: ignore[arg-type]


def maps(points: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    heat = torch.rand(2, points, CLASSES, *GRID, generator=generator, dtype=torch.float64)
    embeddings = torch.randn(2, 2, *GRID, generator=generator, dtype=torch.float64)
    offsets = torch.rand(2, points, 2, *GRID, generator=generator, dtype=torch.float64)
    return heat, embeddings, offsets


def slow_points(
    heat: Tensor, offsets: Tensor, topk: int, window: int
) -> list[tuple[float, int, int, int, float, float]]:
    """(score, class, row, column, x, y) of the best peaks of one kind in one picture."""
    found = []
    reach = window // 2
    for c in range(heat.shape[0]):
        for y in range(heat.shape[1]):
            for x in range(heat.shape[2]):
                around = heat[c, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
                if heat[c, y, x] == around.max():
                    at = (x + float(offsets[0, y, x])) * STRIDE, (y + float(offsets[1, y, x])) * STRIDE
                    found.append((float(heat[c, y, x]), c, y, x, *at))
    return sorted(found, reverse=True)[:topk]


def slow_answer(
    heat: Tensor,
    embeddings: Tensor,
    offsets: Tensor,
    topk: int,
    window: int,
    distance: float,
    parts: tuple[int, int],
    large: float,
) -> list[tuple[float, int, tuple[float, ...]]]:
    """(score, class, box) of one picture, best first."""
    kinds = [slow_points(heat[k], offsets[k], topk, window) for k in range(len(heat))]
    found = []
    for one in kinds[0]:
        for two in kinds[1]:
            apart = abs(float(embeddings[0, one[2], one[3]] - embeddings[1, two[2], two[3]]))
            if one[1] != two[1] or apart > distance or one[4] >= two[4] or one[5] >= two[5]:
                continue
            box, score = (one[4], one[5], two[4], two[5]), (one[0] + two[0]) / 2
            if len(kinds) == 3:
                n = parts[1] if math.sqrt((box[2] - box[0]) * (box[3] - box[1])) > large else parts[0]
                # The middle of n equal parts, along each axis.
                left, right = (box[0] + (box[2] - box[0]) * (n + s) / (2 * n) for s in (-1, 1))
                top, bottom = (box[1] + (box[3] - box[1]) * (n + s) / (2 * n) for s in (-1, 1))
                centres = [
                    each[0]
                    for each in kinds[2]
                    if each[1] == one[1] and left < each[4] < right and top < each[5] < bottom
                ]
                if not centres:
                    continue
                score = (one[0] + two[0] + max(centres)) / 3
            found.append((score, one[1], tuple(min(max(v, 0), 32 if i % 2 else 36) for i, v in enumerate(box))))
    return sorted(found, reverse=True)


@pytest.mark.part("model/corners", "recipe/cornernet", "recipe/centernet_triplets")
@pytest.mark.parametrize("points", [2, 3])
@pytest.mark.parametrize(("topk", "window", "large"), [(6, 3, 150.0), (20, 1, 14.0), (500, 1, 10.0)])
def test_pairs_are_those_of_plain_loops(points: int, topk: int, window: int, large: float) -> None:
    options = {"topk": topk, "peaks": window, "pairs": 3000, "distance": 0.7, "parts": (3, 5), "large": large}
    heat, embeddings, offsets = maps(points)
    found = model(points, **options).choose(heat, embeddings, offsets, (32, 36))
    for i in range(2):
        expected = slow_answer(heat[i], embeddings[i], offsets[i], topk, window, 0.7, (3, 5), large)
        kept = found.valid[i]
        order = found.scores[i][kept].argsort(descending=True)
        assert len(order) == len(expected)
        assert topk == 6 or expected, "a case without pairs proves nothing"
        torch.testing.assert_close(found.scores[i][kept][order], torch.tensor([e[0] for e in expected]).double())
        assert found.labels[i][kept][order].tolist() == [e[1] for e in expected]
        boxes = torch.tensor([e[2] for e in expected]).double().reshape(-1, 4)
        torch.testing.assert_close(found.boxes[i][kept][order], boxes)


@pytest.mark.part("recipe/cornernet")
def test_only_the_best_pairs_above_the_threshold_stay() -> None:
    heat, embeddings, offsets = maps(2)
    scores = model(2, topk=50).choose(heat, embeddings, offsets, (32, 36)).scores
    best = scores.sort(dim=1, descending=True).values
    few = model(2, topk=50, pairs=5).choose(heat, embeddings, offsets, (32, 36)).scores
    torch.testing.assert_close(few.sort(dim=1, descending=True).values, best[:, :5])
    strict = model(2, topk=50, threshold=0.9).choose(heat, embeddings, offsets, (32, 36)).scores
    assert int((strict > 0).sum()) == int((scores > 0.9).sum()) > 0


@pytest.mark.part("recipe/centernet_triplets")
def test_the_middle_is_a_third_of_small_boxes_and_a_fifth_of_large_ones() -> None:
    boxes = torch.tensor([[0.0, 0.0, 30.0, 60.0], [0.0, 0.0, 150.0, 150.0], [100.0, 0.0, 300.0, 200.0]])
    expected = torch.tensor([[10.0, 20.0, 20.0, 40.0], [50.0, 50.0, 100.0, 100.0], [180.0, 80.0, 220.0, 120.0]])
    torch.testing.assert_close(central(boxes, (3, 5), 150.0), expected)


@pytest.mark.part("recipe/cornernet")
def test_the_answer_asks_the_last_hourglass_alone() -> None:
    torch.manual_seed(0)
    made: Corners = Recipe.load("cornernet", SMALL["cornernet"], without_data=True).model.build(num_classes=3)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        output = made.eval()(images)
        assert len(output.maps) == 2
        last = output.maps[-1]
        expected = made.choose(last.heat.sigmoid(), last.embeddings, last.offsets, (64, 96))
        for one, other in zip(made.predict(images)[:4], expected[:4], strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.part("head/corner", "head/corner_triplets")
@pytest.mark.parametrize("name", ["cornernet", "centernet_triplets"])
def test_heads_take_other_classes(name: str) -> None:
    made: Corners = Recipe.load(name, SMALL[name], without_data=True).model.build(num_classes=3)
    made.head.reset_classes(5)
    heat = made(torch.zeros(1, 3, 64, 64)).maps[0].heat
    assert heat.shape == (1, made.head.points, 5, 16, 16)
    assert heat.sigmoid().mean().item() == pytest.approx(0.1, abs=0.05), "and begin as they do"


@pytest.mark.part("recipe/cornernet")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([TINY, "model.neck={name: fpn, channels: 16}"], "maps of one stride"),
        (["model.head=classify"], "corners need a head such as corner, got Classify"),
        (["model.peaks=2"], "odd, got peaks=2"),
        (["model.criterion.overlap=1"], "an overlap lies between 0 and 1"),
        (["model.class_loss=cross_entropy"], "a class loss of scores"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises((ModelError, RecipeError), match=message):
        Recipe.load("cornernet", [SMALL["cornernet"][0], *overrides], without_data=True).model.build(num_classes=3)

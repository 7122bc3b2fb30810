"""Objects as points: from heatmaps to boxes against plain loops, in the model and in an ensemble."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.recipes.small import SMALL
from torso import testing
from torso.boxes.center_size import CenterSize
from torso.boxes.ensemble import Ensemble
from torso.config import ModelError
from torso.heads.corner import Corner, CornerTriplets
from torso.models import Detector
from torso.recipes.recipe import Recipe
from torso.structures import Detections

HEIGHT, WIDTH, STRIDE = 64, 96, 4


def built(*overrides: str, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    recipe = Recipe.load("centernet", [*SMALL["centernet"], *overrides], without_data=True)
    model: Detector = recipe.model.build(num_classes=3)
    for parameter in model.head.parameters():  # scores that are not all alike, sizes that are not all 0
        parameter.data += torch.randn_like(parameter) * 0.3
    return model.eval()


def pictures() -> Tensor:
    return torch.randint(0, 256, (2, 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def slow_answer(heat: Tensor, deltas: Tensor, topk: int) -> list[tuple[float, int, list[float]]]:
    """Section 3: (score, class, box) of the best peaks of 3 x 3 cells, from ``[C, H, W]`` and ``[4, H, W]``."""
    found = []
    for c in range(heat.shape[0]):
        for y in range(heat.shape[1]):
            for x in range(heat.shape[2]):
                if heat[c, y, x] < heat[c, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max():
                    continue
                right, down, wide, high = deltas[:, y, x].tolist()
                cx, cy, w, h = x + right, y + down, max(wide, 0), max(high, 0)
                box = [STRIDE * v for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)]
                box = [min(max(v, 0), (HEIGHT if i % 2 else WIDTH)) for i, v in enumerate(box)]
                found.append((float(heat[c, y, x]), c, box))
    return sorted(found, reverse=True, key=lambda each: each[0])[:topk]


def compare(found: Detections, heat: Tensor, deltas: Tensor, topk: int) -> None:
    for i in range(2):
        expected = slow_answer(heat[i], deltas[i], topk)
        assert int(found.valid[i].sum()) == len(expected) > 0
        kept = found.valid[i]
        torch.testing.assert_close(found.scores[i][kept], torch.tensor([each[0] for each in expected]))
        assert found.labels[i][kept].tolist() == [each[1] for each in expected]
        boxes = torch.tensor([each[2] for each in expected])
        torch.testing.assert_close(found.boxes[i][kept], boxes, rtol=1e-4, atol=1e-3)


def maps_of(model: Detector) -> tuple[Tensor, Tensor]:
    output = model(pictures())
    heat, deltas = output.logits.sigmoid(), output.deltas
    grid = (HEIGHT // STRIDE, WIDTH // STRIDE)
    return (heat.transpose(1, 2).reshape(2, -1, *grid), deltas.transpose(1, 2).reshape(2, 4, *grid))


@pytest.mark.part("recipe/centernet", "head/centernet", "coder/center_size")
@pytest.mark.parametrize("topk", [5, 100])
def test_the_answer_is_that_of_plain_loops(topk: int) -> None:
    model = built(f"model.topk={topk}")
    with torch.no_grad():
        compare(model.predict(pictures()), *maps_of(model), topk)


@pytest.mark.part("recipe/centernet")
def test_an_ensemble_looks_for_peaks_of_the_mean() -> None:
    models = [built("model.topk=20", seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        mean = [sum(pair) / 2 for pair in zip(*(maps_of(model) for model in models), strict=True)]
        found = Ensemble(models, "scores")(pictures())
    heat = [torch.tensor([each[0] for each in slow_answer(mean[0][i], mean[1][i], 20)]) for i in range(2)]
    for i in range(2):
        torch.testing.assert_close(found.scores[i][found.valid[i]], heat[i])


@pytest.mark.part("recipe/retinanet")
def test_peaks_thin_out_the_candidates_of_any_detector() -> None:
    counts = []
    for peaks in ("null", "1", "3"):
        torch.manual_seed(0)
        words = [*SMALL["fcos"], f"model.peaks={peaks}", "model.suppress={name: threshold, max_detections: 4000}"]
        model = Recipe.load("fcos", [*words, "model.threshold=0"], without_data=True).model.build(num_classes=3).eval()
        with torch.no_grad():
            counts.append(int(model.predict(pictures()).valid.sum()))
    assert counts[0] == counts[1] > counts[2] > 0


@pytest.mark.part("recipe/centernet")
def test_a_window_without_a_middle_is_refused() -> None:
    with pytest.raises(ModelError, match="peaks is odd, got 2"):
        built("model.peaks=2")


@pytest.mark.part("coder/center_size")
@pytest.mark.parametrize("unit", ["stride", "pixel"])
def test_boxes_come_back_and_sides_below_0_are_none(unit: str) -> None:
    coder = CenterSize(unit)  # type: ignore[arg-type]
    prior, stride = torch.tensor([6.0, 2.0, 10.0, 6.0]), torch.tensor([4.0, 4.0])
    box = torch.tensor([3.0, 1.0, 15.0, 9.0])
    size = [3.0, 2.0] if unit == "stride" else [12.0, 8.0]
    torch.testing.assert_close(coder.encode(box, prior, stride), torch.tensor([0.25, 0.25, *size]))
    torch.testing.assert_close(coder.decode(coder.encode(box, prior, stride), prior, stride), box)
    point = coder.decode(torch.tensor([0.25, 0.25, -3.0, -1.0]), prior, stride)
    torch.testing.assert_close(point, torch.tensor([9.0, 5.0, 9.0, 5.0]))


@pytest.mark.part("head/corner", "head/corner_triplets")
@pytest.mark.parametrize("head", [Corner, CornerTriplets])
def test_heads_of_corners_learn_and_are_one_graph(head: type[Corner]) -> None:
    made = head([4, 4], 3, channels=5, pooled=3)
    testing.check_module(made, lambda: ([torch.randn(2, 4, 6, 7), torch.randn(2, 4, 6, 7)],))
    first, last = made([torch.randn(2, 4, 6, 7)] * 2)
    kinds = head.points
    assert first.heat.shape == last.heat.shape == (2, kinds, 3, 6, 7)
    assert (first.embeddings.shape, first.offsets.shape) == ((2, 2, 6, 7), (2, kinds, 2, 6, 7))

"""The objectives of detectors of keypoints against plain loops from the papers, with 0, 1, 10 and 300 objects."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from torso.boxes.center_size import CenterSize
from torso.boxes.heatmap import gaussian_radius
from torso.criteria.centernet import CenterNet
from torso.criteria.corner import Corner, CornerOutput
from torso.heads.corner import CornerMaps
from torso.losses import L1, CIoU, CrossEntropy, SmoothL1
from torso.losses.heatmap import AssociativeEmbedding, HeatmapFocal
from torso.structures import DenseOutput, Losses, Targets

SIZE, STRIDE, CLASSES = (48, 64), 4, 3
GRID = (12, 16)


def objects(count: int, weighted: bool = False, seed: int = 0) -> Targets:
    """Two pictures with so many objects, every fourth ignored, and a third that is ignored as a whole."""
    generator = torch.Generator().manual_seed(seed)
    rows = max(count, 1)
    low = torch.rand(3, rows, 2, generator=generator) * torch.tensor([50, 34])
    boxes = torch.cat([low, low + 2 + torch.rand(3, rows, 2, generator=generator) * 12], dim=-1)
    there = (torch.arange(rows) < count).expand(3, -1)
    ignore = there & (torch.arange(rows) % 4 == 3)
    valid, ignore = there & ~ignore, ignore.clone()
    valid[2], ignore[2] = False, False
    boxes[2, 0], ignore[2, 0] = torch.tensor([-1e3, -1e3, 1e3, 1e3]), True
    labels = torch.randint(0, CLASSES, (3, rows), generator=generator)
    weights = torch.rand(3, rows, generator=generator).double() if weighted else None
    return Targets(boxes.double(), labels, valid, ignore, weights=weights)


def dense(seed: int = 0) -> DenseOutput:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, GRID[0] * GRID[1], CLASSES, generator=generator, dtype=torch.float64).requires_grad_()
    deltas = torch.randn(3, GRID[0] * GRID[1], 4, generator=generator, dtype=torch.float64).requires_grad_()
    y, x = torch.meshgrid(torch.arange(GRID[0]) * STRIDE, torch.arange(GRID[1]) * STRIDE, indexing="ij")
    point = torch.stack([x, y], -1).reshape(-1, 2).double()
    priors, strides = torch.cat([point - 2, point + 2], 1), torch.full((len(point), 2), float(STRIDE)).double()
    boxes = CenterSize().decode(deltas, priors, strides)
    return DenseOutput(logits, deltas, boxes, priors, (len(point),), {}, strides, SIZE)


def slow_heat(points: list[tuple[float, float]], rows: list[tuple[Any, ...]], overlap: float) -> Tensor:
    """Gaussians of one picture, cell by cell."""
    heat = torch.zeros(CLASSES, *GRID, dtype=torch.float64)
    for (px, py), (box, label, _) in zip(points, rows, strict=True):
        sides = torch.tensor([(box[2] - box[0]) / STRIDE, (box[3] - box[1]) / STRIDE], dtype=torch.float64)
        r = int(gaussian_radius(sides, overlap))
        cx, cy = cell(px, py)
        for y in range(max(cy - r, 0), min(cy + r + 1, GRID[0])):
            for x in range(max(cx - r, 0), min(cx + r + 1, GRID[1])):
                value = math.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * ((2 * r + 1) / 6) ** 2))
                heat[label, y, x] = max(float(heat[label, y, x]), value)
    return heat


def cell(x: float, y: float) -> tuple[int, int]:
    return min(int(x // STRIDE), GRID[1] - 1), min(int(y // STRIDE), GRID[0] - 1)


def slow_class(logits: Tensor, heat: Tensor, targets: Targets, picture: int, peak_weight: dict[Any, float]) -> float:
    """Equation 1 of CornerNet, summed over one picture's ``[C, H, W]``."""
    total = 0.0
    regions = targets.boxes[picture][targets.ignore[picture]].tolist()
    for c in range(CLASSES):
        for y in range(GRID[0]):
            for x in range(GRID[1]):
                p, t = 1 / (1 + math.exp(-float(logits[c, y, x]))), float(heat[c, y, x])
                if t == 1:
                    total -= peak_weight[c, y, x] * (1 - p) ** 2 * math.log(p)
                elif not any(
                    b[0] // STRIDE <= x <= b[2] // STRIDE and b[1] // STRIDE <= y <= b[3] // STRIDE for b in regions
                ):
                    total -= (1 - t) ** 4 * p**2 * math.log(1 - p)
    return total


def rows_of(targets: Targets, picture: int) -> list[tuple[list[float], int, float]]:
    weight = targets.weights if targets.weights is not None else torch.ones_like(targets.boxes[..., 0])
    return [
        (targets.boxes[picture, k].tolist(), int(targets.labels[picture, k]), float(weight[picture, k]))
        for k in range(targets.boxes.shape[1])
        if targets.valid[picture, k]
    ]


def peaks_of(points: list[tuple[float, float]], rows: list[tuple[Any, ...]]) -> dict[Any, float]:
    found: dict[Any, float] = {}
    for (px, py), (_, label, weight) in zip(points, rows, strict=True):
        x, y = cell(px, py)
        found[label, y, x] = max(found.get((label, y, x), 0.0), weight)
    return found


def slow_kind(logits: Tensor, targets: Targets, kind: int, overlap: float) -> float:
    """The class loss of one kind of point in the batch ``[B, C, H, W]``."""
    total, count = 0.0, 0
    for i in range(len(logits)):
        rows = rows_of(targets, i)
        points = [point(box, kind) for box, _, _ in rows]
        weights = peaks_of(points, rows)
        total += slow_class(logits[i], slow_heat(points, rows, overlap), targets, i, weights)
        count += len(weights)
    return total / max(count, 1)


def point(box: list[float], kind: int) -> tuple[float, float]:
    return [(box[0], box[1]), (box[2], box[3]), ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)][kind]


@pytest.mark.part("criterion/centernet", "coder/center_size")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("count", [0, 1, 10])
def test_centernet_costs_what_the_paper_says(count: int, weighted: bool) -> None:
    output, targets = dense(), objects(count, weighted)
    found = CenterNet(HeatmapFocal(), L1(), CenterSize())(output, targets)
    maps = output.logits.detach().transpose(1, 2).reshape(3, CLASSES, *GRID)
    offset = size = 0.0
    number = 0
    for i in range(3):
        for box, _, weight in rows_of(targets, i):
            px, py = point(box, 2)
            x, y = cell(px, py)
            said = output.deltas[i, y * GRID[1] + x].tolist()
            offset += weight * (abs(said[0] - (px / STRIDE - x)) + abs(said[1] - (py / STRIDE - y)))
            size += weight * sum(abs(said[2 + a] - (box[2 + a] - box[a]) / STRIDE) for a in range(2))
            number += 1
    expected = {
        "class": slow_kind(maps, targets, 2, 0.7),
        "offset": offset / max(number, 1),
        "size": 0.1 * size / max(number, 1),
    }
    assert {name: float(x.detach()) for name, x in found.items()} == pytest.approx(expected)


def corner_maps(points: int, seed: int = 0) -> CornerMaps:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(3, *shape, *GRID, generator=generator, dtype=torch.float64).requires_grad_()

    return CornerMaps(normal(points, CLASSES), normal(2), normal(points, 2))


def corner_output(points: int) -> CornerOutput:
    return CornerOutput((corner_maps(points, 0), corner_maps(points, 1)), (STRIDE, STRIDE), SIZE)


@pytest.mark.part("criterion/corner")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("points", "count"), [(2, 0), (2, 1), (2, 10), (3, 10)])
def test_corners_cost_what_the_paper_says(points: int, count: int, weighted: bool) -> None:
    output, targets = corner_output(points), objects(count, weighted)
    found = Corner(HeatmapFocal(), SmoothL1(1.0), AssociativeEmbedding())(output, targets)
    expected = {"class": 0.0, "embedding": 0.0, "offset": 0.0}
    for maps in output.maps:
        for kind in range(points):
            expected["class"] += slow_kind(maps.heat[:, kind].detach(), targets, kind, 0.3) / 2
        number = sum(len(rows_of(targets, i)) for i in range(3))
        for i in range(3):
            rows = rows_of(targets, i)
            said = []
            for box, _, weight in rows:
                places = [cell(*point(box, kind)) for kind in range(points)]
                said.append([maps.embeddings[i, kind, places[kind][1], places[kind][0]].item() for kind in range(2)])
                for kind, (x, y) in enumerate(places):
                    wanted = [v / STRIDE - c for v, c in zip(point(box, kind), (x, y), strict=True)]
                    for axis in range(2):
                        away = abs(float(maps.offsets[i, kind, axis, y, x].detach()) - wanted[axis])
                        cost = away**2 / 2 if away < 1 else away - 0.5
                        expected["offset"] += weight * cost / max(number, 1) / 2
            expected["embedding"] += 0.1 * slow_embedding(said, [row[2] for row in rows]) / 3 / 2
    assert {name: float(x.detach()) for name, x in found.items()} == pytest.approx(expected)


def slow_embedding(said: list[list[float]], weight: list[float]) -> float:
    n, total = len(said), 0.0
    mean = [(a + b) / 2 for a, b in said]
    for k in range(n):
        total += weight[k] * sum((x - mean[k]) ** 2 for x in said[k]) / n
        for j in range(n):
            if j != k:
                total += weight[k] * max(0.0, 1 - abs(mean[k] - mean[j])) / (n * (n - 1))
    return total


def leaves(case: str) -> tuple[Any, list[Tensor], Any]:
    if case == "centernet":
        output = dense()
        return output, [output.logits, output.deltas], CenterNet(HeatmapFocal(), L1(), CenterSize())
    if case == "centernet of boxes":
        output = dense()
        return output, [output.logits, output.deltas], CenterNet(HeatmapFocal(), CIoU(), CenterSize())
    said = corner_output(3 if case == "triplets" else 2)
    return said, [x for maps in said.maps for x in maps], Corner(HeatmapFocal(), SmoothL1(1.0))


@pytest.mark.part("criterion/corner", "criterion/centernet")
@pytest.mark.parametrize("count", [0, 1, 10, 300])
@pytest.mark.parametrize("case", ["centernet", "centernet of boxes", "corner", "triplets"])
def test_any_number_of_objects_is_learned_and_nothing_in_ignored_regions(case: str, count: int) -> None:
    output, said, criterion = leaves(case)
    losses: Losses = criterion(output, objects(count))
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    sum(losses.values()).backward()
    for x in said:
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert not x.grad[2].any(), "an ignored picture teaches nothing"
    assert said[0].grad[:2].any()
    if count:
        assert all(x.grad[:2].any() for x in said)


@pytest.mark.part("criterion/corner", "criterion/centernet")
@pytest.mark.parametrize("case", ["centernet", "corner"])
def test_no_objects_means_no_rows_either(case: str) -> None:
    output, _, criterion = leaves(case)
    nothing = Targets(
        torch.zeros(3, 0, 4), *(torch.zeros(3, 0, dtype=kind) for kind in (torch.int64, torch.bool, torch.bool))
    )
    found = criterion(output, nothing)
    assert float(found["class"].detach()) > 0
    assert float(found["offset"].detach()) == 0


@pytest.mark.part("criterion/corner", "criterion/centernet")
@pytest.mark.parametrize("case", ["centernet", "corner"])
def test_criteria_are_one_graph(case: str) -> None:
    output, _, criterion = leaves(case)
    torch._dynamo.reset()
    found = torch.compile(criterion, fullgraph=True, backend="eager")(output, objects(40))
    for name, loss in criterion(output, objects(40)).items():
        torch.testing.assert_close(found[name], loss)


@pytest.mark.part("criterion/corner", "criterion/centernet")
def test_what_does_not_fit_is_refused() -> None:
    coder = CenterSize()
    for loss, message in ((CrossEntropy(), "class loss of scores"), (HeatmapFocal(), "box loss of deltas or boxes")):
        with pytest.raises(ValueError, match=message):
            CenterNet(loss, HeatmapFocal(), coder)
    with pytest.raises(ValueError, match="between 0 and 1"):
        CenterNet(HeatmapFocal(), L1(), coder, overlap=0)
    output = dense()
    with pytest.raises(ValueError, match="one map, but the neck gives 2 levels"):
        CenterNet(HeatmapFocal(), L1(), coder)(output._replace(counts=(100, 92)), objects(1))
    with pytest.raises(ValueError, match="unit stride or pixel"):
        CenterSize(unit="cell")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="measures in strides"):
        coder.decode(torch.zeros(4), torch.zeros(4))

"""The objectives of the recipes, from their text, against the formulas of their papers in loops over priors."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cross_entropy
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from tests.recipes.small import SMALL
from tests.unit.parts import slow
from torso.models import Detector
from torso.recipes.recipe import Recipe
from torso.structures import Assignment, DenseOutput, Targets

SIZE, CLASSES = 96, 3
Row = tuple[int, int, Tensor, int]  # picture, prior, the box it learns, and that one's class


def case(name: str, moved: float = 0.0) -> tuple[Detector, DenseOutput, Targets]:
    """What a small detector of the recipe says of noise, and objects of many sizes; priors are moved so far at most."""
    torch.manual_seed(0)
    model: Detector = Recipe.load(name, SMALL[name], without_data=True).model.build(num_classes=CLASSES).double()
    for parameter in model.head.parameters():
        parameter.data += torch.randn_like(parameter) * 0.05
    low = torch.rand(2, 6, 2, dtype=torch.float64) * 50
    size = 2 ** (torch.rand(2, 6, 2, dtype=torch.float64) * 3 + 2.5)
    kind = torch.arange(6).expand(2, 6)
    targets = Targets(torch.cat([low, low + size], dim=-1), kind % CLASSES, valid=kind < 5, ignore=kind == 5)
    with torch.no_grad():
        output = model(torch.randint(0, 256, (2, 3, SIZE, SIZE)).double())
    priors = output.priors.double() + torch.rand(output.priors.shape).double() * moved
    fields = {"priors": priors, "strides": output.strides.double()}
    logits, deltas = (x.double().requires_grad_() for x in (output.logits, output.deltas))
    extra = {key: x.double().requires_grad_() for key, x in output.extra.items()}
    boxes = model.coder.decode(deltas, *fields.values())
    return model, output._replace(logits=logits, deltas=deltas, boxes=boxes, extra=extra, **fields), targets


def rows_of(assigned: Assignment, targets: Targets) -> list[Row]:
    """The positive priors."""
    found = []
    for image, p in assigned.positive.nonzero().tolist():
        m = int(assigned.matched[image, p])
        found.append((image, p, targets.boxes[image, m], int(targets.labels[image, m])))
    assert len(found) > 8, "the case has positives"
    return found


def total(
    cost: Callable[[Tensor, Tensor], Tensor],
    output: DenseOutput,
    assigned: Assignment,
    rows: list[Row],
    quality: dict[tuple[int, int], float] | None = None,
) -> Tensor:
    """A class loss summed over all priors that are positive or negative."""
    learned = {(image, p): label for image, p, _, label in rows}
    result = torch.zeros((), dtype=torch.float64)
    for image in range(2):
        for p in range(len(output.priors)):
            if assigned.positive[image, p] or assigned.negative[image, p]:
                wanted = torch.zeros(CLASSES, dtype=torch.float64)
                if (image, p) in learned:
                    wanted[learned[image, p]] = 1 if quality is None else quality[image, p]
                result = result + cost(output.logits[image, p], wanted).sum()
    return result


def focal(logit: Tensor, wanted: Tensor) -> Tensor:
    return sigmoid_focal_loss(logit, wanted, 0.25, 2)


def quality_focal(logit: Tensor, wanted: Tensor) -> Tensor:
    return (wanted - logit.sigmoid()).abs() ** 2 * bce(logit, wanted, reduction="none")


def giou(output: DenseOutput, row: Row) -> Tensor:
    image, p, box, _ = row
    return generalized_box_iou_loss(output.boxes[image, p][None], box[None], eps=0)[0]


def overlap(output: DenseOutput, row: Row) -> float:
    image, p, box, _ = row
    return slow.iou(output.boxes[image, p].tolist(), box.tolist())


def sides(output: DenseOutput, row: Row) -> list[float]:
    """How far the sides of the box lie from the middle of the prior, in pixels."""
    left, top, right, bottom = output.priors[row[1]].tolist()
    x, y = (left + right) / 2, (top + bottom) / 2
    box = row[2].tolist()
    return [x - box[0], y - box[1], box[2] - x, box[3] - y]


def centerness(output: DenseOutput, row: Row) -> float:
    left, top, right, bottom = sides(output, row)
    across, down = min(left, right) / max(left, right), min(top, bottom) / max(top, bottom)
    return math.sqrt(across * down)


def weighted(values: list[Tensor], factors: list[float] | list[Tensor]) -> Tensor:
    return sum(v * f for v, f in zip(values, factors, strict=True)) / sum(factors)


def branch(output: DenseOutput, name: str, rows: list[Row], wanted: Callable[[Row], float]) -> Tensor:
    """Binary cross entropy of a branch at the positive priors, their mean."""
    costs = [bce(output.extra[name][row[0], row[1]], torch.tensor(wanted(row), dtype=torch.float64)) for row in rows]
    return sum(costs) / len(rows)


def check_losses(name: str, expected: Callable[[DenseOutput, Targets, Assignment], dict[str, Tensor]]) -> None:
    """The losses of the recipe are those of the loop, and so are their gradients."""
    model, output, targets = case(name)
    found = model.criterion(output, targets)
    wanted = expected(output, targets, model.criterion.assigner(output, targets))
    inputs = [output.logits, output.deltas, *output.extra.values()]
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-12)
    mine = torch.autograd.grad(sum(found.values()), inputs, retain_graph=True)
    for a, b in zip(mine, torch.autograd.grad(sum(wanted.values()), inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-11)


@pytest.mark.part("recipe/atss")
def test_atss_weighs_boxes_by_their_centerness():
    """L = focal / N + 2 sum(c GIoU) / sum(c) + BCE(centerness) / N."""

    def expected(output: DenseOutput, targets: Targets, assigned: Assignment) -> dict[str, Tensor]:
        rows = rows_of(assigned, targets)
        central = partial(centerness, output)
        return {
            "class": total(focal, output, assigned, rows) / len(rows),
            "box": 2 * weighted([giou(output, row) for row in rows], [central(row) for row in rows]),
            "quality": branch(output, "centerness", rows, central),
        }

    check_losses("atss", expected)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        pytest.param("paa", 1.3, marks=pytest.mark.part("recipe/paa")),
        pytest.param("ota", 2.0, marks=pytest.mark.part("recipe/ota")),
    ],
)
def test_paa_and_ota_weigh_boxes_by_the_iou_that_they_predict(name, factor):
    """L = focal / N + factor sum(u GIoU) / sum(u) + 0.5 BCE(u) / N, u the IoU of the predicted box."""

    def expected(output: DenseOutput, targets: Targets, assigned: Assignment) -> dict[str, Tensor]:
        rows = rows_of(assigned, targets)
        good = partial(overlap, output)
        return {
            "class": total(focal, output, assigned, rows) / len(rows),
            "box": factor * weighted([giou(output, row) for row in rows], [good(row) for row in rows]),
            "quality": 0.5 * branch(output, "iou", rows, good),
        }

    check_losses(name, expected)


@pytest.mark.part("recipe/gfl")
def test_gfl_is_quality_focal_and_twice_giou_and_a_quarter_of_the_distributions():
    """L = QFL / N + sum(s (2 GIoU + 1/4 DFL)) / sum(s), DFL the mean of the sides and s the score of the class."""

    def expected(output: DenseOutput, targets: Targets, assigned: Assignment) -> dict[str, Tensor]:
        rows = rows_of(assigned, targets)
        quality = {(row[0], row[1]): overlap(output, row) for row in rows}
        scores = [output.logits[image, p, label].detach().sigmoid() for image, p, _, label in rows]
        spreads = []
        for row in rows:
            said = output.deltas[row[0], row[1]].reshape(4, 17)
            stride = float(output.strides[row[1], 0])
            side_losses = []
            for logits, side in zip(said, sides(output, row), strict=True):
                y = min(max(side / stride, 0), 15.99)
                below = int(y)
                near, far = (cross_entropy(logits[None], torch.tensor([b])) for b in (below, below + 1))
                side_losses.append((below + 1 - y) * near + (y - below) * far)
            spreads.append(sum(side_losses) / 4)
        return {
            "class": total(quality_focal, output, assigned, rows, quality) / len(rows),
            "box": 2 * weighted([giou(output, row) for row in rows], scores),
            "distribution": weighted(spreads, scores) / 4,
        }

    check_losses("gfl", expected)


@pytest.mark.part("recipe/iqdet")
def test_iqdet_wants_the_quality_of_its_distribution_as_score():
    """L = QFL(quality) / N + 2 mean GIoU + 0.5 BCE(IoU) / N."""

    def expected(output: DenseOutput, targets: Targets, assigned: Assignment) -> dict[str, Tensor]:
        rows = rows_of(assigned, targets)
        quality = {(row[0], row[1]): float(assigned.quality[row[0], row[1]]) for row in rows}
        assert min(quality.values()) < 0.9
        return {
            "class": total(quality_focal, output, assigned, rows, quality) / len(rows),
            "box": 2 * sum(giou(output, row) for row in rows) / len(rows),
            "quality": 0.5 * branch(output, "iou", rows, partial(overlap, output)),
        }

    check_losses("iqdet", expected)


@pytest.mark.part("recipe/matrixnet")
def test_matrixnet_regresses_corners_in_the_strides_of_its_levels():
    """L = focal / N + smooth L1 of the corners, x in strides along x and y along y, / N."""

    def expected(output: DenseOutput, targets: Targets, assigned: Assignment) -> dict[str, Tensor]:
        rows = rows_of(assigned, targets)
        stretched = sum(float(output.strides[p, 0]) != float(output.strides[p, 1]) for _, p, _, _ in rows)
        assert stretched > 3, "some objects belong to stretched levels"
        costs = []
        for row in rows:
            x, y = output.strides[row[1]].tolist()
            for said, side, step in zip(output.deltas[row[0], row[1]], sides(output, row), (x, y, x, y), strict=True):
                far = (said - side / step).abs()
                costs.append(far**2 / 2 if far < 1 else far - 0.5)
        return {"class": total(focal, output, assigned, rows) / len(rows), "box": sum(costs) / len(rows)}

    check_losses("matrixnet", expected)


@pytest.mark.part("recipe/densebox")
def test_densebox_squares_scores_of_as_many_hard_negatives_as_positives_and_distances_in_faces():
    """L = sum (s - s*)^2 / N over positives and as many negatives of each picture + 3 sum (d - d*)^2 / N."""

    def expected(output: DenseOutput, targets: Targets, assigned: Assignment) -> dict[str, Tensor]:
        rows = rows_of(assigned, targets)
        classes, boxes = [], []
        for image, p, _, label in rows:
            wanted = torch.zeros(CLASSES, dtype=torch.float64)
            wanted[label] = 1
            classes.append((output.logits[image, p].sigmoid() - wanted).square().sum())
        for image in range(2):
            nothing = assigned.negative[image].nonzero().flatten().tolist()
            costs = sorted((output.logits[image, p].sigmoid().square().sum() for p in nothing), key=lambda x: x.item())
            classes += costs[-sum(row[0] == image for row in rows) :]
        for row in rows:
            wanted = torch.tensor(sides(output, row), dtype=torch.float64) / 50
            boxes.append((output.deltas[row[0], row[1]] - wanted).square().sum())
        return {"class": sum(classes) / len(rows), "box": 3 * sum(boxes) / len(rows)}

    check_losses("densebox", expected)


@pytest.mark.part("recipe/freeanchor")
def test_freeanchor_wants_one_good_anchor_in_each_bag():
    """Bags of 50: -0.5 ln(mean-max of score * exp(-0.75 smooth L1)) / objects; the mean-max by its definition."""
    model, output, targets = case("freeanchor", moved=0.1)  # so that no two overlap an object equally
    criterion, coder = model.criterion, model.coder
    found = criterion(output, targets)
    costs = []
    for image, m in targets.valid.nonzero().tolist():
        box, label = targets.boxes[image, m], int(targets.labels[image, m])
        ious = [slow.iou(prior, box.tolist()) for prior in output.priors.tolist()]
        bag = sorted(range(len(ious)), key=lambda p: -ious[p])[:50]
        likely = []
        for p in bag:
            far = (output.deltas[image, p] - coder.encode(box, output.priors[p])).abs()
            apart = torch.where(far < 0.11, far**2 / 0.22, far - 0.055).sum()
            likely.append(output.logits[image, p, label].sigmoid() * torch.exp(-0.75 * apart))
        weights = [1 / (1 - x) for x in likely]
        costs.append(-torch.log(sum(w * x for w, x in zip(weights, likely, strict=True)) / sum(weights)))
    torch.testing.assert_close(found["positive"], 0.5 * sum(costs) / len(costs), rtol=1e-6, atol=0)
    assert set(found) == {"positive", "negative"}


@pytest.mark.part("recipe/autoassign")
def test_autoassign_weighs_places_by_how_sure_they_are_and_where_they_lie():
    """-0.25 ln(sum of w P) / objects: P = score * objectness * exp(-5 GIoU), shares w of exp(3 P) * centre prior."""
    model, output, targets = case("autoassign")
    found = model.criterion(output, targets)
    costs = []
    for image, m in targets.valid.nonzero().tolist():
        box, label = targets.boxes[image, m], int(targets.labels[image, m])
        likely, weights = [], []
        for p in range(len(output.priors)):
            row = (image, p, box, label)
            if min(sides(output, row)) <= 0:
                continue
            x, y = output.strides[p].tolist()
            left, top, right, bottom = sides(output, row)
            away = ((left - right) / 2 / x) ** 2 + ((top - bottom) / 2 / y) ** 2
            score = output.logits[image, p, label].sigmoid() * output.extra["objectness"][image, p].sigmoid()
            likely.append(score * torch.exp(-5 * giou(output, row)))
            weights.append(torch.exp(3 * likely[-1]) * math.exp(-away / 2))
        costs.append(-torch.log(weighted(likely, weights)))
    torch.testing.assert_close(found["positive"], 0.25 * sum(costs) / len(costs), rtol=1e-6, atol=0)
    assert set(found) == {"positive", "negative", "center"}


@pytest.mark.part("recipe/reppoints")
def test_reppoints_learns_its_first_points_at_one_cell_an_object():
    """0.5 smooth L1 of the corners in units of 4 strides at the cell of each object's centre, / objects."""
    model, output, targets = case("reppoints")
    found = model.criterion(output, targets)
    boxes = model.coder.decode(output.extra["points"], output.priors, output.strides)
    strides = sorted({int(s) for s in output.strides[:, 0].tolist()})
    costs, cells = [], set()
    for image, m in targets.valid.nonzero().tolist():
        left, top, right, bottom = targets.boxes[image, m].tolist()
        root = math.sqrt((right - left) * (bottom - top))
        stride = min(max(2 ** math.floor(math.log2(root / 4)), strides[0]), strides[-1])
        start = sum((SIZE // s) ** 2 for s in strides if s < stride)
        column, row = int((left + right) / 2 // stride), int((top + bottom) / 2 // stride)
        p = start + row * (SIZE // stride) + column
        assert (image, p) not in cells, "the case has no two objects in one cell"
        cells.add((image, p))
        far = ((boxes[image, p] - targets.boxes[image, m]) / (4 * stride)).abs()
        costs.append(torch.where(far < 0.11, far**2 / 0.22, far - 0.055).sum())
    torch.testing.assert_close(found["first"], 0.5 * sum(costs) / len(costs), rtol=1e-6, atol=0)
    assert set(found) == {"class", "first", "box"}

"""The whole objectives of the recipes against plain loops written from the papers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from tests.recipes.small import SMALL
from tests.unit.parts import slow
from torso.boxes.overlap import iou
from torso.criteria.targets import box_targets
from torso.losses import LOSSES
from torso.recipes.recipe import Recipe
from torso.structures import DenseOutput, Targets

CLASSES, SIDE = 3, 128


def case(name: str, overrides: list[str], seed: int = 0) -> tuple[Any, DenseOutput, Targets, list[Tensor]]:
    """A recipe's model, what it might say of three pictures, what they show, and the raw numbers."""
    generator = torch.Generator().manual_seed(seed)
    model = Recipe.load(name, [*SMALL[name], *overrides], without_data=True).model.build(num_classes=CLASSES)
    levels = [(SIDE // stride, SIDE // stride) for stride in model.neck.strides]
    boxes, strides = (x.double() for x in model.prior(levels))
    counts = tuple(h * w * k for (h, w), k in zip(levels, model.prior.per_cell, strict=True))

    def raw(*shape: int) -> Tensor:
        return torch.randn(3, len(boxes), *shape, generator=generator, dtype=torch.float64).requires_grad_()

    logits, deltas, objectness = raw(CLASSES), raw(4), raw()
    decoded = model.coder.decode(deltas, boxes, strides)
    output = DenseOutput(logits, deltas, decoded, boxes, counts, {"objectness": objectness}, strides, (SIDE, SIDE))
    # Objects in cells of their own; the last picture has none. Padding, and a region that does not count.
    places = torch.tensor([[20, 22], [61, 30], [101, 90], [30, 99]]).double()
    sizes = torch.tensor([[12, 20], [20, 29], [28, 52], [44, 40]]).double()
    objects = torch.cat([places - sizes / 2, places + sizes / 2], dim=1)
    region = torch.tensor([[64.0, 100, 128, 128]]).double()
    rows = torch.stack(
        [torch.cat([objects, region, region * 0]), torch.cat([objects.flip(0) + 2.5, region, region * 0])]
    )
    rows = torch.cat([rows, torch.zeros(1, 6, 4).double()])
    valid = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 0, 0], [0] * 6]).bool()
    ignore = torch.tensor([[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0], [0] * 6]).bool()
    labels = torch.randint(0, CLASSES, (3, 6), generator=generator)
    return model, output, Targets(rows, labels, valid, ignore), [logits, deltas, objectness]


def compare(found: dict[str, Tensor], expected: dict[str, Tensor], raw: list[Tensor]) -> None:
    """The same numbers and the same gradients."""
    assert set(found) == set(expected)
    for key, value in found.items():
        assert value > 0
        torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-12, msg=key)
    ours = torch.autograd.grad(sum(found.values()), raw, retain_graph=True)
    theirs = torch.autograd.grad(sum(expected.values()), raw)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-12)


def cell_of(box: list[float], stride: list[float]) -> tuple[int, int]:
    return math.floor((box[0] + box[2]) / 2 / stride[0]), math.floor((box[1] + box[3]) / 2 / stride[1])


def yolov3_loss(output: DenseOutput, targets: Targets) -> dict[str, Tensor]:
    """Sections 2.1 to 2.3: one prior an object, the others learn "nothing" unless they overlap one by more than 0.5."""
    classes = boxes = objectness = torch.zeros((), dtype=torch.float64)
    priors, strides, spared = output.priors.tolist(), output.strides.tolist(), 0
    for image in range(3):
        valid = [m for m in range(6) if targets.valid[image, m]]
        regions = [targets.boxes[image, m].tolist() for m in range(6) if targets.ignore[image, m]]
        learns = {best_prior(targets.boxes[image, m].tolist(), priors, strides): m for m in valid}
        assert len(learns) == len(valid), "the case has no rivals"
        for p, prior in enumerate(priors):
            said = output.extra["objectness"][image, p]
            if p not in learns:
                decoded = output.boxes[image, p].tolist()
                near = any(slow.iou(decoded, targets.boxes[image, m].tolist()) > 0.5 for m in valid)
                covered = any(slow.shared(prior, region) >= 0.5 * slow.area(prior) for region in regions)
                spared += near and not covered
                if not near and not covered:
                    objectness = objectness + cross_entropy(said, torch.zeros_like(said))
                continue
            objectness = objectness + cross_entropy(said, torch.ones_like(said))
            m = learns[p]
            for k in range(CLASSES):
                wanted = torch.tensor(float(targets.labels[image, m] == k), dtype=torch.float64)
                classes = classes + cross_entropy(output.logits[image, p, k], wanted)
            x0, y0, x1, y1 = targets.boxes[image, m].tolist()
            tx, ty, tw, th = output.deltas[image, p]
            for t, middle, stride in ((tx, (x0 + x1) / 2, strides[p][0]), (ty, (y0 + y1) / 2, strides[p][1])):
                place = middle / stride - math.floor(middle / stride)
                boxes = boxes + scale(x0, y0, x1, y1) * cross_entropy(t, torch.tensor(place, dtype=torch.float64))
            for t, side, own in ((tw, x1 - x0, prior[2] - prior[0]), (th, y1 - y0, prior[3] - prior[1])):
                boxes = boxes + scale(x0, y0, x1, y1) * 0.5 * (t - math.log(side / own)) ** 2
    assert spared, "the case has boxes that are too good to learn nothing"
    return {"class": classes / 3, "box": boxes / 3, "objectness": objectness / 3}


def best_prior(box: list[float], priors: list[list[float]], strides: list[list[float]]) -> int:
    """Of the cell of a box's centre, on all levels, the prior whose shape overlaps that of the box most."""
    best = (-1.0, -1)
    for p, prior in enumerate(priors):
        if cell_of(box, strides[p]) == cell_of(prior, strides[p]):
            shapes = [[0.0, 0.0, b[2] - b[0], b[3] - b[1]] for b in (box, prior)]
            best = max(best, (slow.iou(*shapes), -p))
    return -best[1]


def scale(x0: float, y0: float, x1: float, y1: float) -> float:
    """A small box counts up to twice."""
    return 2 - (x1 - x0) / SIDE * (y1 - y0) / SIDE


@pytest.mark.part("recipe/yolov3", "loss/yolov3", "coder/grid", "prior/kmeans", "criterion/dense")
def test_yolov3s_objective_is_the_papers_loop() -> None:
    model, output, targets, raw = case("yolov3", [])
    expected = yolov3_loss(output, targets)
    compare(model.criterion(output, targets), expected, raw)


def yolov1_loss(output: DenseOutput, targets: Targets, cells: int) -> dict[str, Tensor]:
    """Equation 3, with confidence and classes behind a sigmoid."""
    classes = boxes = objectness = torch.zeros((), dtype=torch.float64)
    side = SIDE / cells
    for image in range(3):
        learns: dict[int, tuple[int, float]] = {}
        for m in [m for m in range(6) if targets.valid[image, m]]:
            box = targets.boxes[image, m].tolist()
            column, row = cell_of(box, [side, side])
            slots = [(row * cells + column) * 2 + slot for slot in range(2)]
            overlaps = [slow.iou(output.boxes[image, p].tolist(), box) for p in slots]
            assert max(overlaps) > 0, "the case needs a responsible slot"
            learns[slots[overlaps.index(max(overlaps))]] = (m, max(overlaps))
        regions = [targets.boxes[image, m].tolist() for m in range(6) if targets.ignore[image, m]]
        for p, prior in enumerate(output.priors.tolist()):
            confidence = output.extra["objectness"][image, p].sigmoid()
            if p not in learns:
                if not any(slow.shared(prior, region) >= 0.5 * slow.area(prior) for region in regions):
                    objectness = objectness + 0.5 * confidence**2
                continue
            m, overlap = learns[p]
            objectness = objectness + (confidence - overlap) ** 2
            for k in range(CLASSES):
                classes = classes + (output.logits[image, p, k].sigmoid() - float(targets.labels[image, m] == k)) ** 2
            x0, y0, x1, y1 = targets.boxes[image, m].tolist()
            x, y, root_w, root_h = output.deltas[image, p]
            boxes = boxes + 5 * ((x - (x0 + x1) / 2 / side % 1) ** 2 + (y - (y0 + y1) / 2 / side % 1) ** 2)
            boxes = boxes + 5 * (root_w - math.sqrt((x1 - x0) / SIDE)) ** 2
            boxes = boxes + 5 * (root_h - math.sqrt((y1 - y0) / SIDE)) ** 2
    return {"class": classes / 3, "box": boxes / 3, "objectness": objectness / 3}


YOLOV1 = [
    "model.backbone={name: tiny, widths: [8, 8, 8, 8], levels: [4]}",
    "model.head.grid=[8, 8]",
    "model.coder.unit=8",
]


@pytest.mark.part("recipe/yolov1", "loss/mse", "coder/grid", "prior/grid", "criterion/dense")
def test_yolov1s_objective_is_the_papers_loop() -> None:
    model, output, targets, raw = case("yolov1", YOLOV1)
    compare(model.criterion(output, targets), yolov1_loss(output, targets, 8), raw)


@pytest.mark.part("recipe/yolov1", "loss/yolov1")
def test_yolov1s_objective_is_the_loss_on_a_whole_grid() -> None:
    """The same sum from one tensor of ``S x S x (B * 5 + C)``, where no region is left out."""
    model, output, targets, _ = case("yolov1", YOLOV1)
    targets = Targets(targets.boxes, targets.labels, targets.valid, targets.ignore & False)
    logits = output.logits.reshape(3, 64, 2, CLASSES)[:, :, :1].expand(-1, -1, 2, -1)  # a cell's classes
    output = output._replace(logits=logits.reshape(3, 128, CLASSES))
    slots = torch.cat([output.deltas, output.extra["objectness"].sigmoid()[..., None]], dim=-1).reshape(3, 64, 10)
    prediction = torch.cat([slots, logits[:, :, 0].sigmoid()], dim=-1).reshape(3, 8, 8, 10 + CLASSES)
    wanted = torch.zeros(3, 8, 8, 5 + CLASSES, dtype=torch.float64)
    for image, m in targets.valid.nonzero().tolist():
        x0, y0, x1, y1 = targets.boxes[image, m].tolist()
        column, row = cell_of([x0, y0, x1, y1], [16, 16])
        slot = [(x0 + x1) / 32 - column, (y0 + y1) / 32 - row, (x1 - x0) / SIDE, (y1 - y0) / SIDE, 1.0]
        wanted[image, row, column, :5] = torch.tensor(slot, dtype=torch.float64)
        wanted[image, row, column, 5 + targets.labels[image, m]] = 1
    expected = LOSSES["yolov1"]()(prediction, wanted, reduction="sum") / 3
    torch.testing.assert_close(sum(model.criterion(output, targets).values()), expected)


@pytest.mark.part("recipe/yolov1")
@pytest.mark.parametrize("classes", [1, 4], ids=["one class", "one-hot"])
def test_a_toy_grid_divides_the_objects_of_a_cell_between_a_small_and_a_large_slot(classes: int) -> None:
    overrides = [
        "model.backbone={name: grid, stride: 32, width: 4, channels: 8}",
        "model.neck=concat",
        "model.head.grid=null",
    ]
    overrides += ["model.prior.slots=[1, 4]", "model.coder.unit=1", "model.assigner.match=shape"]
    model = Recipe.load("yolov1", overrides, without_data=True).model.build(num_classes=classes)
    output = model(torch.zeros(1, 3, SIDE, SIDE))
    boxes = torch.tensor([[[70.0, 70, 90, 90], [20, 20, 130, 130]]])  # both centres lie in cell (2, 2)
    targets = Targets(boxes, torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2).bool(), torch.zeros(1, 2).bool())
    assigned = model.criterion.assigner(output, targets)
    small = (2 * 4 + 2) * 2
    assert assigned.positive[0].nonzero().flatten().tolist() == [small, small + 1]
    assert assigned.matched[0, small : small + 2].tolist() == [0, 1]
    losses = model.criterion(output, targets)
    sum(losses.values()).backward()
    assert all(loss > 0 for loss in losses.values())
    assert output.logits.shape == (1, 32, classes)


@pytest.mark.part("recipe/yolov2", "recipe/yolov4", "recipe/yolov5", "recipe/yolox", "recipe/pp_yolo")
@pytest.mark.parametrize("name", ["yolov2", "yolov4", "yolov5", "yolox", "pp_yolo"])
def test_a_few_steps_on_one_picture_teach_where_and_what(name: str) -> None:
    """Losses fall, and the boxes that objects are learned by come nearer. Whole overfits: benchmarks/overfit.py."""
    torch.manual_seed(0)
    overrides = [*SMALL[name], "model.head.drop=null"] if name in ("yolov4", "pp_yolo") else SMALL[name]
    model = Recipe.load(name, overrides, without_data=True).model.build(num_classes=CLASSES).train()
    boxes = torch.tensor([[[8.0, 10, 22, 32], [60, 40, 84, 80]], [[40.0, 70, 70, 120], [90, 20, 104, 40]]])
    labels = torch.tensor([[0, 1], [2, 0]])
    images = torch.full((2, 3, SIDE, SIDE), 90, dtype=torch.uint8)
    for image, row in enumerate(boxes.int().tolist()):
        for (x0, y0, x1, y1), label in zip(row, labels[image].tolist(), strict=True):
            images[image, label, y0:y1, x0:x1] = 250
    targets = Targets(boxes, labels, torch.ones(2, 2).bool(), torch.zeros(2, 2).bool())
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    totals, overlaps = [], []
    for _ in range(25):
        output = model(images)
        losses = model.criterion(output, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        totals.append(float(sum(losses.values()).detach()))
        assigned = model.criterion.assigner(output, targets)
        wanted = box_targets(assigned, targets, output.priors)
        overlaps.append(float(iou(output.boxes.detach(), wanted)[assigned.positive].mean()))
    assert totals[-1] < 0.75 * totals[0]
    assert overlaps[-1] > overlaps[0]

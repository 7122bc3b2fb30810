"""YOLOv1's loss against plain loops over cells, in three forms: one class, several, and a slot for each size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torso.assigners import ASSIGNERS
from torso.boxes.coders import CODERS
from torso.boxes.priors import PRIORS
from torso.criteria import DenseCriterion
from torso.losses import MSE, YOLOv1
from torso.structures import DenseOutput, Targets

COORD, NOOBJ = 5.0, 0.5


def corners(x: float, y: float, w: float, h: float, row: int, column: int, rows: int, columns: int) -> list[float]:
    """Of a slot, in shares of the picture."""
    x, y = (column + x) / columns, (row + y) / rows
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union


def apart(guess: list[float], truth: list[float]) -> float:
    """Squares of x, y and the roots of the sides; roots are what is predicted."""
    place = (guess[0] - truth[0]) ** 2 + (guess[1] - truth[1]) ** 2
    return place + (guess[2] - math.sqrt(truth[2])) ** 2 + (guess[3] - math.sqrt(truth[3])) ** 2


def cell_of_rivals(guess: list[float], truth: list[float], num_slots: int, at: tuple[int, ...]) -> float:
    """Equation 3 for one cell: ``num_slots`` boxes compete for its object."""
    slots = [guess[5 * k : 5 * k + 5] for k in range(num_slots)]
    classes = guess[5 * num_slots :]
    if truth[4] == 0:
        return NOOBJ * sum(slot[4] ** 2 for slot in slots)
    box = corners(*truth[:4], *at)
    overlaps = [overlap(corners(s[0], s[1], s[2] ** 2, s[3] ** 2, *at), box) for s in slots]
    if max(overlaps) > 0:
        best = overlaps.index(max(overlaps))
    else:
        best = min(range(num_slots), key=lambda k: apart(slots[k], truth))
    cost = COORD * apart(slots[best], truth) + (slots[best][4] - overlaps[best]) ** 2
    cost += NOOBJ * sum(slot[4] ** 2 for k, slot in enumerate(slots) if k != best)
    return cost + sum((p - t) ** 2 for p, t in zip(classes, truth[5:], strict=True))


def cell_of_own(guess: list[float], truth: list[float], num_slots: int, at: tuple[int, ...]) -> float:
    """The same where each slot has its own object and its own classes."""
    length, cost = len(guess) // num_slots, 0.0
    for k in range(num_slots):
        slot, wanted = guess[k * length : (k + 1) * length], truth[k * length : (k + 1) * length]
        if wanted[4] == 0:
            cost += NOOBJ * slot[4] ** 2
            continue
        iou = overlap(corners(slot[0], slot[1], slot[2] ** 2, slot[3] ** 2, *at), corners(*wanted[:4], *at))
        cost += COORD * apart(slot, wanted) + (slot[4] - iou) ** 2
        cost += sum((p - t) ** 2 for p, t in zip(slot[5:], wanted[5:], strict=True))
    return cost


def grids(num_slots: int, num_classes: int, own: bool) -> tuple[Tensor, Tensor]:
    """Two pictures of 3 x 4 cells, some with objects, near ones and far ones."""
    generator = torch.Generator().manual_seed(num_slots + num_classes)
    groups = num_slots if own else 1
    truth = torch.rand(2, 3, 4, groups, 5 + num_classes, generator=generator, dtype=torch.float64)
    truth[..., 2:4] = 0.05 + 0.6 * truth[..., 2:4]
    truth[..., 4] = (truth[..., 4] > 0.4).double()
    if num_classes:
        label = torch.randint(0, num_classes, truth.shape[:-1], generator=generator)
        truth[..., 5:] = torch.nn.functional.one_hot(label, num_classes)
    truth = truth * truth[..., 4:5]
    length = num_slots * (5 + num_classes) if own else num_slots * 5 + num_classes
    guess = torch.rand(2, 3, 4, length, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    for k in range(num_slots):
        guess[:, 0, :, k * length // num_slots if own else 5 * k] += (
            7  # far from everything: no box of these cells overlaps its object
        )
    return guess, truth.flatten(-2)


@pytest.mark.part("loss/yolov1")
@pytest.mark.parametrize(
    ("num_slots", "num_classes", "slots"),
    [
        (1, 0, "rivals"),
        (1, 1, "rivals"),  # one class
        (2, 1, "rivals"),
        (2, 20, "rivals"),  # the paper's
        (3, 4, "rivals"),
        (2, 0, "own"),
        (2, 3, "own"),  # a large and a small object a cell
    ],
)
def test_yolov1_is_the_sum_over_cells(num_slots, num_classes, slots):
    guess, truth = grids(num_slots, num_classes, own=slots == "own")
    cell = cell_of_own if slots == "own" else cell_of_rivals
    expected = torch.zeros(2, 3, 4, dtype=torch.float64)
    for b in range(2):
        for row in range(3):
            for column in range(4):
                at = row, column, 3, 4
                expected[b, row, column] = cell(
                    guess[b, row, column].tolist(), truth[b, row, column].tolist(), num_slots, at
                )
    loss = YOLOv1(num_slots, slots)
    torch.testing.assert_close(loss(guess, truth), expected)
    torch.testing.assert_close(loss(guess, truth, reduction="mean", avg_factor=2), expected.sum() / 2)


@pytest.mark.part("loss/yolov1")
def test_the_far_cells_of_the_test_are_far_and_the_others_not():
    guess, truth = grids(2, 3, own=False)
    loss = YOLOv1(2)
    found = loss._overlap(*(loss._taken_apart(guess, truth)[i] for i in (0, 2)))
    there = truth[..., 4] > 0
    assert not found[:, 0][there[:, 0]].any()
    assert found[:, 1:][there[:, 1:]].any(-1).any()
    assert there[:, 0].any()
    assert not there.all()


@pytest.mark.part("loss/yolov1")
def test_only_the_responsible_slot_learns_the_box():
    truth = torch.tensor([0.5, 0.5, 0.36, 0.36, 1.0, 0, 1]).reshape(1, 1, 1, 7)
    guess = torch.tensor([0.5, 0.5, 0.3, 0.3, 0.2, 0.6, 0.5, 0.6, 0.6, 0.7, 0.1, 0.9]).reshape(1, 1, 1, 12)
    guess.requires_grad_()
    YOLOv1()(guess, truth).sum().backward()
    slope = guess.grad.flatten()
    assert not slope[:4].any(), "the first slot overlaps it less"
    assert float(slope[4]) == pytest.approx(2 * 0.5 * 0.2), "and learns that there is nothing"
    assert float(slope[5]) == pytest.approx(2 * 5 * 0.1)
    iou = (0.36 * 0.36 - 0.1 * 0.36) / (0.36 * 0.36 + 0.1 * 0.36)
    assert float(slope[9]) == pytest.approx(2 * (0.7 - iou), rel=1e-4)
    torch.testing.assert_close(slope[10:], torch.tensor([0.2, -0.2]))
    guess.grad = None
    YOLOv1(confidence="one")(guess, truth).sum().backward()
    assert float(guess.grad.flatten()[9]) == pytest.approx(2 * (0.7 - 1), rel=1e-5)


@pytest.mark.part("loss/yolov1")
@pytest.mark.parametrize("objects", [0, 1, 6])
def test_the_parts_of_the_recipe_make_the_same_objective(objects):
    """A dense criterion of squares on a grid of two predictors a cell; where it takes sigmoids, so do we."""
    generator = torch.Generator().manual_seed(objects)
    boxes = torch.rand(2, objects, 4, generator=generator, dtype=torch.float64) * 200
    boxes[..., 2:] += boxes[..., :2] + 10
    valid = torch.ones(2, objects, dtype=torch.bool)
    labels = torch.randint(0, 3, (2, objects), generator=generator)
    targets = Targets(boxes, labels, valid, ~valid)

    prior, coder = PRIORS["grid"](strides=[64], slots=[1, 1]), CODERS["grid"](centre="linear", side="root", unit=7)
    places, strides = (x.double() for x in prior([(7, 7)]))
    deltas = torch.rand(2, 98, 4, generator=generator, dtype=torch.float64)
    logits = torch.randn(2, 49, 1, 3, generator=generator, dtype=torch.float64).expand(-1, -1, 2, -1).reshape(2, 98, 3)
    sure = torch.randn(2, 98, generator=generator, dtype=torch.float64)
    output = DenseOutput(
        logits, deltas, coder.decode(deltas, places, strides), places, (98,), {"objectness": sure}, strides, (448, 448)
    )
    criterion = DenseCriterion(
        ASSIGNERS["grid"](match="overlap", ignore_above=1.0),
        MSE("scores"),
        MSE(),
        coder,
        box_weight=5.0,
        average="pictures",
        objectness_loss=MSE("scores"),
        objectness_target="iou",
        nothing_weight=0.5,
    )
    found = sum(criterion(output, targets).values())

    slots = torch.cat([deltas, sure.sigmoid()[..., None]], dim=-1).reshape(2, 7, 7, 10)
    guess = torch.cat([slots, logits.sigmoid().reshape(2, 7, 7, 2, 3)[..., 0, :]], dim=-1)
    truth = torch.zeros(2, 7, 7, 8, dtype=torch.float64)
    for b in range(2):
        for box, label in zip(boxes[b].tolist(), labels[b].tolist(), strict=True):
            x, y = (box[0] + box[2]) / 128, (box[1] + box[3]) / 128  # in cells
            cell = truth[b, int(y), int(x)]
            if cell[4] == 0:  # the first of several
                size = (box[2] - box[0]) / 448, (box[3] - box[1]) / 448
                cell[:5] = torch.tensor([x - int(x), y - int(y), *size, 1], dtype=torch.float64)
                cell[5 + label] = 1
    torch.testing.assert_close(found, YOLOv1()(guess, truth, reduction="mean", avg_factor=2))


@pytest.mark.part("loss/yolov1")
@pytest.mark.parametrize(
    ("loss", "guess", "truth"),
    [
        (YOLOv1(), 13, 13),
        (YOLOv1(), 9, 5),
        (YOLOv1(slots="own"), 13, 13),
        (YOLOv1(slots="own"), 16, 8),
        (YOLOv1(slots="own"), 8, 8),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(loss, guess, truth):
    with pytest.raises(ValueError, match=r"2 slots of the kind .* do not fit a prediction"):
        loss(torch.zeros(1, 2, 2, guess), torch.zeros(1, 2, 2, truth))

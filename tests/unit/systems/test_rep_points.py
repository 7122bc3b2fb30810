"""RepPoints: where the head looks, what its points become, and its objective against loops over priors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from tests.unit.parts import slow
from torso.assigners import MaxIoU, Scale
from torso.boxes.coders import Delta, RepPoints
from torso.boxes.points import Points
from torso.criteria import CRITERIA
from torso.heads import HEADS
from torso.losses import LOSSES, Focal, SmoothL1
from torso.structures import DenseOutput, Targets


def bilinear(plane: list[list[float]], y: float, x: float) -> float:
    """The value between four cells; 0 where a cell is outside."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < len(plane) and 0 <= column < len(plane[0]):
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row][column]
    return total


def tiny_head(
    size: int = 18, per_cell: int = 1, branches: tuple[str, ...] = ("points",), classes: int = 2
) -> nn.Module:
    """A head without towers on two channels, with weights that are all of their own."""
    torch.manual_seed(0)
    head = HEADS["rep_points"]([2], classes, [per_cell], size, branches, depth=0).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return head


@pytest.mark.part("head/rep_points")
def test_the_head_reads_its_features_where_its_first_points_lie():
    """Tap i of the cell in row y and column x reads at (x, y) + point i: for classes and for the second points."""
    head = tiny_head()
    x = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    output = head([x])
    points = output.extra["points"].detach()
    assert points.abs().max() > 1, "some points lie in other cells"
    planes = x[0].tolist()
    for p in range(12):
        row, column = p // 4, p % 4
        at = points[0, p].tolist()  # x and y in turn
        seen = [[bilinear(plane, row + at[2 * i + 1], column + at[2 * i]) for i in range(9)] for plane in planes]
        read = torch.tensor(seen, dtype=torch.float64).reshape(2, 3, 3)
        for taps, last, found in (
            (head.class_taps, head.class_logits, output.logits[0, p]),
            (head.box_taps, head.box_deltas, output.deltas[0, p] - points[0, p]),
        ):
            hidden = (taps.weight * read).sum(dim=(1, 2, 3)).relu()
            torch.testing.assert_close(found, last.weight[:, :, 0, 0] @ hidden + last.bias, rtol=1e-9, atol=1e-9)


@pytest.mark.part("head/rep_points")
def test_second_points_teach_the_first_only_where_to_look_and_that_a_little():
    x = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradients = []
    for share in (1.0, 0.1, 0.0):
        head = tiny_head()
        head.through_taps = share
        head([x]).deltas.square().sum().backward()
        gradients.append(head.first_points.weight.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0] * 0.1)
    assert not gradients[2].any()


@pytest.mark.part("head/rep_points")
def test_classes_come_of_one_tower_and_all_points_of_the_other():
    torch.manual_seed(0)
    head = HEADS["rep_points"]([8], 2, [1], 20, ["points"], depth=1)
    for parameter in head.parameters():
        parameter.data += torch.randn_like(parameter) * 0.3
    output = head([torch.randn(2, 8, 4, 4)])
    towers = head.class_tower[0][0].weight, head.box_tower[0][0].weight
    learned = {
        name: [
            x is not None and bool(x.any())
            for x in torch.autograd.grad(y.sum(), towers, retain_graph=True, allow_unused=True)
        ]
        for name, y in (("class", output.logits), ("first", output.extra["points"]), ("second", output.deltas))
    }
    # The box tower also says where the class tower's features are read.
    assert learned == {"class": [True, True], "first": [False, True], "second": [False, True]}


@pytest.mark.part("head/rep_points")
def test_the_factors_of_a_moment_are_the_same_everywhere_and_learn_slowly():
    head = tiny_head(20)
    output = head([torch.randn(2, 2, 3, 3, dtype=torch.float64)])
    for points in (output.deltas, output.extra["points"]):
        assert points.shape == (2, 9, 20)
        assert (points[..., 18:] == head.factors).all()
    output.deltas[..., 18:].sum().backward()
    torch.testing.assert_close(head.factors.grad, torch.full((2,), 18 * 0.01, dtype=torch.float64))


@pytest.mark.part("head/rep_points")
def test_priors_of_a_cell_look_with_points_of_their_own():
    """Two priors a cell are what two heads of one prior say with the same layers."""
    both, alone = tiny_head(20, per_cell=2), tiny_head(20)
    x = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    state = both.state_dict()
    for prior in range(2):
        rows = slice(18 * prior, 18 * (prior + 1))
        alone.load_state_dict({k: v[rows] if k.startswith("first_points") else v for k, v in state.items()})
        mine, expected = both([x]), alone([x])
        torch.testing.assert_close(mine.logits[:, prior::2], expected.logits)
        torch.testing.assert_close(mine.deltas[:, prior::2], expected.deltas)
        torch.testing.assert_close(mine.extra["points"][:, prior::2], expected.extra["points"])


@pytest.mark.part("head/rep_points", "criterion/rep_points")
def test_parts_that_do_not_fit_are_told_in_a_sentence():
    with pytest.raises(ValueError, match="18 or 20 numbers, but the coder has 4"):
        tiny_head(4)
    with pytest.raises(ValueError, match="asks for points, which this head does not say"):
        HEADS["retina"]([2], 2, [1], 20, ["points"])
    criterion = CRITERIA["rep_points"]
    with pytest.raises(ValueError, match="needs the coder rep_points, got Delta"):
        criterion(MaxIoU(), Focal(), SmoothL1(), Delta())
    with pytest.raises(ValueError, match="class loss of scores"):
        criterion(MaxIoU(), SmoothL1(), SmoothL1(), RepPoints())
    with pytest.raises(ValueError, match="box loss of deltas or boxes"):
        criterion(MaxIoU(), Focal(), LOSSES["kl_box"](), RepPoints())


def case(seed: int) -> tuple[DenseOutput, Targets]:
    """Points of two levels that already lie around objects of many sizes, in two pictures of 64 px."""
    generator = torch.Generator().manual_seed(seed)
    priors = Points([8, 16])([(8, 8), (4, 4)])
    boxes, strides = priors.boxes.double(), priors.strides.double()
    low = torch.rand(2, 7, 2, generator=generator, dtype=torch.float64) * 40
    size = torch.rand(2, 7, 2, generator=generator, dtype=torch.float64) * 50 + 4
    kind = torch.arange(7).expand(2, 7)
    targets = Targets(torch.cat([low, low + size], -1), kind % 3, valid=kind < 5, ignore=kind == 5)
    coder = RepPoints()
    near = boxes + torch.randn(2, 80, 4, generator=generator, dtype=torch.float64) * 4
    near[:, :30] = targets.boxes[:, :5].repeat(1, 6, 1) + torch.randn(2, 30, 4, generator=generator).double() * 4
    near = torch.cat([near[..., :2], torch.maximum(near[..., :2] + 1, near[..., 2:])], -1)
    first = coder.encode(near, boxes, strides) + torch.randn(2, 80, 20, generator=generator).double() * 0.1
    deltas = (first + torch.randn(2, 80, 20, generator=generator).double() * 0.1).requires_grad_()
    logits = torch.randn(2, 80, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    extra = {"points": first.requires_grad_()}
    decoded = coder.decode(deltas, boxes, strides)
    return DenseOutput(logits, deltas, decoded, boxes, (64, 16), extra, strides, (64, 64)), targets


def slow_losses(output: DenseOutput, targets: Targets) -> dict[str, Tensor]:
    """Picture by picture and prior by prior, from the paper and its authors' numbers."""
    guess = RepPoints().decode(output.extra["points"], output.priors, output.strides)
    first = Scale()(output, targets)

    def corners(box: Tensor, wanted: Tensor, stride: Tensor) -> Tensor:
        far = ((box - wanted) / (4 * stride[0])).abs()
        return torch.where(far < 1 / 9, 4.5 * far.square(), far - 1 / 18).sum()

    sums = {name: torch.zeros((), dtype=torch.float64) for name in ("class", "first", "box")}
    counts = {"first": 0, "box": 0}
    for image in range(2):
        learns, negative = slow.max_iou(guess[image].detach(), targets, image)
        for p in range(len(output.priors)):
            stride = output.strides[p]
            if first.positive[image, p]:
                counts["first"] += 1
                sums["first"] += corners(guess[image, p], targets.boxes[image, first.matched[image, p]], stride)
            m = learns[p]
            if m is None and not negative[p]:
                continue
            wanted = torch.zeros(3, dtype=torch.float64)
            if m is not None:
                counts["box"] += 1
                wanted[targets.labels[image, m]] = 1
                sums["box"] += corners(output.boxes[image, p], targets.boxes[image, m], stride)
            sums["class"] += sigmoid_focal_loss(output.logits[image, p], wanted).sum()
    assert counts["first"] >= 8
    assert counts["box"] > counts["first"]
    return {
        "class": sums["class"] / counts["box"],
        "first": 0.5 * sums["first"] / counts["first"],
        "box": sums["box"] / counts["box"],
    }


@pytest.mark.part("criterion/rep_points")
@pytest.mark.parametrize("seed", [0, 1])
def test_the_objective_equals_a_loop_over_pictures_and_priors(seed):
    output, targets = case(seed)
    found = CRITERIA["rep_points"](MaxIoU(), Focal(), SmoothL1(), RepPoints())(output, targets)
    expected = slow_losses(output, targets)
    assert list(found) == ["class", "first", "box"]
    inputs = [output.logits, output.deltas, output.extra["points"]]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=0)
        mine = torch.autograd.grad(found[name], inputs, retain_graph=True, allow_unused=True)
        theirs = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
        for a, b, x in zip(mine, theirs, inputs, strict=True):
            zero = torch.zeros_like(x)
            torch.testing.assert_close(zero if a is None else a, zero if b is None else b, rtol=1e-8, atol=1e-12)


@pytest.mark.part("criterion/rep_points")
@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
@pytest.mark.parametrize("class_loss", ["focal", "cross_entropy"])
def test_other_losses_and_pictures_without_objects_stay_finite(class_loss, box_loss):
    output, targets = case(2)
    criterion = CRITERIA["rep_points"](MaxIoU(), LOSSES[class_loss](), LOSSES[box_loss](), RepPoints())
    assert criterion.background == (class_loss == "cross_entropy")
    none = torch.zeros_like(targets.valid)
    for seen in (targets, Targets(targets.boxes, targets.labels, none, none)):
        losses = criterion(output, seen)
        gradients = torch.autograd.grad(
            sum(losses.values()), [output.logits, output.deltas, output.extra["points"]], retain_graph=True
        )
        assert all(x.isfinite().all() for x in [*losses.values(), *gradients])
    assert losses["box"] == losses["first"] == 0
    assert losses["class"] > 0


@pytest.mark.part("criterion/rep_points")
def test_weights_of_objects_multiply_their_losses_and_it_is_one_graph_that_waits_for_nothing():
    output, targets = case(3)
    criterion = CRITERIA["rep_points"](MaxIoU(), Focal(), SmoothL1(), RepPoints())
    plain = criterion(output, targets)
    half = criterion(output, Targets(*targets_of(targets), weights=torch.full((2, 7), 0.5)))
    for name in ("first", "box"):
        torch.testing.assert_close(half[name], plain[name] / 2)
    output = output._replace(boxes=output.boxes.detach().requires_grad_())  # the compiler wants leaves
    report = torch._dynamo.explain(criterion)(output, targets)
    assert report.graph_break_count == 0, report.break_reasons
    with slow.NoWaiting(), torch.no_grad():
        criterion(output, targets)


def targets_of(targets: Targets) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return targets.boxes, targets.labels, targets.valid, targets.ignore

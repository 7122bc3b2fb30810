"""Contract checks that anybody can run on a part of their own: each raises ``AssertionError`` with one sentence.

>>> import torso.testing, torso.necks
>>> torso.testing.check_neck(lambda c, s: torso.necks.FPN(c, s, channels=8))

They are what torso's own tests walk over every part with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from torso.assigners.max_iou import MaxIoU
from torso.boxes.cells import pair
from torso.data import Index
from torso.heads.dense import BRANCHES, HeadOutput
from torso.structures import Assignment, DenseOutput, Detections, Features, Targets
from torso.testing.module import check_module
from torso.testing.regions import check_roi, check_roi_head

__all__ = [
    "check_assigner",
    "check_backbone",
    "check_dataset",
    "check_head",
    "check_loss",
    "check_module",
    "check_neck",
    "check_roi",
    "check_roi_head",
    "check_sample",
    "check_suppressor",
    "dense_case",
]

CHANNELS, STRIDES = [8, 16, 24], [8, 16, 32]
LOSS_TAKES = ("scores", "classes", "deltas", "uncertain", "distribution", "object", "boxes", "embeddings", "grid")


def check_backbone(backbone: nn.Module, size: int = 64, *, compiles: bool = True) -> None:
    """A backbone tells the truth about ``channels`` and ``strides``, learns, and survives the checks of `check_module`.

    Args:
        backbone: the part, constructed.
        size: side of the pictures in pixels; a multiple of the largest stride.
        compiles: try ``torch.compile`` too, which costs 5 to 30 s for a deep network.
    """
    channels, strides = _pyramid(backbone)
    for name in ("mean", "std"):
        assert len(getattr(backbone, name, ())) == 3, f"a backbone has `{name}`, three numbers in 0..1 units"
    # Two pictures of two sizes: batch norm needs more than one value a channel in training.
    for height, width in ((size, size), (size, 2 * size)):
        _check_features(backbone(torch.rand(2, 3, height, width)), channels, strides, height, width)
    # It requires a gradient, for a backbone may let the pixels pass as they are.
    check_module(backbone, lambda: (torch.rand(2, 3, size, size, requires_grad=True),), compiles=compiles)


def check_neck(make: Callable[[list[int], list[int]], nn.Module]) -> None:
    """A neck tells the truth about ``channels`` and ``strides``, learns, and survives the checks of `check_module`.

    Args:
        make: constructs the neck from ``in_channels`` and ``strides`` of the levels.
    """
    neck = make(CHANNELS, STRIDES)
    channels, strides = _pyramid(neck)
    for height, width in ((64, 64), (264, 392)):  # the second divides by no stride above 8
        _check_features(neck(_features(height, width)), channels, strides, height, width)
    # They require gradients, for a neck may let a level pass as it is.
    check_module(neck, lambda: ([x.requires_grad_() for x in _features(64, 64)],))


def check_head(make: Callable[..., nn.Module], num_classes: int = 3) -> None:
    """A dense head gives ``[B, P, C]`` logits, ``[B, P, D]`` deltas and the branches that are asked for.

    Args:
        make: called with ``in_channels``, ``num_classes``, ``num_priors``, ``coder_size`` and ``branches``.
        num_classes: classes to try it with.
    """
    branches = ["objectness", "centerness", "iou", "variance"]
    head = make(in_channels=[8, 8], num_classes=num_classes, num_priors=[2, 2], coder_size=4, branches=branches)
    features = [torch.rand(2, 8, 8, 8), torch.rand(2, 8, 4, 4)]
    count = (64 + 16) * 2
    assert list(head.num_priors) == [2, 2], "num_priors is kept, a number a level"  # type: ignore[arg-type]
    for classes in (num_classes, num_classes + 2):
        output: HeadOutput = head(features)
        assert output.logits.shape == (2, count, classes), f"logits are [B, P, C], got {list(output.logits.shape)}"
        assert output.deltas.shape == (2, count, 4), f"deltas are [B, P, D], got {list(output.deltas.shape)}"
        assert set(output.extra) == set(branches), f"the head says what it is asked for, got {list(output.extra)}"
        for name, x in output.extra.items():
            shape = (2, count, 4) if name == "variance" else (2, count)
            assert x.shape == shape, f"{name} is {list(shape)}, got {list(x.shape)}"
        for part in [head, *head.modules()]:
            if hasattr(part, "reset_classes"):
                part.reset_classes(num_classes + 2)  # type: ignore[operator]
    check_module(head, lambda: ([torch.rand(2, 8, 8, 8), torch.rand(2, 8, 4, 4)],))


def check_assigner(assigner: nn.Module) -> None:
    """An assigner is batched, keeps ignored regions out, and works with no objects, one, and hundreds."""
    for count in (0, 1, 300):
        output, targets = dense_case(count)
        assigned: Assignment = assigner(output, targets)
        shape = output.logits.shape[:2]
        assert assigned.matched.shape == assigned.positive.shape == assigned.negative.shape == shape, (
            "fields are [B, P]"
        )
        assert assigned.matched.dtype == torch.int64, "matched is int64"
        assert not (assigned.positive & assigned.negative).any(), "a prior is not both positive and negative"
        if count:
            learned = targets.valid.gather(1, assigned.matched)
            assert learned[assigned.positive].all(), "a positive prior learns a valid object, never padding"
        else:
            assert not assigned.positive.any(), "without objects nothing is positive"
        alone = [
            assigner(_picture(output, i), Targets(*(x[i : i + 1] for x in _rows(targets)))) for i in range(shape[0])
        ]
        for field in ("matched", "positive", "negative"):
            together = getattr(assigned, field)
            assert torch.equal(together, torch.cat([getattr(a, field) for a in alone])), (
                "pictures do not see each other"
            )
    output, targets = dense_case(4)
    everything = Targets(
        torch.tensor([[[-1e4, -1e4, 1e4, 1e4]]] * 2),
        torch.zeros(2, 1, dtype=torch.int64),
        torch.zeros(2, 1, dtype=torch.bool),
        torch.ones(2, 1, dtype=torch.bool),
    )
    assigned = assigner(output, everything)
    assert not (assigned.positive | assigned.negative).any(), "nothing is learned from a prior in an ignored region"


def check_sample(sample: nn.Module) -> None:
    """A sampler takes a part of what was assigned, with finite weights that no cost gets a gradient from."""
    for count in (0, 1, 10, 300):
        output, targets = dense_case(count)
        targets = targets.with_a_row()
        assigned: Assignment = MaxIoU()(output, targets)
        costs = [torch.rand(2, 80, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(2)]
        chosen = []
        for _ in range(2):
            torch.manual_seed(0)
            chosen.append(sample(assigned, *costs, output, targets))
        for name, learns in (("positive", assigned.positive), ("negative", assigned.negative)):
            mask, again = (getattr(each, name) for each in chosen)
            assert mask.dtype == torch.bool, f"{name} is bool, got {mask.dtype}"
            assert mask.shape == learns.shape, f"{name} is [B, P], got {list(mask.shape)}"
            assert not (mask & ~learns).any(), f"{name} is a part of what was assigned"
            assert torch.equal(mask, again), "the same seed, the same sample"
        for weight in (x for x in chosen[0][2:] if x is not None):
            assert weight.shape == assigned.positive.shape, f"weights are [B, P], got {list(weight.shape)}"
            assert (weight.isfinite() & (weight >= 0)).all(), "weights are finite and not negative"
            assert not weight.requires_grad, "ranking by a cost has no gradient"
    report = torch._dynamo.explain(sample)(assigned, *costs, output, targets)
    assert report.graph_break_count == 0, f"{report.graph_break_count} graph breaks: {report.break_reasons}"


def check_loss(loss: nn.Module) -> None:
    """A loss keeps the contract of `torso.losses`: shapes, weight, reduction, ``avg_factor``, finite gradients."""
    takes = getattr(loss, "takes", None)
    assert takes in LOSS_TAKES, "a loss says with `takes` what it compares"
    generator = torch.Generator().manual_seed(0)
    guess, target = _loss_case(str(takes), generator)
    guess.requires_grad_()
    plain = loss(guess, target)
    shape = {"scores": guess.shape, "classes": target.shape}.get(str(takes), guess.shape[:-1])
    assert plain.shape == shape, f"the unreduced loss is {list(shape)}, got {list(plain.shape)}"
    weight = torch.rand(plain.shape, generator=generator, dtype=plain.dtype)
    close = torch.testing.assert_close
    close(loss(guess, target, weight=weight), plain * weight)
    close(loss(guess, target, weight=weight, reduction="sum"), (plain * weight).sum())
    close(loss(guess, target, reduction="mean"), plain.mean())
    close(loss(guess, target, weight=weight, reduction="mean", avg_factor=3.0), (plain * weight).sum() / 3)
    plain.sum().backward()
    assert guess.grad is not None, "the prediction gets a gradient"
    assert guess.grad.isfinite().all(), "gradients are finite"
    half = loss(guess.detach().bfloat16(), target if takes == "classes" else target.bfloat16())
    assert half.dtype == torch.float32, "half precision is computed in float32"
    assert half.isfinite().all(), "half precision gives finite losses"
    if takes == "classes":
        shares = torch.nn.functional.one_hot(target, guess.shape[1]).to(guess)
        close(loss(guess, shares), plain, msg="a class and a probability of 1 cost the same")
    empty = guess.detach()[:0]
    assert float(loss(empty, target[:0], reduction="sum")) == 0, "no rows, no loss"


def check_suppressor(suppress: nn.Module) -> None:
    """A suppressor answers with a fixed number of rows, best first, padding last, whatever comes in."""
    for count in (0, 1, 400):
        generator = torch.Generator().manual_seed(count)
        boxes = torch.rand(2, count, 4, generator=generator) * 50
        boxes[..., 2:] += boxes[..., :2]
        # Numbers that follow the four of a box.
        more = sum(BRANCHES.get(name, 1) for name in getattr(suppress, "extra", ()))
        boxes = torch.cat([boxes, torch.randn(2, count, more, generator=generator)], dim=-1)
        scores = torch.rand(2, count, generator=generator) - 0.2
        labels = torch.randint(0, 3, (2, count), generator=generator)
        found: Detections = suppress(boxes, scores, labels)
        rows = suppress.max_detections
        assert found.boxes.shape == (2, rows, 4), "boxes are [B, max_detections, 4]"
        assert found.scores.shape == found.labels.shape == found.valid.shape == (2, rows), "fields are [B, D]"
        assert (found.scores[:, :-1] >= found.scores[:, 1:]).all(), "best first"
        assert (found.valid == (found.scores > 0)).all(), "padding has score 0 and is not valid"
        assert not found.boxes[~found.valid].any(), "padding is zero"


def check_dataset(index: Index) -> None:
    """An index of a data set is whole: as many rows everywhere as it promises, labels that are classes, real boxes.

    Args:
        index: what a reader of a format returns.
    """
    count, objects = len(index.paths), len(index.labels)
    assert index.sizes.shape == (count, 2), f"sizes are [N, 2], got {list(index.sizes.shape)} for {count} pictures"
    assert len(index.image_ids) == len(set(index.image_ids)) == count, "every picture has an id of its own"
    assert len(index.offsets) == count + 1, "offsets are [N + 1]"
    assert index.offsets[0] == 0, "offsets begin with 0"
    assert index.offsets[-1] == objects, "offsets end with the number of objects"
    assert (np.diff(index.offsets) >= 0).all(), "offsets never fall"
    for name in ("boxes", "crowd", "difficult", "truncated", "area"):
        assert len(getattr(index, name)) == objects, f"{name} has a row for each of the {objects} objects"
    labels = index.labels if index.image_labels is None else index.image_labels
    assert len(index.class_ids) == len(index.classes), "every class has its original id"
    assert not len(labels) or 0 <= labels.min() <= labels.max() < len(index.classes), "labels are rows of classes"
    size = np.repeat(index.sizes, np.diff(index.offsets), axis=0)
    assert (index.boxes[:, 2:] > index.boxes[:, :2]).all(), "boxes have an area"
    assert (index.boxes[:, :2] >= 0).all(), "boxes begin inside their picture"
    assert (index.boxes[:, 2:] <= size).all(), "boxes end inside their picture"
    files = [] if index.store is not None else index.paths
    missing = [path for path in files if not (index.root / path).is_file()]
    assert not missing, f"{len(missing)} pictures are not there, the first is {missing[0]}"


def dense_case(count: int, seed: int = 0) -> tuple[DenseOutput, Targets]:
    """What a dense detector says about two 64 px pictures with ``count`` objects each, every fourth of them ignored."""
    generator = torch.Generator().manual_seed(seed)
    priors, strides = [], []
    for stride, side in ((8, 8), (16, 4)):
        at = (torch.arange(side) + 0.5) * stride
        y, x = torch.meshgrid(at, at, indexing="ij")
        centre = torch.stack([x, y], -1).reshape(-1, 2)
        priors.append(torch.cat([centre - 2 * stride, centre + 2 * stride], 1))
        strides.append(torch.full((len(centre), 2), float(stride)))
    anchors = torch.cat(priors)
    logits = torch.randn(2, 80, 3, generator=generator)
    deltas = torch.randn(2, 80, 4, generator=generator) * 0.1
    boxes = torch.rand(2, count, 4, generator=generator) * 32
    boxes[..., 2:] += boxes[..., :2] + 2
    kind = torch.arange(count).expand(2, count) % 4
    labels = torch.randint(0, 3, (2, count), generator=generator)
    targets = Targets(boxes, labels, valid=kind != 3, ignore=kind == 3)
    boxes = anchors.expand(2, -1, -1)
    return DenseOutput(logits, deltas, boxes, anchors, (64, 16), {}, torch.cat(strides), (64, 64)), targets


def _picture(output: DenseOutput, i: int) -> DenseOutput:
    rows = slice(i, i + 1)
    extra = {name: x[rows] for name, x in output.extra.items()}
    return output._replace(
        logits=output.logits[rows], deltas=output.deltas[rows], boxes=output.boxes[rows], extra=extra
    )


def _rows(targets: Targets) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return targets.boxes, targets.labels, targets.valid, targets.ignore


def _pyramid(part: nn.Module) -> tuple[list[int], list[int]]:
    channels, strides = getattr(part, "channels", None), getattr(part, "strides", None)
    assert isinstance(channels, list), "`channels` is a list of int"
    assert isinstance(strides, list), "`strides` is a list of int, or of pairs of height and width"
    assert len(channels) == len(strides), "one channel count a stride"
    areas = [height * width for height, width in map(pair, strides)]
    assert areas == sorted(areas), "levels run from the finest to the coarsest"
    return channels, strides


def _features(height: int, width: int) -> Features:
    return [torch.rand(2, c, -(-height // s), -(-width // s)) for c, s in zip(CHANNELS, STRIDES, strict=True)]


def _check_features(
    features: Features, channels: Sequence[int], strides: Sequence[int], height: int, width: int
) -> None:
    assert len(features) == len(channels), f"{len(channels)} levels promised, {len(features)} returned"
    for x, c, s in zip(features, channels, strides, strict=True):
        down, right = pair(s)
        expected = [2, c, -(-height // down), -(-width // right)]
        assert list(x.shape) == expected, f"the level of stride {s} should be {expected}, is {list(x.shape)}"


def _loss_case(takes: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    low, flags = uniform(2, 6, 2) * 10, (uniform(6, 3, 2, 4) > 0.5).double()
    first, second = torch.cat([low, low + 5], dim=-1)
    cases = {
        "scores": (normal(6, 5), (uniform(6, 5) > 0.5).double()),
        "classes": (normal(6, 5), torch.arange(6) % 5),
        "deltas": (normal(6, 4), normal(6, 4)),
        "uncertain": (normal(6, 8), normal(6, 4)),
        "distribution": (normal(6, 32), uniform(6, 4) * 7),  # bins 0..7 a side
        "object": (normal(6, 5), torch.cat([flags[:, 0, 0, :1], normal(6, 4)], dim=-1)),
        "boxes": (first.clone(), second),
        "embeddings": (normal(2, 6, 2), (torch.arange(6) < 4).double().expand(2, -1)),  # two of them are padding
        # Two slots that compete for one object, three classes.
        "grid": (uniform(6, 3, 2, 13), torch.cat([uniform(6, 3, 2, 4), flags], dim=-1)),
    }
    return cases[takes]

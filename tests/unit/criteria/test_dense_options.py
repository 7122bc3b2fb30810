"""Every option of the dense objective, and the combinations that detectors use, against a loop over priors."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.criteria.cases import check_equal, leaves, regions, silent, speaking
from tests.unit.criteria.slow_dense import Options, SlowDense
from tests.unit.parts import slow
from torso.assigners import MaxIoU
from torso.assigners.sample import OHEM, PISA, HardNegative
from torso.boxes.coders import CODERS, Delta
from torso.criteria import DenseCriterion
from torso.losses import LOSSES, BinaryCrossEntropy, CrossEntropy
from torso.structures import Assignment, DenseOutput, Targets

pytestmark = pytest.mark.part("criterion/dense")

ALONE: dict[str, dict[str, Any]] = {
    "weights": {"class_weight": 0.7, "box_weight": 2.5},
    "softmax": {"class_loss": "cross_entropy"},
    "class_target": {"class_loss": "binary_cross_entropy", "class_target": "iou"},
    "uncertain": {"box_loss": "kl_box"},
    "quality centerness": {"quality": "centerness", "quality_weight": 0.4},
    "quality iou": {"quality": "iou"},
    "objectness": {"objectness": True, "objectness_weight": 3.0},
    "objectness iou": {"objectness": True, "objectness_target": "iou", "nothing_weight": 0.5},
    "distribution": {"distribution": True, "box_loss": "giou"},
    "sample": {"sample": OHEM(20)},
    "sample weights": {"sample": PISA()},
} | {f"box_by {by}": {"box_by": by} for by in ("centerness", "quality", "score", "size")}
ALONE |= {f"average {kind}": {"average": kind} for kind in ("image", "samples", "pictures", "quality")}

YOLO = {"class_loss": "binary_cross_entropy", "average": "pictures", "objectness": True}
TOGETHER: dict[str, dict[str, Any]] = {
    "ssd": {"class_loss": "cross_entropy", "sample": HardNegative()},
    "fcos": {"box_loss": "giou", "quality": "centerness", "box_by": "centerness"},
    "fcos of images": {"box_loss": "giou", "quality": "centerness", "box_by": "centerness", "average": "image"},
    "gfl": {"box_loss": "giou", "class_target": "iou", "box_by": "score", "distribution": True},
    "paa": {"box_loss": "giou", "quality": "iou", "quality_weight": 0.5, "box_weight": 1.3},
    "tood": {"box_loss": "giou", "average": "quality", "box_by": "quality"},
    "tood by centre": {"average": "quality", "box_by": "centerness"},
    "rpn": {"class_loss": "binary_cross_entropy", "average": "samples", "sample": OHEM(16, 0.5)},
    "rpn by score": {"average": "samples", "box_by": "score", "sample": OHEM(16, 0.5)},
    "yolov3": YOLO | {"box_by": "size", "nothing_weight": 0.5},
    "yolox": YOLO | {"class_target": "iou", "box_loss": "giou", "box_weight": 5.0, "average": "batch"},
    "pp_yolo": YOLO | {"quality": "iou", "box_by": "size"},
    "yolo of pisa": YOLO | {"sample": PISA(negatives=9, candidates=20), "box_by": "quality"},
    "yolo of hard negatives": YOLO | {"sample": HardNegative(), "objectness_target": "iou"},
    "softmax of pisa": {"class_loss": "cross_entropy", "sample": PISA(), "box_by": "score", "quality": "centerness"},
    "distribution of pisa": {"distribution": True, "box_loss": "giou", "sample": PISA(negatives=8, candidates=8)},
    "uncertain of all": {"box_loss": "kl_box", "quality": "iou", "objectness": True, "box_by": "centerness"},
}


class Graded(MaxIoU):
    """Assignment by overlap with a quality drawn at random, or none."""

    def __init__(self, graded: bool = True):
        super().__init__(0.4, 0.3)
        self.drawn = torch.rand(1, 49, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.graded = graded

    def forward(self, output: DenseOutput, targets: Targets) -> Assignment:
        assigned = super().forward(output, targets)
        if not self.graded:
            return assigned
        return assigned._replace(quality=self.drawn.expand(assigned.positive.shape))


def built(options: Options, coder: Any, graded: bool = True) -> DenseCriterion:
    """The criterion that the loop is compared with."""
    given = asdict(options)
    given["sample"] = options.sample  # asdict copies
    objectness, distribution = given.pop("objectness"), given.pop("distribution")
    return DenseCriterion(
        Graded(graded),
        LOSSES[given.pop("class_loss")](),
        LOSSES[given.pop("box_loss")](),
        coder,
        objectness_loss=BinaryCrossEntropy() if objectness else None,
        distribution_loss=LOSSES["distribution_focal"]() if distribution else None,
        **given,
    )


def said(
    options: Options, seed: int, counts: tuple[int, ...] = (5, 0, 9), ignored: int = 2, weights: bool = False
) -> tuple[Any, DenseOutput, Targets]:
    """A coder that fits, and what a detector of it says."""
    background = options.class_loss == "cross_entropy"
    output, targets = speaking(seed, counts, background=background, weights=weights, ignored=ignored)
    if not options.distribution:
        return Delta(), output, targets
    coder = CODERS["distribution"](bins=5)
    generator = torch.Generator().manual_seed(seed)
    deltas = torch.randn(*output.logits.shape[:2], coder.size, generator=generator, dtype=torch.float64)
    deltas.requires_grad_()
    boxes = coder.decode(deltas, output.priors, output.strides)
    return coder, output._replace(deltas=deltas, boxes=boxes), targets


@pytest.mark.parametrize(
    ("name", "weights"),
    [*((name, False) for name in ALONE), *((name, True) for name in (*TOGETHER, "average samples"))],
)
def test_equals_a_loop_over_pictures_and_priors(name, weights):
    options = Options(**(ALONE | TOGETHER)[name])
    coder, output, targets = said(options, 3, weights=weights)
    criterion = built(options, coder)
    assigned = criterion.assigner(output, targets)
    assert min(int(mask.sum()) for mask in (assigned.positive, assigned.negative)) > 10
    assert (~(assigned.positive | assigned.negative)).any()
    expected = SlowDense(options, coder, output, targets, assigned).losses()
    check_equal(criterion(output, targets), expected, output)


@pytest.mark.parametrize("name", ["class_target", "average quality", "box_by quality", "tood"])
def test_an_assigner_without_quality_means_one(name):
    options = Options(**(ALONE | TOGETHER)[name])
    coder, output, targets = said(options, 4)
    criterion = built(options, coder, graded=False)
    assigned = criterion.assigner(output, targets)
    assert assigned.quality is None
    check_equal(criterion(output, targets), SlowDense(options, coder, output, targets, assigned).losses(), output)


@pytest.mark.parametrize("name", [*ALONE, *TOGETHER])
def test_nothing_is_learned_in_an_ignored_region(name):
    options = Options(**(ALONE | TOGETHER)[name])
    coder, output, targets = said(options, 1, (3, 0, 4), ignored=3)
    criterion = built(options, coder)
    _, inside = regions(output, targets)
    assigned = criterion.assigner(output, targets)
    neither = ~(assigned.positive | assigned.negative)
    assert int((inside & neither).sum()) > 5
    wheres = leaves(output)
    learn = {"logits", "deltas", *criterion.branches}
    for term, loss in criterion(output, targets).items():
        gradients = torch.autograd.grad(loss, list(wheres.values()), retain_graph=True, allow_unused=True)
        for where, gradient in zip(wheres, gradients, strict=True):
            if gradient is not None:
                assert not gradient[neither].any(), f"{where} learns {term}"
                learn -= {where} if gradient.any() else set()
    assert not learn, "everything that is said learns"


@pytest.mark.parametrize("counts", [(0, 0), (1,), (10, 3), (300,)])
@pytest.mark.parametrize("name", TOGETHER)
def test_any_number_of_objects_is_finite_and_waits_for_nothing(name, counts):
    options = Options(**TOGETHER[name])
    coder, output, targets = said(options, 2, counts)
    criterion = built(options, coder)
    with slow.NoWaiting():
        losses = criterion(output, targets)
        total = sum(losses.values())
        gradients = torch.autograd.grad(total, list(leaves(output).values()), allow_unused=True)
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    if not sum(counts):
        assert losses["box"] == 0


@pytest.mark.parametrize("name", ["ssd", "gfl", "tood", "pp_yolo", "yolo of pisa", "uncertain of all"])
def test_combinations_are_one_graph(name):
    torch._dynamo.reset()
    options = Options(**TOGETHER[name])
    coder, output, targets = said(options, 2)
    output = silent(output)
    criterion = built(options, coder)
    found = torch.compile(criterion, backend="eager", fullgraph=True)(output, targets)
    for term, loss in criterion(output, targets).items():
        torch.testing.assert_close(found[term], loss, rtol=1e-10, atol=0)


def test_targets_without_rows_are_targets_without_objects():
    """M = 0: the collate of pictures that are all empty."""
    options = Options(**TOGETHER["uncertain of all"])
    coder, output, targets = said(options, 2, (0, 0), ignored=0)
    assert not targets.boxes.shape[1]
    criterion = built(options, coder)
    none, padded = criterion(output, targets), criterion(output, targets.with_a_row())
    assert {name: float(x.detach()) for name, x in none.items()} == {
        name: float(x.detach()) for name, x in padded.items()
    }


def branches(**options: Any) -> list[str]:
    return built(Options(**options), Delta()).branches


def test_the_criterion_says_what_the_head_has_to_say():
    assert branches() == []
    assert branches(quality="iou", objectness=True, box_loss="kl_box") == ["iou", "objectness", "variance"]
    assert built(Options(class_loss="cross_entropy"), Delta()).background
    assert not built(Options(), Delta()).background


def test_a_softmax_of_more_classes_than_255_ignores_none():
    """The cross entropy of pixels ignores class 255, which with many classes is one of them, or the background."""
    output, targets = speaking(0, (3,))
    logits = torch.randn(1, 49, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    output = output._replace(logits=logits.requires_grad_(), background=True)
    with pytest.raises(ValueError, match=r"class 255 .* ignore_index"):
        DenseCriterion(Graded(), CrossEntropy(), LOSSES["l1"](), Delta())(output, targets)
    found = DenseCriterion(Graded(), CrossEntropy(ignore_index=-1), LOSSES["l1"](), Delta())(output, targets)
    (gradient,) = torch.autograd.grad(found["class"], logits)
    negative: Tensor = Graded()(output, targets).negative
    assert gradient[negative].any(dim=1).all()

"""The objective of sets against transformers' losses of DETR and Deformable DETR, in float64 with gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.assigners.test_hungarian import CLASSES, SIZE, objects, queries
from torso.assigners import Hungarian, MaxIoU
from torso.criteria import QueryCriterion
from torso.losses import L1, CrossEntropy, Focal, GIoU, QualityFocal
from torso.structures import QueryOutput, Targets, as_priors

pytestmark = pytest.mark.part("criterion/query")
NAMES = {"class": "loss_ce", "box": "loss_bbox", "overlap": "loss_giou"}
WEIGHTS = {"class": 1.0, "box": 5.0, "overlap": 2.0}


def criterion(background: bool, **options: Any) -> QueryCriterion:
    assigner = Hungarian(class_cost="probability" if background else "focal", class_weight=1 if background else 2)
    return QueryCriterion(assigner, CrossEntropy() if background else Focal(), L1(), **options)


def said(background: bool, layers: int = 3, count: int = 9, batch: int = 4) -> QueryOutput:
    """Random queries after so many layers; leaves that want gradients."""
    every = [queries(count, background, batch, seed) for seed in range(layers)]
    logits = torch.stack([x.logits for x in every]).requires_grad_()
    boxes = torch.stack([x.deltas for x in every]).requires_grad_()
    return QueryOutput(logits, boxes, SIZE, background, frame=every[0].frame)


def check_gradients(losses: dict[str, Tensor], expected: Tensor, leaves: list[Tensor]) -> None:
    mine = torch.autograd.grad(sum(losses.values()), leaves)  # type: ignore[arg-type]
    theirs = torch.autograd.grad(expected, leaves)
    for one, other in zip(mine, theirs, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("counts", [[6, 0, 1, 20], [3, 2, 4, 1]])
@pytest.mark.parametrize("background", [True, False])
def test_losses_and_gradients_of_all_layers_equal_transformers(background: bool, counts: list[int]) -> None:
    from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss
    from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

    output = said(background)
    targets, labels = objects(counts, output.layer(0))
    config = SimpleNamespace(class_cost=1 if background else 2, bbox_cost=5, giou_cost=2, num_labels=CLASSES)
    config.eos_coefficient, config.focal_alpha, config.auxiliary_loss, config.decoder_layers = 0.1, 0.25, True, 3
    config.bbox_loss_coefficient, config.giou_loss_coefficient = 5, 2
    loss = ForObjectDetectionLoss if background else DeformableDetrForObjectDetectionLoss
    torch.set_default_dtype(torch.float64)  # the weight of nothing is a tensor of its own
    try:
        total, each, _ = loss(output.logits[-1], labels, "cpu", output.boxes[-1], config, output.logits, output.boxes)
    finally:
        torch.set_default_dtype(torch.float32)
    losses = criterion(background)(output, targets)
    assert len(losses) == 9
    for name, there in NAMES.items():
        torch.testing.assert_close(losses[name], WEIGHTS[name] * each[there], rtol=1e-9, atol=0)
        for layer in range(2):
            mine, theirs = losses[f"layer{layer + 1}_{name}"], WEIGHTS[name] * each[f"{there}_{layer}"]
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=0)
    check_gradients(losses, total, [output.logits, output.boxes])


def test_what_the_encoder_proposes_learns_that_there_is_an_object() -> None:
    """As the paper's code: the same losses, with all objects of class 0."""
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher, DeformableDetrImageLoss

    output = said(background=False)
    cells = queries(40, background=False, seed=9)
    logits, boxes = cells.logits[..., :1].clone().requires_grad_(), cells.deltas.clone().requires_grad_()
    frame = output.frame
    assert frame is not None
    whole = output._replace(proposed=as_priors(logits, boxes, SIZE)).within(frame)
    targets, labels = objects([6, 0, 1, 9], output.layer(0))
    binary = [{"class_labels": torch.zeros_like(x["class_labels"]), "boxes": x["boxes"]} for x in labels]
    theirs = DeformableDetrImageLoss(DeformableDetrHungarianMatcher(2, 5, 2), 1, 0.25, ["labels", "boxes"])
    expected = theirs({"logits": logits, "pred_boxes": boxes}, binary)
    losses = criterion(background=False)(whole, targets)
    alone = criterion(background=False)(output, targets)
    for name, there in NAMES.items():
        mine = losses.pop(f"proposal_{name}")
        torch.testing.assert_close(mine, WEIGHTS[name] * expected[there], rtol=1e-6, atol=0)
        gradients = torch.autograd.grad(mine, [logits, boxes], retain_graph=True, allow_unused=True)
        others = torch.autograd.grad(
            WEIGHTS[name] * expected[there], [logits, boxes], retain_graph=True, allow_unused=True
        )
        for one, other in zip(gradients, others, strict=True):
            assert one is not None or other is None
            torch.testing.assert_close(one, torch.zeros_like(one) if one is not None and other is None else other)
    for name, x in alone.items():
        torch.testing.assert_close(losses[name], x)


def test_cells_of_padding_propose_nothing() -> None:
    cells = queries(40, background=False, seed=9)
    targets, _ = objects([6, 0, 1, 9], cells)
    logits = cells.logits[..., :1].clone().requires_grad_()
    valid = torch.arange(40).expand(4, -1) % 3 > 0
    proposed = as_priors(logits, cells.deltas, SIZE, frame=cells.frame)._replace(valid=valid)
    losses = criterion(background=False)(said(background=False)._replace(proposed=proposed), targets)
    losses["proposal_class"].backward()
    assert logits.grad is not None
    assert not logits.grad[~valid].any()
    assert logits.grad[valid].all()


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("rows", [0, 3])
def test_without_objects_all_queries_learn_that_there_is_nothing(background: bool, rows: int) -> None:
    output = said(background)
    nothing = torch.zeros(4, rows, dtype=torch.bool)
    targets = Targets(torch.zeros(4, rows, 4), torch.zeros(4, rows, dtype=torch.int64), nothing, nothing)
    losses = criterion(background)(output, targets)
    last = output.logits[-1].flatten(0, 1)
    if background:
        expected = functional.cross_entropy(last, torch.full((len(last),), CLASSES))
    else:
        p = last.sigmoid()
        expected = (0.75 * p**2 * -(1 - p).log()).sum()
    torch.testing.assert_close(losses["class"], expected)
    assert losses["box"].detach() == losses["overlap"].detach() == 0
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert output.boxes.grad is not None
    assert not output.boxes.grad.any()


@pytest.mark.parametrize("count", [1, 10, 300])
@pytest.mark.parametrize("background", [True, False])
def test_any_number_of_objects_is_finite_and_ignored_ones_teach_nothing(background: bool, count: int) -> None:
    output = said(background, count=20)
    targets, _ = objects([count] * 4, output.layer(0))
    boxes, ignore = targets.boxes.clone(), ~targets.valid
    valid = targets.valid.clone()
    valid[3], ignore[3] = False, False
    boxes[3, 0], ignore[3, 0] = torch.tensor([-1e3, -1e3, 1e3, 1e3]).double(), True
    targets = Targets(boxes, targets.labels, valid, ignore)
    losses = criterion(background)(output, targets)
    assert all(x.isfinite() and x.ndim == 0 for x in losses.values())
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for leaf in (output.logits, output.boxes):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert not leaf.grad[:, 3].any(), "a picture that is ignored as a whole"
        assert leaf.grad[:, :3].any()
    assert output.logits.grad is not None
    for layer in range(3):
        assigned = Hungarian(class_cost="probability" if background else "focal", class_weight=1 if background else 2)(
            output.layer(layer), targets
        )
        neither = ~(assigned.positive | assigned.negative)
        assert not output.logits.grad[layer][neither].any()
        assert output.logits.grad[layer][~neither].any(dim=-1).all()


def test_objects_of_mixed_pictures_count_their_weight() -> None:
    output = said(background=True)
    targets, _ = objects([3, 2, 4, 1], output.layer(0))
    weights = torch.rand(targets.labels.shape, dtype=torch.float64)
    mixed = Targets(targets.boxes, targets.labels, targets.valid, targets.ignore, weights=weights)
    losses = criterion(background=True)(output, mixed)
    assigned = Hungarian()(output.layer(-1), targets)
    weight = weights.gather(1, assigned.matched)[assigned.positive]
    wanted = targets.boxes[assigned.positive.nonzero()[:, 0], assigned.matched[assigned.positive]]
    cost = GIoU()(output.layer(-1).boxes[assigned.positive], wanted)
    torch.testing.assert_close(losses["overlap"], 2 * (cost * weight).sum() / 10)
    labels = torch.where(assigned.positive, targets.labels.gather(1, assigned.matched), CLASSES)
    each = functional.cross_entropy(output.logits[-1].transpose(1, 2), labels, reduction="none")
    share = torch.where(assigned.positive, weights.gather(1, assigned.matched), 0.1)
    torch.testing.assert_close(losses["class"], (each * share).sum() / share.sum())


def test_the_last_layer_alone_learns_without_auxiliary_losses() -> None:
    output = said(background=True)
    targets, _ = objects([3, 2, 4, 1], output.layer(0))
    every, last = (
        criterion(background=True)(output, targets),
        criterion(background=True, auxiliary=False)(output, targets),
    )
    assert list(last) == ["class", "box", "overlap"]
    for name, x in last.items():
        torch.testing.assert_close(x, every[name])


def test_any_assigner_and_any_losses_that_fit_are_taken() -> None:
    output = said(background=False)
    targets, _ = objects([3, 2, 4, 1], output.layer(0))
    losses = QueryCriterion(Hungarian(), QualityFocal(), GIoU(), overlap_loss=GIoU(), overlap_weight=5.0)(
        output, targets
    )
    torch.testing.assert_close(losses["box"], losses["overlap"])
    assert all(x.isfinite() for x in QueryCriterion(MaxIoU(), Focal(), L1())(output, targets).values())


@pytest.mark.parametrize("background", [True, False])
def test_losses_are_one_graph(background: bool) -> None:
    output = said(background)
    proposed = None if background else queries(30, background=False)._replace(logits=torch.zeros(4, 30, 1).double())
    output = output._replace(proposed=proposed)
    targets, _ = objects([3, 0, 4, 1], output.layer(0))
    whole = criterion(background)
    expected = whole(output, targets)
    compiled = torch.compile(whole, fullgraph=True, backend="eager")(output, targets)
    for name, x in expected.items():
        torch.testing.assert_close(compiled[name], x)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((L1(), L1()), "class loss of scores or classes"),
        ((Focal(), Focal()), "box loss of deltas or boxes"),
    ],
)
def test_losses_that_do_not_fit_are_refused(parts: tuple[nn.Module, nn.Module], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        QueryCriterion(Hungarian(), *parts)
    output = said(background=True)
    targets, _ = objects([3, 2, 4, 1], output.layer(0))
    with pytest.raises(ValueError, match="class 2 of 6 would not be learned"):
        QueryCriterion(Hungarian(), CrossEntropy(ignore_index=2), L1())(output, targets)
    with pytest.raises(ValueError, match="overlap needs a loss of boxes"):
        QueryCriterion(Hungarian(), Focal(), L1(), overlap_loss=L1())

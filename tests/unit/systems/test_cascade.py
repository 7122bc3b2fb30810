"""Cascade R-CNN against a walk over pictures and regions, stage after stage, written from the paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.recipes.small import SMALL
from torso.assigners.draw import with_objects
from torso.models import TwoStage
from torso.models.inside import go_on
from torso.recipes.recipe import Recipe
from torso.structures import Batch, Targets

SIZE, CLASSES = 128, 3
OVERLAPS, FACTORS, WEIGHTS = (0.5, 0.6, 0.7), (10.0, 20.0, 30.0), (1.0, 0.5, 0.25)


def cascade(*overrides: str) -> TwoStage:
    """Small, in float64, with heads that move boxes; all regions learn, so that nothing is drawn."""
    torch.manual_seed(0)
    changes = [*SMALL["cascade_rcnn"], "model.sample=null", "model.propose.sample=null", *overrides]
    model: TwoStage = Recipe.load("cascade_rcnn", changes, without_data=True).model.build(num_classes=CLASSES)
    with torch.no_grad():
        for stage in model.each:
            stage.head.box_deltas.weight.normal_(std=0.5)
            stage.head.class_logits.weight.normal_(std=0.5)
    return model.double()


def batch_of(count: int = 4) -> Batch:
    """Two pictures; the last object of each is ignored, where there is more than one."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=generator).double()
    low = torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * 70
    boxes = torch.cat([low, low + 20 + torch.rand(2, count, 2, generator=generator) * 30], dim=-1)
    labels = torch.randint(0, CLASSES, (2, count), generator=generator)
    ignore = (torch.arange(count) == count - 1).expand(2, -1) & (count > 1)
    whole = torch.full((2, 2), SIZE)
    return Batch(images, Targets(boxes, labels, ~ignore, ignore), torch.arange(2), torch.eye(3).expand(2, 3, 3), whole)


def shared(a: list[float], b: list[float]) -> float:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def wanted(region: list[float], targets: Targets, picture: int, overlap: float) -> tuple[int, list[float]] | None:
    """What one region learns: a class and a box, the background, or None: nothing at all."""
    best, found = 0.0, (CLASSES, region)
    for box, label in zip(targets.boxes[picture], targets.labels[picture].tolist(), strict=True):
        there = box.tolist()
        row = int((targets.boxes[picture] == box).all(dim=-1).nonzero()[0])
        both = shared(region, there)
        union = area(region) + area(there) - both
        if targets.valid[picture, row] and both / union > best:
            best, found = both / union, (label, there)
    if best >= overlap:
        return found
    for box in targets.boxes[picture][targets.ignore[picture]].tolist():
        if shared(region, box) >= 0.5 * area(region) > 0:
            return None
    return CLASSES, region


def encoded(box: list[float], region: list[float], factor: float) -> list[float]:
    wide, high = region[2] - region[0], region[3] - region[1]
    x, y = (box[0] + box[2] - region[0] - region[2]) / 2, (box[1] + box[3] - region[1] - region[3]) / 2
    sides = math.log((box[2] - box[0]) / wide), math.log((box[3] - box[1]) / high)
    return [factor * x / wide, factor * y / high, factor / 2 * sides[0], factor / 2 * sides[1]]


def moved(delta: list[float], region: list[float], factor: float) -> list[float]:
    wide, high = region[2] - region[0], region[3] - region[1]
    x = (region[0] + region[2]) / 2 + delta[0] / factor * wide
    y = (region[1] + region[3]) / 2 + delta[1] / factor * high
    limit = math.log(62.5)
    wide *= math.exp(min(2 * delta[2] / factor, limit)) / 2
    high *= math.exp(min(2 * delta[3] / factor, limit)) / 2
    corners = [x - wide, y - high, x + wide, y + high]
    return [min(max(corner, 0.0), float(SIZE)) for corner in corners]


def walk(model: TwoStage, batch: Batch, regions: list[list[list[float]]]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Losses of the stages, mean scores ``[B, R, C]`` and the boxes of the last stage ``[B, R, 4]``."""
    features = model.features(batch.images)
    losses, scores = {}, []
    for number, stage in enumerate(model.each):
        class_cost, box_cost, learned = [], [], 0
        said = []
        for i in range(len(batch)):
            level = [x[i : i + 1] for x in features]
            cut = stage.roi(stage.head.maps(level), torch.tensor([regions[i]], dtype=torch.float64))
            output = stage.head(cut)
            said.append(output.logits[0].softmax(dim=-1)[:, :-1])
            after = []
            for row, region in enumerate(regions[i]):
                what = wanted(region, batch.targets, i, OVERLAPS[number])
                logits, delta = output.logits[0, row], output.deltas[0, row]
                if what is not None:
                    learned += 1
                    class_cost.append(functional.cross_entropy(logits, torch.tensor(what[0])))
                    if what[0] < CLASSES:
                        target = torch.tensor(encoded(what[1], region, FACTORS[number]), dtype=torch.float64)
                        box_cost.append(functional.smooth_l1_loss(delta, target, beta=1.0, reduction="sum"))
                after.append(moved(delta.tolist(), region, FACTORS[number]))
            regions = [*regions[:i], after, *regions[i + 1 :]]
        scores.append(torch.stack(said))
        prefix = "" if number == 0 else f"stage{number + 1}_"
        losses[prefix + "class"] = WEIGHTS[number] * torch.stack(class_cost).sum() / learned
        losses[prefix + "box"] = WEIGHTS[number] * sum(box_cost, torch.zeros(()).double()) / learned
    return losses, torch.stack(scores).mean(dim=0), torch.tensor(regions, dtype=torch.float64)


def proposed(model: TwoStage, images: Tensor) -> tuple[Tensor, Tensor]:
    features, size = model.features(images), (SIZE, SIZE)
    boxes, valid = model.propose.choose(model.propose(features, size), features, size, go_on)
    assert valid.all(), "the walk knows no padding"
    return boxes, valid


@pytest.mark.part("recipe/cascade_rcnn")
def test_each_stage_is_stricter_and_finer_than_the_one_before():
    for stage, overlap, factor, weight in zip(cascade().each, OVERLAPS, FACTORS, WEIGHTS, strict=True):
        assigner = stage.criterion.assigner
        assert (assigner.positive, assigner.negative, assigner.low_quality) == (overlap, overlap, False)
        assert stage.coder.weights == (factor, factor, factor / 2, factor / 2)
        assert (stage.criterion.class_weight, stage.criterion.box_weight) == (weight, weight)


@pytest.mark.part("recipe/cascade_rcnn")
def test_losses_and_gradients_of_all_stages_equal_the_walk():
    model, batch = cascade().eval(), batch_of()
    boxes, valid = with_objects(*proposed(model, batch.images), batch.targets)
    regions = [[row for row, real in zip(boxes[i].tolist(), valid[i].tolist(), strict=True) if real] for i in range(2)]
    assert len(regions[0]) == boxes.shape[1] - 1, "the ignored object is no region"
    theirs, _, _ = walk(model, batch, regions)
    ours = model.losses(batch)
    for name, loss in theirs.items():
        torch.testing.assert_close(ours[name], loss, rtol=1e-9, atol=1e-12)
    assert ours["stage3_box"] > 0, "some regions are good enough for the strictest stage"
    parameters = [p for p in (*model.stages.parameters(), *model.neck.parameters()) if p.requires_grad]
    gradients = [
        torch.autograd.grad(sum(losses[name] for name in theirs), parameters, allow_unused=True)
        for losses in (ours, theirs)
    ]
    for our, their in zip(*gradients, strict=True):
        assert (our is None) == (their is None)
        if our is not None:
            torch.testing.assert_close(our, their, rtol=1e-8, atol=1e-10)


@pytest.mark.part("recipe/cascade_rcnn")
def test_the_answer_is_the_mean_of_scores_on_the_boxes_of_the_last_stage():
    from torchvision.ops import batched_nms

    model, images = cascade().eval(), batch_of().images
    with torch.no_grad():
        boxes, _ = proposed(model, images)
        _, scores, last = walk(model, batch_of(), boxes.tolist())
        found = model.predict(images)
    for i in range(2):
        region, label = (scores[i] > model.threshold).nonzero(as_tuple=True)
        kept = batched_nms(last[i][region], scores[i][region, label], label, 0.5)[:100]
        count = int(found.valid[i].sum())
        assert count == len(kept) > 5
        torch.testing.assert_close(found.scores[i, :count], scores[i][region, label][kept], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.boxes[i, :count], last[i][region][kept], rtol=1e-9, atol=1e-9)
        assert torch.equal(found.labels[i, :count], label[kept])


@pytest.mark.part("recipe/cascade_rcnn")
def test_no_gradient_flows_through_regions():
    model = cascade()
    losses = model.losses(batch_of())
    for number, prefix in enumerate(("", "stage2_", "stage3_")):
        cost = losses[prefix + "class"] + losses[prefix + "box"]
        for other, stage in enumerate(model.each):
            given = torch.autograd.grad(cost, [*stage.head.parameters()], retain_graph=True, allow_unused=True)
            learns = [grad is not None and bool(grad.any()) for grad in given]
            assert all(learns) if other == number else not any(learns), (
                f"stage {other + 1} by the losses of {number + 1}"
            )
        proposer = [*model.propose.parameters()]
        given = torch.autograd.grad(cost, proposer, retain_graph=True, allow_unused=True)
        assert all(grad is None for grad in given), "what proposes learns from its own losses only"
        body = torch.autograd.grad(cost, [*model.backbone.parameters()], retain_graph=True, allow_unused=True)
        assert any(grad is not None and grad.any() for grad in body), "and all share the features"


@pytest.mark.part("recipe/cascade_rcnn", "refine/further")
@pytest.mark.parametrize("count", [0, 1, 10, 300])
def test_any_number_of_objects_is_finite_in_every_stage(count):
    model = cascade("model.sample={name: random, count: 32, positive: 0.25}").float()
    batch = batch_of(count)
    losses = model.losses(Batch(batch.images.byte(), _float(batch.targets), *_rest(batch)))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    if count == 0:
        assert not any(losses[name].any() for name in ("box", "stage2_box", "stage3_box", "proposal_box"))
        assert all(losses[name] > 0 for name in ("class", "stage2_class", "stage3_class"))


@pytest.mark.part("recipe/cascade_rcnn", "refine/further")
def test_a_stage_before_another_has_one_box_for_all_classes():
    from torso.config import ModelError

    with pytest.raises(ModelError, match="class_boxes=false"):
        cascade("model.class_boxes=true")


def _float(targets: Targets) -> Targets:
    return Targets(targets.boxes.float(), targets.labels, targets.valid, targets.ignore)


def _rest(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    return batch.index, batch.to_source, batch.source_size

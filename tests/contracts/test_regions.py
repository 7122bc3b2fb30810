"""Every proposer and every further stage keeps its role's contract, in a detector of two stages."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.recipes.small import SMALL
from torso.config import Spec
from torso.models import TwoStage
from torso.models.inside import Kept, go_on
from torso.recipes.recipe import Recipe
from torso.recipes.two_stage import PROPOSERS, REFINERS, two_stage
from torso.structures import Batch, Targets

SIZE, CLASSES = (96, 128), 3  # height, width
# Arguments that make a proposer small.
PROPOSE = {"rpn": "topk: 40, prior: {name: anchors, scale: 4}, suppress: {name: level_nms, max_detections: 20}"}


def built(*overrides: str) -> TwoStage:
    torch.manual_seed(0)
    changes = [*SMALL["faster_rcnn"], *overrides]
    model: TwoStage = Recipe.load("faster_rcnn", changes, without_data=True).model.build(num_classes=CLASSES)
    return model


def with_proposer(name: str) -> TwoStage:
    return built(f"model.propose={{name: {name}{', ' if name in PROPOSE else ''}{PROPOSE.get(name, '')}}}")


def targets_of(count: int) -> Targets:
    low = torch.rand(2, count, 2) * 60
    boxes = torch.cat([low, low + 4 + torch.rand(2, count, 2) * 30], dim=-1)
    valid = (torch.arange(count) % 4 != 3).expand(2, -1)
    return Targets(boxes, torch.randint(0, CLASSES, (2, count)), valid, ~valid)


def batch_of(count: int) -> Batch:
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    whole = torch.full((2, 2), SIZE[1])
    return Batch(images, targets_of(count), torch.arange(2), torch.eye(3).expand(2, 3, 3), whole)


def test_every_proposer_and_refiner_is_walked_here() -> None:
    assert set(PROPOSE) <= set(PROPOSERS)
    assert set(REFINERS) == {"further"}, "another further stage needs arguments below"


@pytest.mark.part("propose/rpn", "propose/windows")
@pytest.mark.parametrize("name", sorted(PROPOSERS))
def test_regions_are_a_fixed_number_inside_of_each_picture_and_carry_no_gradient(name: str) -> None:
    model = with_proposer(name).eval()
    counts = set()
    for size in (SIZE, (64, 64)):
        features = model.features(torch.rand(2, 3, *size) * 255)
        kept = Kept()
        output = model.propose(features, size)
        boxes, valid = model.propose.choose(output, features, size, kept)
        assert tuple(kept) == tuple(model.propose.inside), "what a choice is made from is kept, by these names"
        assert all(x.is_floating_point() and len(x) == 2 for x in kept.values())
        assert boxes.shape == (*valid.shape, 4)
        assert valid.dtype == torch.bool
        assert valid.any(dim=1).all()
        assert not boxes.requires_grad
        assert (boxes[..., 2:] >= boxes[..., :2]).all()
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([size[1], size[0]] * 2) * (1 + 1e-6)).all()
        sides = boxes[..., 2:] - boxes[..., :2]
        assert (sides[valid] > 0).all(), "a region that is no padding has an area"
        counts.add(boxes.shape[1])
        alone = [x[1:] for x in features]
        single, real = model.propose.choose(model.propose(alone, size), alone, size, go_on)
        torch.testing.assert_close(single, boxes[1:], msg="pictures do not see each other")
        assert torch.equal(real, valid[1:])
    assert len(counts) == 1, "R is the same for pictures of any size"


@pytest.mark.part("propose/rpn", "propose/windows")
@pytest.mark.parametrize("count", [0, 1, 10, 300])
@pytest.mark.parametrize("name", sorted(PROPOSERS))
def test_what_a_proposer_learns_is_finite(name: str, count: int) -> None:
    model = with_proposer(name)
    targets = targets_of(count)
    features = [x.detach().requires_grad_() for x in model.features(torch.rand(2, 3, *SIZE) * 255)]
    losses = model.propose.losses(model.propose(features, SIZE), targets)
    learned = [p for p in model.propose.parameters() if p.requires_grad]
    assert bool(learned) == bool(losses), "what has parameters has losses"
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    if not losses:
        return
    grads = torch.autograd.grad(sum(losses.values()), [*learned, *features], allow_unused=True)
    assert any(grad is not None and grad.any() for grad in grads)
    assert all(grad is None or grad.isfinite().all() for grad in grads)
    # It does not know classes: other labels, the same losses.
    other = replace(targets, labels=torch.zeros_like(targets.labels))
    torch.manual_seed(1)
    first = model.propose.losses(model.propose(features, SIZE), targets)
    torch.manual_seed(1)
    again = model.propose.losses(model.propose(features, SIZE), other)
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.part("propose/rpn", "propose/windows")
@pytest.mark.parametrize("name", sorted(PROPOSERS))
def test_choosing_regions_is_one_graph(name: str) -> None:
    model = with_proposer(name).eval()
    features = [x.detach() for x in model.features(torch.rand(2, 3, *SIZE) * 255)]

    def propose(features: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        chosen: tuple[torch.Tensor, torch.Tensor] = model.propose.choose(
            model.propose(features, SIZE), features, SIZE, go_on
        )
        return chosen

    with torch.no_grad():
        compiled = torch.compile(propose, fullgraph=True, backend="eager")(features)
        torch.testing.assert_close(compiled, propose(features))


@pytest.mark.part("refine/further")
@pytest.mark.parametrize("name", sorted(REFINERS))
def test_a_further_stage_is_the_first_but_for_what_it_names(name: str) -> None:
    bare = built("model.class_boxes=false", f"model.refine=[{{name: {name}}}]")
    first, second = bare.each
    assert second.draw is None, "nothing is drawn a second time"
    assert type(second.head) is type(first.head)
    assert second.coder.weights == first.coder.weights
    assert second.criterion.assigner.positive == first.criterion.assigner.positive
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}, "weights are its own"
    other = built(
        "model.class_boxes=false",
        f"model.refine=[{{name: {name}, roi: {{name: align, size: 3}}, assigner: {{name: max_iou, positive: 0.7, "
        "negative: 0.6}, coder: {name: delta, weights: [20, 20, 10, 10]}, box_loss: giou}]",
    )
    _, second = other.each
    assert (second.roi.size, second.criterion.assigner.positive, second.criterion.assigner.negative) == (3, 0.7, 0.6)
    assert second.coder.weights == (20, 20, 10, 10)
    assert second.criterion.box_loss.takes == "boxes"
    losses = other.losses(batch_of(5))
    assert {"class", "box", "stage2_class", "stage2_box"} <= set(losses)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in second.head.parameters())


@pytest.mark.part("refine/further")
def test_what_a_further_stage_may_name_are_parts_of_the_first() -> None:
    from torso.config import parameters

    for refine in REFINERS.values():
        named = parameters(refine)
        assert set(named) <= set(parameters(two_stage))
        assert all(each.default is None for each in named.values())
        assert refine() == {}
        part = Spec("coder", "delta", object)
        assert refine(coder=part) == {"coder": part}

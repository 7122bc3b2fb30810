"""R-FCN as its recipe has it: what learns, and what does not."""

from __future__ import annotations

import pytest
import torch

from tests.recipes.small import SMALL
from torso.boxes.roi import PositionSensitive
from torso.heads import RFCN
from torso.models.two_stage import TwoStage
from torso.recipes.recipe import Recipe
from torso.structures import Batch, Targets

SIDE, CLASSES, BINS, LEARNED = 64, 3, 3, 16


def model() -> TwoStage:
    torch.manual_seed(0)
    overrides = [*SMALL["rfcn"], f"model.roi.size={BINS}", f"model.sample.count={LEARNED}"]
    built: TwoStage = Recipe.load("rfcn", overrides, without_data=True).model.build(num_classes=CLASSES)
    return built.train()


def batch_of(count: int) -> Batch:
    """Two pictures with so many objects, and a third that is ignored as a whole."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (3, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    rows = max(count, 1)
    low = torch.rand(3, rows, 2, generator=generator) * 40
    boxes = torch.cat([low, low + 6 + torch.rand(3, rows, 2, generator=generator) * 18], dim=-1)
    valid = (torch.arange(rows) < count).repeat(3, 1)
    valid[2], ignore = False, torch.zeros_like(valid)
    boxes[2, 0], ignore[2, 0] = torch.tensor([-1e3, -1e3, 1e3, 1e3]), True
    labels = torch.randint(0, CLASSES, (3, rows), generator=generator)
    targets = Targets(boxes, labels, valid, ignore)
    return Batch(images, targets, torch.arange(3), torch.eye(3).expand(3, 3, 3), torch.full((3, 2), SIDE))


@pytest.mark.part("recipe/rfcn", "head/rfcn", "roi/position_sensitive", "sample/ohem")
@pytest.mark.parametrize("count", [0, 1, 10, 300])
def test_the_hardest_regions_of_each_picture_learn_and_ignored_pictures_teach_nothing(count: int) -> None:
    rfcn, said, ranked = model(), [], []
    (stage,) = rfcn.each
    stage.head.register_forward_hook(lambda _module, _given, output: said.append(output))
    stage.criterion.sample.register_forward_hook(lambda _module, given, taken: ranked.append((given, taken)))
    losses = rfcn.losses(batch_of(count))
    assert all(loss.isfinite() for loss in losses.values()), losses
    ((logits, deltas),) = said
    taught, moved = torch.autograd.grad(losses["class"] + losses["box"], [logits, deltas], retain_graph=True)
    learns = taught.any(dim=-1)
    assert learns.sum(dim=1).tolist() == [LEARNED, LEARNED, 0]
    assert not moved[2].any()
    assert count or not moved.any(), "without objects there are no boxes to learn"
    assert count < 10 or moved.any()

    (((assigned, class_cost, box_cost, *_), _),) = ranked
    cost = class_cost + box_cost
    left = (assigned.positive | assigned.negative) & ~learns
    for picture in range(2):
        assert cost[picture][learns[picture]].min() >= cost[picture][left[picture]].max(), "the hardest learn"
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in rfcn.parameters())
    assert all(p.grad is not None and p.grad.any() for p in stage.head.class_maps.parameters())


@pytest.mark.part("recipe/rfcn")
def test_it_is_made_of_the_papers_parts() -> None:
    rfcn = model()
    (stage,) = rfcn.each
    assert isinstance(stage.roi, PositionSensitive)
    assert isinstance(stage.head, RFCN)
    assert (stage.roi.reduce, stage.draw) == ("pool", None), "regions are ranked by what they cost, not drawn before"
    (maps,) = stage.head.maps(rfcn.features(torch.zeros(1, 3, SIDE, SIDE)))
    assert maps.shape[1] == BINS**2 * (CLASSES + 1 + 4), "maps for all classes and the background, and for one box"
    full = Recipe.load("rfcn", without_data=True).model
    with torch.device("meta"):
        whole = full.build(num_classes=20)
    assert whole.neck.strides == [16], "the last stage is dilated"
    assert whole.each[0].roi.size == 7

"""The head of R-CNN: regions go through a network one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.recipes.small import SMALL
from torso.backbones import Pixels, Tiny
from torso.boxes.roi import RoIAlign
from torso.config import RecipeError
from torso.heads import RoICrop
from torso.recipes.recipe import Recipe
from torso.structures import Batch, Targets

SIZE = 64


def built(num_boxes: int = 1) -> tuple[RoICrop, RoIAlign]:
    torch.manual_seed(0)
    head = RoICrop([3], 4, num_boxes=num_boxes, backbone=Tiny(widths=(8, 12), levels=(1, 2)))
    return head.double().eval(), RoIAlign([1], size=16, ratio=1, aligned=True)


@pytest.mark.part("backbone/pixels")
def test_pixels_are_the_one_level_as_they_are():
    part, images = Pixels(mean=(0.1, 0.2, 0.3)), torch.rand(2, 3, 5, 7)
    (level,) = part(images)
    assert level is images
    assert (part.channels, part.strides) == ([3], [1])
    assert part.mean == (0.1, 0.2, 0.3)
    assert not list(part.state_dict())


@pytest.mark.part("head/roi_crop")
def test_a_region_says_what_its_crop_says_alone():
    head, roi = built(num_boxes=3)
    images = torch.rand(2, 3, SIZE, SIZE, dtype=torch.float64)
    boxes = torch.tensor([[[0, 0, 16, 16], [20, 8, 36, 24]], [[48, 48, 64, 64], [3, 30, 19, 46]]], dtype=torch.float64)
    said = head(roi(head.maps([images]), boxes))
    assert said.logits.shape == (2, 2, 4)
    assert said.deltas.shape == (2, 2, 12)
    for i in range(2):
        for row, (x0, y0, x1, y1) in enumerate(boxes[i].long().tolist()):
            crop = images[i : i + 1, :, y0:y1, x0:x1]  # of the size of the samples: nothing is warped
            mean = functional.adaptive_avg_pool2d(head.backbone(crop)[-1], 1).flatten()
            torch.testing.assert_close(said.logits[i, row], head.class_logits(mean))
            torch.testing.assert_close(said.deltas[i, row], head.box_deltas(mean))


@pytest.mark.part("head/roi_crop", "recipe/rcnn")
def test_a_region_of_any_shape_is_warped_to_a_square():
    head, roi = built()
    x = torch.arange(SIZE, dtype=torch.float64).expand(1, 3, SIZE, SIZE)
    wide, narrow = roi(head.maps([x]), torch.tensor([[[0, 0, 64, 16], [0, 0, 16, 64]]], dtype=torch.float64))[0]
    torch.testing.assert_close(wide[0, 0].diff(), torch.full((15,), 4.0).double())
    torch.testing.assert_close(narrow[0, 0].diff(), torch.full((15,), 1.0).double())


@pytest.mark.part("head/roi_crop")
def test_nothing_of_one_region_reaches_another():
    head, _ = built()
    crops = torch.rand(1, 3, 3, 16, 16, dtype=torch.float64).requires_grad_()
    said = head(crops)
    (grad,) = torch.autograd.grad(said.logits[0, 1].sum() + said.deltas[0, 1].sum(), crops)
    assert grad[0, 1].any()
    assert not grad[0, [0, 2]].any()


@pytest.mark.part("head/roi_crop")
def test_crops_of_features_are_refused():
    with pytest.raises(ValueError, match="take the backbone pixels and the neck identity"):
        RoICrop([16], 4, backbone=Tiny())
    with pytest.raises(RecipeError, match="crops are cut out of the pixels"):
        Recipe.load("rcnn", ["model.backbone=tiny", "model.neck=fpn"], without_data=True).model.build(num_classes=3)


@pytest.mark.part("recipe/rcnn")
def test_the_full_network_is_alexnet_and_sees_every_region():
    with torch.device("meta"):
        model = Recipe.load("rcnn", without_data=True).model.build(num_classes=20)
    convolutions = [m for m in model.head[0].backbone.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 192, 384, 256, 256]
    assert not list(model.backbone.parameters()), "nothing is learned of the whole picture"
    with torch.device("meta"):
        output = model(torch.zeros(1, 3, 320, 320, device="meta"))
    (stage,) = output.stages
    count = stage.priors.shape[1]
    assert count == len(model.propose.windows) > 500
    assert stage.logits.shape == (1, count, 21)
    assert stage.deltas.shape == (1, count, 80), "a box for each class"


@pytest.mark.part("recipe/rcnn", "propose/windows")
@pytest.mark.parametrize("count", [0, 1, 10, 300])
def test_any_number_of_objects_is_finite(count):
    torch.manual_seed(0)
    changes = [*SMALL["rcnn"], "model.propose={name: windows, scales: [0.5]}", "model.sample.count=16"]
    model = Recipe.load("rcnn", changes, without_data=True).model.build(num_classes=3)
    low = torch.rand(2, count, 2) * 90
    boxes = torch.cat([low, low + 8 + torch.rand(2, count, 2) * 30], dim=-1)
    valid = (torch.arange(count) % 4 != 3).expand(2, -1)
    targets = Targets(boxes, torch.zeros(2, count, dtype=torch.int64), valid, ~valid)
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    batch = Batch(images, targets, torch.arange(2), torch.eye(3).expand(2, 3, 3), torch.full((2, 2), 128))
    losses = model.losses(batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    if count == 0:
        assert losses["box"] == 0
        assert losses["class"] > 0

"""The recipes of anchor-free and assignment systems have the parts, sizes and parameters of their papers."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from torso.models import Detector
from torso.recipes.recipe import Recipe

FROZEN_BODY = 9_408 + 128 + 215_808  # of ResNet-50: first convolution and norm, first stage: usually not counted


@cache
def full(name: str) -> Detector:
    """The detector of a recipe for 80 classes, without memory."""
    with torch.device("meta"):
        model: Detector = Recipe.load(name, without_data=True).model.build(num_classes=80)
    return model


def named(part: Any) -> str:
    return type(part).__name__


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def tower(depth: int, channels: int = 256, bias: bool = True) -> int:
    """3x3 convolutions with group norm."""
    return depth * (9 * channels**2 + bias * channels + 2 * channels)


def last(outputs: int, kernel: int = 3, channels: int = 256) -> int:
    return outputs * (kernel**2 * channels + 1)


ANCHOR_FREE = [
    pytest.param(name, marks=pytest.mark.part(f"recipe/{name}"))
    for name in ("atss", "autoassign", "gfl", "iqdet", "ota", "paa", "reppoints")
]


@pytest.mark.parametrize("name", ANCHOR_FREE)
def test_one_prior_a_cell_on_five_levels_from_stride_8_to_128(name):
    model = full(name)
    assert model.neck.strides == [8, 16, 32, 64, 128]
    assert model.head.num_priors == [1] * 5
    assert 100**2 + 50**2 + 25**2 + 13**2 + 7**2 == 13_343
    assert Recipe.load(name, without_data=True).tree["data"]["size"] == 800


@pytest.mark.part("recipe/atss")
@pytest.mark.part("recipe/paa")
@pytest.mark.parametrize("name", ["atss", "paa"])
def test_their_one_anchor_is_a_square_of_8_strides_around_the_middle_of_its_cell(name):
    prior = Recipe.load(name, without_data=True).model.args["prior"].build(strides=[8, 16])
    boxes = prior([(2, 2), (1, 1)]).boxes
    assert boxes[0].tolist() == [-28, -28, 36, 36]
    assert boxes[3].tolist() == [-20, -20, 44, 44]
    assert boxes[4].tolist() == [-56, -56, 72, 72]


@pytest.mark.part("recipe/atss")
def test_atss_is_fcos_network_with_its_assigner_and_centerness():
    model = full("atss")
    objective = model.criterion
    assert count(model.head) == 2 * tower(4) + last(80) + last(4) + last(1) + 5
    assert round((count(model) - FROZEN_BODY) / 1e6, 2) == 32.07  # millions that learn, norms too
    assert (named(objective.assigner), objective.assigner.topk) == ("ATSS", 9)
    assert (named(objective.class_loss), named(objective.box_loss)) == ("Focal", "GIoU")
    assert (objective.box_weight, objective.quality_weight) == (2.0, 1.0)
    assert objective.branches == ["centerness"]


@pytest.mark.part("recipe/paa")
def test_paa_predicts_iou_and_mixes_gaussians():
    objective = full("paa").criterion
    assert (named(objective.assigner), objective.assigner.topk) == ("PAA", 9)
    assert objective.assigner.nearest.positive == 0.1
    assert (objective.box_weight, objective.quality_weight, objective.branches) == (1.3, 0.5, ["iou"])
    assert full("paa").score_powers == (0.5, 1.0, 0.5)


@pytest.mark.part("recipe/gfl")
def test_gfl_says_17_numbers_a_side_and_nothing_beside():
    model = full("gfl")
    objective = model.criterion
    assert model.coder.size == 4 * 17
    assert count(model.head) == 2 * tower(4) + last(80) + last(68) + 5
    assert round((count(model) - FROZEN_BODY) / 1e6, 2) == 32.22  # millions that learn, norms too
    assert objective.branches == []
    assert named(objective.assigner) == "ATSS"
    assert (named(objective.class_loss), objective.class_loss.beta) == ("QualityFocal", 2.0)
    assert (named(objective.box_loss), objective.box_weight) == ("GIoU", 2.0)
    assert (named(objective.distribution_loss), 4 * objective.distribution_weight) == ("DistributionFocal", 0.25)


@pytest.mark.part("recipe/ota")
def test_ota_transports_from_25_priors_a_level():
    objective = full("ota").criterion
    given = objective.assigner
    assert (given.nearest, given.topk, given.box_weight, given.blur, given.steps) == (5**2, 20, 1.5, 0.1, 50)
    assert (objective.box_weight, objective.quality_weight, objective.branches) == (2.0, 0.5, ["iou"])


@pytest.mark.part("recipe/ota")
def test_ota_goes_on_retinanets_head_too():
    changes = ["model.head=retina", "model.prior=anchors", "model.coder=delta"]
    with torch.device("meta"):
        model = Recipe.load("ota", changes, without_data=True).model.build(num_classes=80)
    assert model.head.num_priors == [9] * 5


@pytest.mark.part("recipe/iqdet")
def test_iqdet_learns_a_quality_at_each_prior_it_takes():
    objective = full("iqdet").criterion
    assert (named(objective.assigner), named(objective.class_loss)) == ("IQDet", "QualityFocal")
    assert objective.class_target == "assigned"
    assert objective.branches == ["iou"]


@pytest.mark.part("recipe/freeanchor")
def test_freeanchor_is_retinanet_with_bags_of_50():
    model = full("freeanchor")
    objective = model.criterion
    assert model.head.num_priors == [9] * 5
    assert count(model.head) == 8 * (9 * 256**2 + 256) + last(9 * 80) + last(9 * 4)
    assert round((count(model) - FROZEN_BODY) / 1e6, 2) == 37.74  # millions that learn, norms too
    assert (named(objective), objective.topk, objective.overlap) == ("FreeAnchor", 50, 0.6)
    assert (objective.alpha, objective.gamma, objective.box_weight) == (0.5, 2.0, 0.75)
    assert (named(objective.box_loss), objective.box_loss.beta) == ("SmoothL1", 0.11)
    assert model.coder.weights == (10, 10, 5, 5)


@pytest.mark.part("recipe/autoassign")
def test_autoassign_learns_a_centre_prior_of_each_class_and_objectness():
    model = full("autoassign")
    objective = model.criterion
    assert objective.mean.shape == objective.deviation.shape == (80, 2)
    assert objective.branches == ["objectness"]
    assert count(model.head) == 2 * tower(4) + last(80) + last(4) + last(1) + 5
    weights = objective.box_weight, objective.positive_weight, objective.negative_weight, objective.center_weight
    assert weights == (5.0, 0.25, 0.75, 0.75)


@pytest.mark.part("recipe/reppoints")
def test_reppoints_has_nine_points_and_two_stages():
    model = full("reppoints")
    objective = model.criterion
    stages = 2 * 9 * 256**2 + last(256) + last(18, 1) + last(80, 1) + last(18, 1)
    assert count(model.head) == 2 * tower(3, bias=False) + stages + 2
    assert round((count(model) - FROZEN_BODY) / 1e6, 2) == 36.62  # millions that learn, norms too
    assert (model.coder.points, model.coder.transform) == (9, "moment")
    assert (named(objective.first), objective.first.scale) == ("Scale", 4)
    assert (named(objective.assigner), objective.assigner.positive, objective.assigner.negative) == ("MaxIoU", 0.5, 0.4)
    assert (objective.first_weight, objective.box_weight, objective.scale) == (0.5, 1.0, 4)


@pytest.mark.part("recipe/densebox")
def test_densebox_is_twelve_layers_of_vgg_and_one_map_of_stride_4():
    model = full("densebox")
    convolutions = [m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 12
    assert (model.neck.strides, model.neck.channels) == ([4], [256 + 512])
    assert count(model.head) == 2 * last(512, 1, 768) + last(80, 1, 512) + last(4, 1, 512)
    recipe = Recipe.load("densebox", without_data=True)
    assert recipe.tree["data"]["size"] == 240, "60 x 60 answers"
    given = model.criterion.assigner
    assert (given.share / 2, given.shape, given.ring) == (0.3, "ellipse", 2)
    (box,) = recipe.model.args["prior"].build(strides=[4])([(1, 1)]).boxes
    assert (box[2:] - box[:2]).tolist() == [50, 50], "a face of the paper is the unit of distances"
    assert (model.criterion.sample.ratio, model.criterion.box_weight) == (1, 3.0)


@pytest.mark.part("recipe/matrixnet", "neck/matrix")
def test_matrixnet_has_19_levels_each_with_its_range_of_widths_and_heights():
    model = full("matrixnet")
    ranges = model.criterion.assigner.ranges
    assert len(model.neck.strides) == len(ranges) == 19
    for (height, width), (least_wide, most_wide, least_high, most_high) in zip(model.neck.strides, ranges, strict=True):
        # Where nothing lies beyond, a range is open: 24 to 48 px on the level of stride 8, doubled at each step.
        assert most_wide == (float("inf") if width == 128 else 6 * width)
        assert most_high == (float("inf") if height == 128 else 6 * height)
        assert least_wide in (0, 3 * width)
        assert least_high in (0, 3 * height)
    assert ranges[model.neck.strides.index((16, 16))] == [48, 96, 48, 96]
    assert ranges[model.neck.strides.index((16, 64))] == [192, 384, 0, 96], "8 x 64 is left out: its objects come here"
    assert model.criterion.assigner.relax == (0.8, 1.3)


@pytest.mark.part("recipe/matrixnet", "assigner/fcos")
def test_every_object_of_a_picture_of_640_px_has_a_level_of_matrixnet():
    """Also the most extreme; most have one or, near an end, some neighbours more."""
    model = full("matrixnet")
    given = model.criterion.assigner
    low, high = given.relax
    for width in (2, 23, 24, 47, 49, 95, 97, 200, 383, 385, 640):
        for height in (2, 23, 24, 47, 49, 95, 97, 200, 383, 385, 640):
            levels = [
                stride
                for stride, (a, b, c, d) in zip(model.neck.strides, given.ranges, strict=True)
                if a * low <= width <= b * high and c * low <= height <= d * high
            ]
            assert 1 <= len(levels) <= 6, f"{width} x {height}: {levels}"

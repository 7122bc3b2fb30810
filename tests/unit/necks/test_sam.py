"""Spatial attention: CBAM's against timm's, YOLOv4's against its formula."""

from __future__ import annotations

import pytest
import torch
from timm.layers.cbam import SpatialAttn
from torch import nn

from tests.unit.necks.pyramids import compare, copy_in_order, count, pyramid, randomise
from torso.necks.sam import SAM
from torso.testing import check_neck

CHANNELS, STRIDES = [6, 10], [8, 16]


@pytest.mark.part("neck/sam")
@pytest.mark.parametrize("kernel", [7, 3])
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_cbams_is_timms(kernel, training):
    theirs = nn.ModuleList([SpatialAttn(kernel), SpatialAttn(kernel)]).double().train(training)
    ours = SAM(CHANNELS, STRIDES, kernel=kernel).double().train(training)
    randomise(theirs)
    copy_in_order(theirs, ours)
    compare(ours, lambda xs: [attend(x) for attend, x in zip(theirs, xs, strict=True)], pyramid(CHANNELS, STRIDES))
    assert count(ours) == 2 * (2 * kernel**2 + 2)


@pytest.mark.part("neck/sam")
def test_cbams_gives_one_weight_to_all_channels_of_a_place():
    neck = SAM(CHANNELS, STRIDES, norm=None).double()
    features = pyramid(CHANNELS, STRIDES)
    for x, y in zip(features, neck(features), strict=True):
        weight = y / x
        torch.testing.assert_close(weight, weight[:, :1].expand_as(weight))
        assert ((weight > 0) & (weight < 1)).all()


@pytest.mark.part("neck/sam")
def test_yolov4s_weighs_every_number_by_the_channels_at_its_place():
    neck = SAM(CHANNELS, STRIDES, "pointwise", norm=None).double()
    features = pyramid(CHANNELS, STRIDES)
    for level, (x, y) in enumerate(zip(features, neck(features), strict=True)):
        conv = neck.blocks[str(level)].conv[0]
        raw = (conv.weight[:, :, 0, 0] @ x.movedim(1, -1)[..., None])[..., 0] + conv.bias  # [B, H, W, C]
        torch.testing.assert_close(y, x / (1 + (-raw.movedim(-1, 1)).exp()))
    assert count(neck) == sum(c * c + c for c in CHANNELS)


@pytest.mark.part("neck/sam")
def test_levels_that_are_not_chosen_pass():
    features = pyramid(CHANNELS, STRIDES)
    fine, coarse = SAM(CHANNELS, STRIDES, levels=[-1]).double()(features)
    assert fine is features[0]
    assert not torch.equal(coarse, features[1])


@pytest.mark.part("neck/sam")
@pytest.mark.parametrize("options", [{"kind": "pointwise"}, {"levels": [0], "norm": None}])
def test_it_keeps_the_contract(options):
    check_neck(lambda channels, strides: SAM(channels, strides, **options))


@pytest.mark.part("neck/sam")
@pytest.mark.parametrize("options", [{"kind": "channel"}, {"kernel": 4}, {"kernel": -1}])
def test_what_it_is_not_is_told_in_a_sentence(options):
    with pytest.raises(ValueError, match="sam is spatial or pointwise, with an odd kernel, got"):
        SAM(CHANNELS, STRIDES, **options)

"""Atrous spatial pyramid pooling against torchvision's and segmentation_models_pytorch's modules."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from segmentation_models_pytorch.decoders.deeplabv3 import decoder
from torch import nn
from torchvision.models.segmentation import deeplabv3

from tests.unit.necks.pyramids import compare, copy_in_order, count, pyramid, randomise
from torso.necks.aspp import ASPP, AtrousPyramid
from torso.testing import check_neck

CHANNELS, STRIDES = [6, 10], [8, 16]


@pytest.mark.part("neck/aspp")
@pytest.mark.parametrize("rates", [(12, 24, 36), (6, 12, 18), (2,), (1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_it_is_torchvisions(rates, training):
    theirs = deeplabv3.ASPP(10, rates, 4).double().train(training)
    theirs.project[3].p = 0.0
    ours = ASPP(CHANNELS, STRIDES, 4, rates, levels=[-1], dropout=0.0).double().train(training)
    randomise(theirs)
    copy_in_order(theirs, ours)
    compare(ours, lambda xs: [xs[0], theirs(xs[1])], pyramid(CHANNELS, STRIDES, (200, 264)))
    assert ours.channels == [6, 4]


@pytest.mark.part("neck/aspp")
@pytest.mark.parametrize("separable", [False, True])
def test_it_is_segmentation_models_pytorchs(separable):
    theirs = decoder.ASPP(10, 4, (6, 12, 18), separable, dropout=0.0).double()
    ours = ASPP(CHANNELS, STRIDES, 4, (6, 12, 18), [1], separable, 0.0).double()
    randomise(theirs)
    copy_in_order(theirs, ours)
    compare(ours, lambda xs: [xs[0], theirs(xs[1])], pyramid(CHANNELS, STRIDES, (200, 264)))


@pytest.mark.part("neck/aspp")
def test_deeplabv3_with_resnet_has_as_many_numbers_in_its_module():
    # 1x1, three 3x3 and the pooled 1x1 from 2048 to 256, 1x1 from 5 * 256 to 256, and six batch norms.
    expected = 2048 * 256 * (1 + 3 * 9 + 1) + 5 * 256 * 256 + 6 * 2 * 256
    assert count(ASPP([2048], [8])) == count(deeplabv3.ASPP(2048, (12, 24, 36))) == expected


@pytest.mark.part("neck/aspp")
def test_it_drops_at_its_end_and_only_in_training():
    block = AtrousPyramid(3, 64, (2,), dropout=0.5)
    x = torch.rand(2, 3, 16, 16)
    reference = AtrousPyramid(3, 64, (2,), dropout=0.0)
    reference.load_state_dict(block.state_dict())
    dropped, kept = block(x), reference(x)
    gone = (dropped == 0) & (kept != 0)
    torch.testing.assert_close(dropped[~gone], 2 * kept[~gone])
    assert 0.4 < gone.sum() / (kept != 0).sum() < 0.6
    assert torch.equal(block.eval()(x), reference.eval()(x))


@pytest.mark.part("neck/aspp")
@pytest.mark.parametrize("options", [{"levels": [0, -1], "norm": partial(nn.GroupNorm, 1)}, {"separable": True}])
def test_it_keeps_the_contract(options):
    check_neck(lambda channels, strides: ASPP(channels, strides, 8, **options))


@pytest.mark.part("neck/aspp")
@pytest.mark.parametrize("levels", [[2], [-3], [0, 0], [1, -1]])
def test_levels_that_are_not_there_are_told_in_a_sentence(levels):
    with pytest.raises(
        ValueError, match=r"aspp: levels \[.*\] are to be different ones of the 2 levels of strides \[8, 16\]"
    ):
        ASPP(CHANNELS, STRIDES, levels=levels)

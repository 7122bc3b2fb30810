"""The feature pyramid network, and what all necks say of levels that do not fit."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from tests.unit.necks.pyramids import compare, copy_in_order, pyramid, randomise
from torso.necks import FPN
from torso.necks.resample import channels_of_levels, check_levels, fit, pool
from torso.testing import check_neck

CHANNELS, STRIDES = [6, 8, 10], [8, 16, 32]
EXTRA = {"output": (2, LastLevelP6P7(4, 4)), "input": (2, LastLevelP6P7(10, 4)), "pool": (1, LastLevelMaxPool())}


@pytest.mark.part("neck/fpn", "skip/lateral")
@pytest.mark.parametrize("size", [(64, 64), (72, 104)], ids=["even", "odd"])
@pytest.mark.parametrize("source", [*EXTRA, None])
def test_it_is_torchvisions(source, size):
    extra, block = EXTRA[source] if source else (0, None)
    theirs = FeaturePyramidNetwork(CHANNELS, 4, extra_blocks=block).double()
    ours = FPN(CHANNELS, STRIDES, 4, extra, source or "output").double()
    randomise(theirs)
    copy_in_order(theirs, ours)
    compare(ours, lambda xs: theirs(OrderedDict(enumerate(xs))).values(), pyramid(CHANNELS, STRIDES, size))
    assert ours.strides == [8, 16, 32, 64, 128][: 3 + extra]


@pytest.mark.part("skip/lateral")
def test_a_lateral_connection_adds_a_level_to_the_coarser_one():
    neck = FPN([1, 1], [4, 8], 1, 0)
    for layer in (neck.lateral[0][0], neck.lateral[1][0]):
        torch.nn.init.ones_(layer.weight)
    for smooth in neck.smooth:
        torch.nn.init.dirac_(smooth[0].weight)
    fine, coarse = torch.arange(16.0).reshape(1, 1, 4, 4), torch.tensor([[[[100.0, 200], [300, 400]]]])
    first, second = neck([fine, coarse])
    torch.testing.assert_close(first, fine + coarse.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(second, coarse)


@pytest.mark.part("neck/fpn")
@pytest.mark.parametrize("options", [{"extra_from": "input"}, {"extra_from": "pool"}, {"extra": 0}])
def test_it_keeps_the_contract(options):
    check_neck(lambda channels, strides: FPN(channels, strides, channels=8, **options))


@pytest.mark.part("neck/fpn")
@pytest.mark.parametrize("strides", [[32], [16, 32], [4, 8, 16, 32], [2, 4, 8, 16, 32], [4, 8, 16, 16, 16]])
def test_any_number_of_levels_makes_a_pyramid(strides):
    neck = FPN([3] * len(strides), strides, 4, extra=1)
    outputs = neck([x.float() for x in pyramid([3] * len(strides), strides, (72, 40))])
    assert [list(x.shape[2:]) for x in outputs[:-1]] == [[-(-72 // s), -(-40 // s)] for s in strides]
    assert neck.strides == [*strides, 2 * strides[-1]]
    assert neck.channels == [4] * (len(strides) + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([8, 8], [8]), r"bifpn gets 2 in_channels \[8, 8\] but 1 strides \[8\]"),
        (([], []), r"bifpn joins 1 to 5 levels, but the backbone gives 0, of strides \[\]"),
        (([8] * 6, [1, 2, 4, 8, 16, 32]), r"bifpn joins 1 to 5 levels, but the backbone gives 6"),
        (([8, 8], [8, 12]), r"stride 12 follows 8 in \[8, 12\]"),
        (([8, 8], [16, 8]), r"stride 8 follows 16 in \[16, 8\]"),
    ],
)
def test_levels_that_do_not_fit_are_told_in_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_levels("bifpn", *arguments, most=5)


def test_ratios_between_levels():
    assert check_levels("pan", [1, 1, 1, 1], [4, 8, 8, 32]) == [2, 1, 4]
    assert channels_of_levels("pan", 7, [1, 2]) == [7, 7]
    assert channels_of_levels("pan", None, [1, 2]) == [1, 2]
    with pytest.raises(ValueError, match=r"pan: 1 channels \[7\] for 2 levels"):
        channels_of_levels("pan", [7], [1, 2])
    with pytest.raises(ValueError, match="at least 0, got -1"):
        FPN([8], [8], extra=-1)


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("size", [(1, 1), (7, 12), (16, 9), (33, 64)])
def test_pooling_rounds_up_and_keeps_the_largest(ratio, size):
    x = torch.rand(1, 2, *size)
    pooled = pool(x, ratio)
    assert list(pooled.shape[2:]) == [-(-side // ratio) for side in size]
    assert pooled.amax() == x.amax()


def test_a_level_that_has_the_size_is_not_copied():
    x = torch.rand(1, 2, 5, 4)
    assert fit(x, (5, 4)) is x
    assert list(fit(x, (9, 7)).shape) == [1, 2, 9, 7]

"""Matrix layers against the matrix of their paper, and against plain convolutions one after another."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.unit.necks.pyramids import compare, count, pyramid, randomise
from torso.necks.fpn import FPN
from torso.necks.matrix import Matrix
from torso.testing import check_module

CHANNELS, STRIDES = [6, 8, 10], [8, 16, 32]


@pytest.mark.part("neck/matrix")
def test_five_levels_make_the_19_layers_of_the_paper():
    neck = Matrix(CHANNELS, STRIDES, 4)
    sides = [8, 16, 32, 64, 128]
    inside = {(a, b) for a in sides for b in sides if max(a, b) <= 4 * min(a, b)}
    assert len(neck.strides) == 19
    assert set(neck.strides) == inside
    assert len(Matrix(CHANNELS, STRIDES, 4, reach=4).strides) == 25
    assert Matrix(CHANNELS, STRIDES, 4, reach=0).strides == [(side, side) for side in sides]


@pytest.mark.part("neck/matrix")
def test_all_stretched_layers_share_two_convolutions():
    assert count(Matrix([256, 512, 1024], STRIDES)) - count(FPN([256, 512, 1024], STRIDES)) == 2 * (9 * 256**2 + 256)


@pytest.mark.part("neck/matrix")
@pytest.mark.parametrize("size", [(256, 384), (296, 424)], ids=["even", "odd"])
def test_sizes_are_what_the_strides_say(size):
    neck = Matrix(CHANNELS, STRIDES, 4).double()
    outputs = neck(pyramid(CHANNELS, STRIDES, size))
    assert [list(x.shape[1:]) for x in outputs] == [[4, -(-size[0] // h), -(-size[1] // w)] for h, w in neck.strides]
    areas = [h * w for h, w in neck.strides]
    assert areas == sorted(areas)


@pytest.mark.part("neck/matrix")
def test_the_diagonal_is_fpn_and_the_rest_its_convolutions_repeated():
    neck = Matrix(CHANNELS, STRIDES, 4, extra=0).double()
    randomise(neck)
    fpn = FPN(CHANNELS, STRIDES, 4, extra=0).double()
    fpn.load_state_dict(neck.diagonal.state_dict())

    def slowly(features):
        layers = {}
        for stride, x in zip(STRIDES, fpn(features), strict=True):
            layers[stride, stride] = x
            for conv, step in ((neck.wider[0], (1, 2)), (neck.taller[0], (2, 1))):
                y, height, width = x, stride * step[0], stride * step[1]
                while max(height, width) <= 32 and max(height, width) <= 4 * min(height, width):
                    y = functional.conv2d(y, conv.weight, conv.bias, step, 1)
                    layers[height, width] = y
                    height, width = height * step[0], width * step[1]
        return [layers[stride] for stride in neck.strides]

    assert len(neck.strides) == 9
    compare(neck, slowly, pyramid(CHANNELS, STRIDES, (136, 200)))


@pytest.mark.part("neck/matrix")
def test_a_picture_on_its_side_changes_wide_for_tall():
    neck = Matrix([3], [8], 3, extra=2).double()
    for conv in (*neck.diagonal.modules(),):
        if isinstance(conv, nn.Conv2d):  # symmetric kernels do not tell height from width
            conv.weight.data = conv.weight.data + conv.weight.data.mT
    neck.taller[0].weight.data = neck.wider[0].weight.data.mT
    (x,) = pyramid([3], [8], (200, 136))
    upright, turned = neck([x]), neck([x.mT])
    by_stride = dict(zip(neck.strides, turned, strict=True))
    for (height, width), y in zip(neck.strides, upright, strict=True):
        torch.testing.assert_close(y, by_stride[width, height].mT)


@pytest.mark.part("neck/matrix")
def test_it_learns_repeats_itself_and_compiles():
    def features():
        return ([x.float() for x in pyramid(CHANNELS, STRIDES)],)

    check_module(Matrix(CHANNELS, STRIDES, 4, extra=1, norm=nn.BatchNorm2d), features)
    check_module(Matrix(CHANNELS, STRIDES, 4, reach=0), features)


@pytest.mark.part("neck/matrix")
def test_a_negative_reach_is_told_in_a_sentence():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        Matrix(CHANNELS, STRIDES, reach=-1)

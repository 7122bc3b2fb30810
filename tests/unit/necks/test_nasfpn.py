"""NAS-FPN against its figure, written out one cell after another."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from tests.unit.necks.pyramids import compare, count, pyramid, randomise
from torso.necks.nasfpn import NASFPN
from torso.testing import check_neck

CHANNELS, STRIDES = [6, 8, 10], [8, 16, 32]


def figure(neck: NASFPN, features: list[Tensor]) -> list[Tensor]:
    """Down by 2x2 max pooling (of the right size), up by copying, GP is x + y * sigmoid(max(x)), R-C-B is ``conv``."""
    p3, p4, p5 = (lateral(x) for lateral, x in zip(neck.lateral, features, strict=True))
    p6 = max_pool2d(p5, 2)
    p7 = max_pool2d(p6, 2)

    def gp(x: Tensor, y: Tensor) -> Tensor:
        return x + y * torch.sigmoid(x.flatten(2).max(2).values[:, :, None, None])

    def up(x: Tensor, times: int) -> Tensor:
        return interpolate(x, scale_factor=times)

    for cells in neck.cells:
        convs = [nn.Sequential(nn.ReLU(), cell[1], cell[2]) for cell in cells]
        a = convs[0](gp(p4, up(p6, 4)))
        b = convs[1](a + p4)
        p3 = convs[2](up(b, 2) + p3)
        p4 = convs[3](max_pool2d(p3, 2) + b)
        p5 = convs[4](gp(max_pool2d(p3, 4), max_pool2d(p4, 2)) + p5)
        p7 = convs[5](gp(max_pool2d(b, 8), max_pool2d(p5, 4)) + p7)
        p6 = convs[6](gp(max_pool2d(p5, 2), up(p7, 2)))
    return [p3, p4, p5, p6, p7]


@pytest.mark.part("neck/nasfpn")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("repeats", [1, 3])
def test_it_is_the_papers_figure(repeats, training):
    neck = NASFPN(CHANNELS, STRIDES, 4, repeats).double()
    randomise(neck)
    neck.train(training)
    compare(neck, lambda xs: figure(neck, xs), pyramid(CHANNELS, STRIDES, (256, 384)))


@pytest.mark.part("neck/nasfpn")
def test_its_seven_cells_of_256_channels_make_the_papers_detector():
    """RetinaNet with ResNet-50 and NAS-FPN (7 @ 256): 60.3 M parameters in table 1, which does not list its layers."""
    with torch.device("meta"):
        body, neck = timm.create_model("resnet50", num_classes=0), NASFPN([512, 1024, 2048], STRIDES)
    cell, norm = 256 * 256 * 9, 2 * 256
    assert count(neck) == 7 * 7 * (cell + norm) + (512 + 1024 + 2048) * 256 + 3 * norm
    head = 8 * (cell + 256) + 8 * 5 * norm + (256 * 9 + 1) * 9 * (90 + 4)
    assert count(body) + count(neck) + head == pytest.approx(60.3e6, rel=0.01)


@pytest.mark.part("neck/nasfpn")
@pytest.mark.parametrize("strides", [[32], [8, 16, 32], [4, 8, 16, 32], [4, 8, 16, 32, 64], [8, 16, 16, 16]])
def test_it_has_five_levels_whatever_comes_in(strides):
    channels = [3 + i for i in range(len(strides))]
    neck = NASFPN(channels, strides, 4, 1).eval()
    outputs = neck([x.float() for x in pyramid(channels, strides, (72, 40))])
    assert len(outputs) == 5
    assert [list(x.shape[1:]) for x in outputs] == [[4, -(-72 // s), -(-40 // s)] for s in neck.strides]
    assert neck.strides[: len(strides)] == strides


@pytest.mark.part("neck/nasfpn")
def test_a_level_that_was_rounded_down_is_met():
    outputs = NASFPN([4, 4], [8, 16], 4, 1).eval()([torch.rand(1, 4, 9, 7), torch.rand(1, 4, 4, 3)])
    assert [list(x.shape[2:]) for x in outputs] == [[9, 7], [4, 3], [2, 2], [1, 1], [1, 1]]


@pytest.mark.part("neck/nasfpn")
def test_wrong_arguments_are_told_in_a_sentence():
    with pytest.raises(ValueError, match="nasfpn joins 1 to 5 levels, but the backbone gives 6"):
        NASFPN([8] * 6, [2, 4, 8, 16, 32, 64])
    with pytest.raises(ValueError, match="repeats >= 1, got 0"):
        NASFPN(CHANNELS, STRIDES, repeats=0)


@pytest.mark.part("neck/nasfpn")
def test_it_keeps_the_contract():
    check_neck(lambda channels, strides: NASFPN(channels, strides, 8, 1, norm=None))

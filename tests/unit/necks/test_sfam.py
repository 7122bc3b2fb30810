"""M2Det's neck against its figure walked slowly, the paper's shapes, and torchvision's squeeze-and-excitation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torchvision.ops import SqueezeExcitation

from tests.unit.necks.pyramids import compare, copy_in_order, count, pyramid, randomise
from torso.necks.sfam import SFAM, ThinnedU
from torso.testing import check_neck

CHANNELS, STRIDES = [6, 8], [8, 16]


def conv(block, x):
    """Convolution, batch norm by its formula, ReLU."""
    layer, norm = block[0], block[1]
    x = functional.conv2d(x, layer.weight, None, layer.stride, layer.padding)
    shape = (-1, 1, 1)
    x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
    return (x * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)


def enlarged(x, size):
    """Nearest neighbour."""
    rows, columns = (torch.arange(n) * old // n for n, old in zip(size, x.shape[2:], strict=True))
    return x[:, :, rows][:, :, :, columns]


def u_shape(module, x):
    """Figure 4 (c)."""
    encoded = [x]
    for layer in module.down:
        encoded.append(conv(layer, encoded[-1]))
    y = conv(module.top, encoded[-1])
    scales = [conv(module.out[-1], y)]
    for i in reversed(range(len(module.down))):
        y = enlarged(y, encoded[i].shape[2:]) + conv(module.lateral[i], encoded[i])
        scales.insert(0, conv(module.out[i], y))
    return scales


@pytest.mark.part("neck/sfam")
@pytest.mark.parametrize("size", [(256, 192), (264, 200)], ids=["even", "odd"])
@pytest.mark.parametrize("strides", [[8, 16], [8], [4, 8, 32]], ids=str)
def test_it_is_its_figures_step_by_step(strides, size):
    channels = [6, 8, 10][: len(strides)]
    neck = SFAM(channels, strides, repeats=3, scales=4, channels=4, width=5, base=7, reduction=4).double().eval()
    randomise(neck)
    excite = [SqueezeExcitation(12, 3).double() for _ in range(4)]
    for theirs, ours in zip(excite, neck.weigh, strict=True):
        copy_in_order(ours, theirs)

    def slowly(features):
        maps = [conv(layer, x) for layer, x in zip(neck.base.compress, features, strict=True)]
        base = torch.cat([enlarged(x, maps[0].shape[2:]) for x in maps], 1)
        first = u_shape(neck.shapes[0], conv(neck.compress[0], base))
        second = u_shape(neck.shapes[1], torch.cat([conv(neck.compress[1], base), first[0]], 1))
        third = u_shape(neck.shapes[2], torch.cat([conv(neck.compress[2], base), second[0]], 1))
        return [weigh(torch.cat(scale, 1)) for weigh, *scale in zip(excite, first, second, third, strict=True)]

    compare(neck, slowly, pyramid(channels, strides, size))


@pytest.mark.part("neck/sfam")
def test_it_has_the_shapes_of_the_paper():
    with torch.device("meta"):  # nothing is computed
        neck = SFAM([512, 1024], [8, 16])
        levels = neck([torch.rand(2, 512, 40, 40), torch.rand(2, 1024, 20, 20)])
    assert [list(x.shape) for x in levels] == [[2, 1024, side, side] for side in (40, 20, 10, 5, 3, 2)]
    assert neck.base.channels == 768
    assert (neck.channels, neck.strides) == ([1024] * 6, [8, 16, 32, 64, 128, 256])


@pytest.mark.part("neck/sfam")
def test_a_u_shape_has_the_numbers_of_its_figure():
    def numbers(before, after, kernel):
        return before * after * kernel**2 + 2 * after

    # 5 strided and 5 lateral 3x3 convolutions, the first of each from the 256 channels of FFMv2; 1x1 on top, 6 out.
    expected = 10 * numbers(256, 256, 3) + numbers(256, 256, 1) + 6 * numbers(256, 128, 1)
    neck = SFAM([512, 1024], [8, 16])
    assert [count(shape) for shape in neck.shapes[1:]] == [expected] * 7
    assert count(neck.shapes[0]) == expected - 2 * 128 * 256 * 9
    fusion = numbers(512, 256, 1) + numbers(1024, 512, 1) + 8 * numbers(768, 128, 1)
    excite = 6 * (2 * 1024 * 64 + 1024 + 64)
    assert count(neck) == 8 * expected - 2 * 128 * 256 * 9 + fusion + excite


@pytest.mark.part("neck/sfam")
def test_later_modules_see_earlier_ones():
    neck = SFAM(CHANNELS, STRIDES, repeats=2, scales=2, channels=4).double().eval()
    features = pyramid(CHANNELS, STRIDES)
    before = neck(features)
    torch.nn.init.zeros_(neck.shapes[0].out[0][0].weight)  # the finest map of the first module
    after = neck(features)
    assert not torch.equal(before[1][:, 4:], after[1][:, 4:])


@pytest.mark.part("neck/sfam")
@pytest.mark.parametrize(
    "options", [{"repeats": 1, "scales": 1}, {"repeats": 2, "scales": 3, "base": [4, 4, 4], "norm": None}]
)
def test_it_keeps_the_contract(options):
    check_neck(lambda channels, strides: SFAM(channels, strides, channels=4, **options))


@pytest.mark.part("neck/sfam")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "got 0 and 6"),
        ({"scales": 0}, "got 8 and 0"),
        ({"base": [4]}, r"sfam: 1 channels \[4\] for 2 levels"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        SFAM(CHANNELS, STRIDES, **options)


def test_a_u_shape_of_one_scale_has_no_way_down():
    (output,) = ThinnedU(3, 4, 5, 1, None, torch.nn.ReLU)(torch.rand(1, 3, 6, 7))
    assert list(output.shape) == [1, 5, 6, 7]

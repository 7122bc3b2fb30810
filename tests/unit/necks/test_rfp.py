"""The recursive feature pyramid: its second path is torchvision's ResNet, its start is FPN, the rest walked slowly."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FeaturePyramidNetwork

from tests.unit.necks.pyramids import compare, copy_in_order, count, pyramid, randomise
from torso.necks.rfp import RFP, AtrousConnection
from torso.testing import check_neck

CHANNELS, STRIDES = [256, 512, 1024, 2048], [4, 8, 16, 32]


def resnet_levels(network, x):
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    levels = []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        levels.append(x)
    return levels


def copy_stages(network, neck):
    for layer, stage in zip((network.layer2, network.layer3, network.layer4), neck.stages, strict=True):
        copy_in_order(layer[0], stage.first.block)
        for theirs, ours in zip(layer[1:], stage.others, strict=True):
            copy_in_order(theirs, ours)


@pytest.mark.part("neck/rfp")
def test_its_own_stages_are_those_of_torchvisions_resnet_and_it_begins_as_fpn():
    network = ResNet(Bottleneck, [1, 2, 1, 2]).double().eval()
    fpn = FeaturePyramidNetwork(CHANNELS, 8).double()
    neck = RFP(CHANNELS, STRIDES, 8, blocks=[2, 1, 2], extra=0).double().eval()
    copy_stages(network, neck)
    copy_in_order(fpn, neck.pyramid)
    with torch.no_grad():
        levels = resnet_levels(network, torch.rand(1, 3, 72, 104, dtype=torch.float64))
        x = levels[0]
        for stage, expected in zip(neck.stages, levels[1:], strict=True):
            feedback = torch.rand(1, neck.connect.channels, *expected.shape[2:], dtype=torch.float64)
            x = stage(x, feedback)  # nothing of it comes through yet
            torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)
        # The second look sees what the first saw, so any mixture of the two pyramids is the pyramid.
        expected = list(fpn(OrderedDict(enumerate(levels))).values())
        torch.testing.assert_close(neck(levels), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.part("neck/rfp")
def test_with_resnet_50_it_has_its_stages_and_the_connections():
    neck = RFP(CHANNELS, STRIDES, blocks=(4, 6, 3), extra=0)
    network = ResNet(Bottleneck, [3, 4, 6, 3])
    stages = sum(count(layer) for layer in (network.layer2, network.layer3, network.layer4))
    feeds = sum(256 * c + c for c in CHANNELS[1:])
    connection = 64 * 256 * (1 + 9 + 9 + 1) + 4 * 64
    pyramid_ = count(FeaturePyramidNetwork(CHANNELS, 256))
    assert count(neck) == stages + feeds + connection + pyramid_ + 257


@pytest.mark.part("neck/rfp")
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_it_is_its_equations_step_by_step(steps):
    channels, strides = [8, 12, 16], [4, 8, 32]
    neck = RFP(channels, strides, 8, steps, extra=1).double().eval()
    randomise(neck)

    def connection(x):
        first, second, third = (branch[0] for branch in neck.connect.branches)
        mean = x.mean((2, 3))
        whole = (mean @ neck.connect.whole[0].weight[:, :, 0, 0].T + neck.connect.whole[0].bias).clamp(min=0)
        return torch.cat(
            [
                functional.conv2d(x, first.weight, first.bias).clamp(min=0),
                functional.conv2d(x, second.weight, second.bias, padding=3, dilation=3).clamp(min=0),
                functional.conv2d(x, third.weight, third.bias, padding=6, dilation=6).clamp(min=0),
                whole[:, :, None, None].expand(-1, -1, *x.shape[2:]),
            ],
            1,
        )

    def slowly(features):
        old = neck.pyramid(features)
        x = features
        for step in range(steps - 1):
            x = [features[0]]
            for stage, level in zip(neck.stages[2 * step : 2 * step + 2], old[1:], strict=True):
                block, feed = stage.first.block, stage.first.feed
                added = functional.conv2d(connection(level), feed.weight, feed.bias)
                x.append((block.path(x[-1]) + block.shortcut(x[-1]) + added).clamp(min=0))
            new = neck.pyramid(x)
            share = [1 / (1 + (-functional.conv2d(n, neck.gate.weight, neck.gate.bias)).exp()) for n in new]
            old = [s * n + (1 - s) * o for s, n, o in zip(share, new, old, strict=True)]
        return [*old, neck.down[0](old[-1])]

    compare(neck, slowly, pyramid(channels, strides, (136, 168)), 1e-8)
    assert neck.strides == [4, 8, 32, 64]
    assert neck.channels == [8] * 4


@pytest.mark.part("neck/rfp")
def test_the_gate_begins_in_the_middle_and_goes_to_either_side():
    neck = RFP([8, 8], [8, 16], 8, extra=0)
    old, new = torch.rand(1, 8, 3, 3), torch.rand(1, 8, 3, 3)
    for bias, expected in ((0.0, (old + new) / 2), (-200.0, old), (200.0, new)):
        torch.nn.init.constant_(neck.gate.bias, bias)
        torch.testing.assert_close(neck._mixed(new, old), expected)


@pytest.mark.part("neck/rfp")
def test_a_connection_has_a_quarter_of_the_channels_in_each_branch():
    connection = AtrousConnection(10)
    assert connection.channels == 8
    assert connection(torch.rand(2, 10, 5, 7)).shape == (2, 8, 5, 7)


@pytest.mark.part("neck/rfp")
@pytest.mark.parametrize("options", [{"steps": 1, "extra_from": "pool"}, {"steps": 3, "extra_from": "input"}])
def test_it_keeps_the_contract(options):
    check_neck(lambda channels, strides: RFP(channels, strides, 8, **options))


@pytest.mark.part("neck/rfp")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "got 0 and "),
        ({"blocks": (1, 2)}, r"for each of 1 stages, got 2 and \[1, 2\]"),
        ({"blocks": 0}, "got 2 and "),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        RFP([8, 8], [8, 16], **options)
    with pytest.raises(ValueError, match="rfp joins at least 2 levels, but the backbone gives 1"):
        RFP([8], [8])

"""Path aggregation: by addition against torchvision and plain sums, by concatenation against RT-DETR's encoder."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from transformers import RTDetrConfig
from transformers.models.rt_detr.modeling_rt_detr import RTDetrHybridEncoder
from transformers.models.slanet.configuration_slanet import SLANetConfig
from transformers.models.slanet.modeling_slanet import SLANetCSPLayer

from tests.unit.necks.pyramids import compare, copy_in_order, count, pyramid, randomise
from torso.necks.pan import PAN
from torso.testing import check_neck

CHANNELS, STRIDES = [6, 8, 10], [8, 16, 32]


@pytest.mark.part("neck/pan")
@pytest.mark.parametrize("size", [(64, 64), (72, 104)], ids=["even", "odd"])
def test_by_addition_it_is_an_fpn_and_the_papers_building_blocks(size):
    ours, fpn = PAN(CHANNELS, STRIDES, 4).double(), FeaturePyramidNetwork(CHANNELS, 4).double()
    randomise(ours)
    copy_in_order(ours.path.fpn, fpn)

    def paper(features: list[Tensor]) -> list[Tensor]:
        """N2 is P2; N(i + 1) is conv(P(i + 1) + conv of stride 2 (N(i))); ReLU after every convolution."""
        first, *rest = fpn(OrderedDict(enumerate(features))).values()
        outputs = [first]
        for down, smooth, level in zip(ours.path.down, ours.path.smooth, rest, strict=True):
            below = nn.functional.conv2d(outputs[-1], down[0].weight, down[0].bias, 2, 1).clamp(min=0)
            above = nn.functional.conv2d(level + below, smooth[0].weight, smooth[0].bias, 1, 1)
            outputs.append(above.clamp(min=0))
        return outputs

    compare(ours, paper, pyramid(CHANNELS, STRIDES, size))


@pytest.mark.part("neck/pan")
def test_by_addition_it_costs_two_convolutions_a_level_more_than_fpn():
    fpn = FeaturePyramidNetwork([256, 512, 1024, 2048], 256)
    neck = PAN([256, 512, 1024, 2048], [4, 8, 16, 32])
    assert count(neck) - count(fpn) == 3 * 2 * (256 * 256 * 9 + 256)


@pytest.mark.part("neck/pan")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_by_concatenation_it_has_the_paths_of_rt_detr(training):
    """Its encoder has YOLOX's paths with other blocks; ours stand in for those."""
    config = RTDetrConfig(
        encoder_layers=0, encoder_hidden_dim=8, encoder_in_channels=[8, 8, 8], activation_function="silu"
    )
    theirs = RTDetrHybridEncoder(config)
    ours = PAN([8, 8, 8], STRIDES, None, "concat").double()
    theirs.fpn_blocks, theirs.pan_blocks = ours.path.top_down[::-1], ours.path.bottom_up
    theirs.double()
    randomise(theirs)
    for mine, other in zip(ours.path.reduce, theirs.lateral_convs[::-1], strict=True):
        copy_in_order(other, mine)
    for mine, other in zip(ours.path.down, theirs.downsample_convs, strict=True):
        copy_in_order(other, mine)
    compare(
        ours.train(training),
        lambda xs: theirs.train(training)(xs).last_hidden_state,
        pyramid([8, 8, 8], STRIDES, (64, 96)),
    )


@pytest.mark.part("neck/pan")
def test_its_blocks_are_slanets_with_full_convolutions():
    ours = PAN([8, 8], [8, 16], None, "concat", depth=2).path.top_down[0].double().eval()
    theirs = SLANetCSPLayer(SLANetConfig(), 16, 8, num_blocks=2, activation="silu").double()
    for block, body in zip(theirs.bottlenecks, ours.body, strict=True):
        block.conv1, block.conv2 = body[0], body[1]
    theirs.eval()
    randomise(ours)
    halves = {"convolution.weight": "0.weight"} | {
        f"normalization.{name}": f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var")
    }
    with torch.no_grad():
        for other, mine in halves.items():
            value = ours.expand.state_dict()[mine]
            theirs.conv1.state_dict()[other].copy_(value[:4])  # the half that goes around
            theirs.conv2.state_dict()[other].copy_(value[4:])
            fused = ours.fuse.state_dict()[mine]
            if value.ndim == 4:  # theirs has the half that goes through first
                fused = torch.cat([fused[:, 4:], fused[:, :4]], 1)
            theirs.conv3.state_dict()[other].copy_(fused)
    compare(lambda xs: [ours(xs[0])], lambda xs: [theirs(xs[0])], pyramid([16], [8]))


@pytest.mark.part("neck/pan")
def test_by_concatenation_its_widths_are_yoloxs():
    """Parameters of YOLOX-S's neck, layer by layer: convolutions, and blocks (in, out) with one bottleneck."""

    def conv(before: int, after: int, kernel: int) -> int:
        return before * after * kernel**2 + 2 * after

    def block(before: int, after: int) -> int:
        half = after // 2
        return 2 * conv(before, half, 1) + conv(half, half, 1) + conv(half, half, 3) + conv(after, after, 1)

    layers = conv(512, 256, 1) + block(512, 256) + conv(256, 128, 1) + block(256, 128)
    layers += conv(128, 128, 3) + block(256, 256) + conv(256, 256, 3) + block(512, 512)
    neck = PAN([128, 256, 512], STRIDES, None, "concat", depth=1)
    assert count(neck) == layers
    assert neck.channels == [128, 256, 512]


@pytest.mark.part("neck/pan")
@pytest.mark.parametrize("fusion", ["add", "concat"])
@pytest.mark.parametrize("strides", [[16, 32], [4, 8, 16, 32], [2, 4, 8, 16, 32], [8, 16, 16, 16], [8, 32]])
def test_any_number_of_levels_of_odd_sizes(fusion, strides):
    channels = [3 + i for i in range(len(strides))]
    neck = PAN(channels, strides, 6, fusion, extra=1, extra_from="output").eval()
    outputs = neck([x.float() for x in pyramid(channels, strides, (72, 40))])
    assert [list(x.shape[1:]) for x in outputs] == [[6, -(-72 // s), -(-40 // s)] for s in neck.strides]
    assert (neck.channels, neck.strides) == ([6] * (len(strides) + 1), [*strides, 2 * strides[-1]])


@pytest.mark.part("neck/pan")
@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_a_level_that_was_rounded_down_is_met(fusion):
    outputs = PAN([4, 4], [8, 16], 6, fusion).eval()([torch.rand(1, 4, 9, 7), torch.rand(1, 4, 4, 3)])
    assert [list(x.shape[2:]) for x in outputs] == [[9, 7], [4, 3]]


@pytest.mark.part("neck/pan")
@pytest.mark.parametrize("options", [{"channels": 8, "extra": 2}, {"channels": [4, 6, 8], "fusion": "concat"}])
def test_it_keeps_the_contract(options):
    check_neck(lambda channels, strides: PAN(channels, strides, **options))


@pytest.mark.part("neck/pan")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [4, 6, 8]}, r"equal channels, got \[4, 6, 8\]"),
        ({"channels": [4, 6], "fusion": "concat"}, r"2 channels \[4, 6\] for 3 levels"),
        ({"fusion": "mean"}, "add or concat, got 'mean'"),
        ({"in_channels": [8], "strides": [8]}, "at least 2 levels, but the backbone gives 1"),
    ],
)
def test_wrong_arguments_are_told_in_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        PAN(**{"in_channels": CHANNELS, "strides": STRIDES} | options)

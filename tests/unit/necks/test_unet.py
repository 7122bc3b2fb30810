"""U-Net's decoder against segmentation_models_pytorch's, and against the paper's own numbers."""

from __future__ import annotations

import pytest
import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder, UnetDecoderBlock
from torch import nn
from torch.nn import functional

from tests.unit.necks.pyramids import compare, copy_in_order, count, pyramid, randomise
from torso.necks.unet import UNet
from torso.nn.skips import ConcatSkip
from torso.testing import check_module, check_neck

CHANNELS, STRIDES = [6, 8, 10, 12], [2, 4, 8, 16]


@pytest.mark.part("neck/unet", "skip/unet")
@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
@pytest.mark.parametrize("centre", [False, True], ids=["plain", "centre"])
@pytest.mark.parametrize("size", [(64, 96), (72, 104)], ids=["even", "odd"])
def test_it_is_segmentation_models_pytorchs(size, centre, upsample):
    theirs = UnetDecoder(
        (3, *CHANNELS), (9, 7, 5, 4), n_blocks=4, add_center_block=centre, interpolation_mode=upsample
    ).double()
    ours = UNet(CHANNELS, STRIDES, [4, 5, 7, 9], finer=1, centre=centre, upsample=upsample).double()
    randomise(theirs)
    copy_blocks(theirs, ours)
    picture = torch.zeros(2, 3, *size)
    compare(lambda xs: ours(xs)[:1], lambda xs: [theirs([picture, *xs])], pyramid(CHANNELS, STRIDES, size))
    assert ours.strides == [1, 2, 4, 8]


def copy_blocks(theirs: UnetDecoder, ours: UNet) -> None:
    copy_in_order(theirs.center, ours.centre)
    for block, step in zip(theirs.blocks, reversed(ours.steps), strict=True):
        copy_in_order(block, step)


@pytest.mark.part("skip/unet")
@pytest.mark.parametrize("shape", [(14, 22), (13, 21)])
def test_a_skip_is_concatenated_behind_the_upsampled_map(shape):
    theirs, ours = UnetDecoderBlock(6, 4, 5).double(), ConcatSkip(6, 4, 5).double()
    randomise(theirs)
    copy_in_order(theirs, ours)
    x, skip = pyramid([6], [1], (7, 11))[0], pyramid([4], [1], shape, seed=1)[0]
    compare(lambda xs: [ours(*xs)], lambda xs: [theirs(xs[0], *shape, xs[1])], [x, skip])


@pytest.mark.part("skip/unet", "neck/unet")
def test_the_decoder_has_the_numbers_of_the_paper():
    widths = [64, 128, 256, 512, 1024]
    decoder = UNet(widths, [1, 2, 4, 8, 16], widths[:4], upsample="transposed", norm=None)
    encoder = [nn.Conv2d(a, b, 3) for c, d in zip([1, *widths], widths, strict=False) for a, b in ((c, d), (d, d))]
    total = count(decoder) + sum(count(conv) for conv in encoder) + count(nn.Conv2d(64, 1, 1))
    assert total == 31_030_593  # 23 convolutions, one channel in, one out


@pytest.mark.part("skip/unet", "neck/unet")
@pytest.mark.parametrize("size", [(64, 48), (72, 104)], ids=["even", "odd"])
def test_the_papers_transposed_convolution_step_by_step(size):
    ours = UNet([6, 8, 10], [8, 16, 32], [4, 5], upsample="transposed", norm=None).double()

    def slowly(features):
        x, levels = features[-1], []
        for step, skip in zip(reversed(ours.steps), features[-2::-1], strict=True):
            # Every cell becomes two by two: a 1x1 convolution for each corner.
            corners = torch.einsum("bchw,cdij->bdhiwj", x, step.up.weight)
            x = corners.flatten(4, 5).flatten(2, 3) + step.up.bias.view(-1, 1, 1)
            x = torch.cat([x[:, :, : skip.shape[2], : skip.shape[3]], skip], 1)
            for conv in (step.conv1[0], step.conv2[0]):
                x = functional.conv2d(x, conv.weight, conv.bias, padding=1).clamp(min=0)
            levels.insert(0, x)
        return levels

    compare(ours, slowly, pyramid([6, 8, 10], [8, 16, 32], size))


@pytest.mark.part("neck/unet")
def test_channels_are_16_times_the_stride_by_default():
    neck = UNet([64, 256, 512, 1024, 2048], [2, 4, 8, 16, 32], finer=1)
    theirs = UnetDecoder((3, 64, 256, 512, 1024, 2048), (256, 128, 64, 32, 16))
    assert neck.channels == [16, 32, 64, 128, 256]
    assert count(neck) == count(theirs)


@pytest.mark.part("neck/unet")
@pytest.mark.parametrize("options", [{"finer": 2, "centre": True}, {"upsample": "transposed"}])
def test_it_keeps_the_contract(options):
    check_neck(lambda channels, strides: UNet(channels, strides, 8, **options))


@pytest.mark.part("skip/unet")
def test_a_step_learns_repeats_itself_and_compiles():
    check_module(ConcatSkip(6, 4, 5, 3, upsample="bilinear"), lambda: (torch.rand(2, 6, 3, 4), torch.rand(2, 4, 8, 12)))


@pytest.mark.part("neck/unet")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([8], [8]), r"unet joins at least 2 levels, but the backbone gives 1, of strides \[8\]"),
        (([8, 8], [4, 8], None, 3), "unet cannot halve the stride 4 of the finest level 3 times"),
        (([8, 8], [4, 8], [8, 8]), r"unet: 2 channels \[8, 8\] for 1 levels"),
        (([8, 8], [4, 8], None, 0, False, "cubic"), "upsample is nearest, bilinear or transposed, got 'cubic'"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(*arguments)

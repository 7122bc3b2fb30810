"""FCN's sums of scores and DenseNet's concatenations."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.densenet import DenseNet, _DenseBlock

from tests.unit.necks.pyramids import compare, copy_in_order, count, pyramid, randomise
from torso.nn.dense import Dense, dense_block
from torso.nn.skips import ScoreSkip, bilinear_upsampling
from torso.testing import check_module

CHANNELS, STRIDES = [5, 6, 7], [8, 16, 32]  # pool3, pool4, conv7


@pytest.mark.part("skip/fcn")
@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 8])
def test_upsampling_begins_as_bilinear(ratio):
    up = bilinear_upsampling(3, ratio).double()
    (x,) = pyramid([3], [1], (7, 5))
    expected = functional.interpolate(x, scale_factor=ratio, mode="bilinear")
    inside = slice(ratio // 2, -(ratio // 2) or None)
    torch.testing.assert_close(up(x)[:, :, inside, inside], expected[:, :, inside, inside])
    assert up(x).shape == expected.shape


@pytest.mark.part("skip/fcn")
@pytest.mark.parametrize("levels", [1, 2, 3], ids=["FCN-32s", "FCN-16s", "FCN-8s"])
def test_training_begins_with_the_coarse_prediction(levels):
    skip = ScoreSkip(CHANNELS[-levels:], STRIDES[-levels:], 4).double()
    features = pyramid(CHANNELS, STRIDES, (160, 96))[-levels:]
    coarse = skip.score[-1](features[-1])
    expected = coarse
    for _ in range(levels - 1):
        expected = functional.interpolate(expected, scale_factor=2, mode="bilinear")
    inside = slice(3, -3) if levels > 1 else slice(None)  # beyond the border zeros are read
    torch.testing.assert_close(skip(features)[:, :, inside, inside], expected[:, :, inside, inside])


@pytest.mark.part("skip/fcn")
@pytest.mark.parametrize("size", [(64, 96), (72, 104)], ids=["even", "odd"])
def test_scores_of_pool3_and_pool4_are_added_to_those_of_conv7(size):
    skip = ScoreSkip(CHANNELS, STRIDES, 4).double()
    randomise(skip)

    def upsampled(x, up):
        """Every cell paints its kernel around itself."""
        batch, _, height, width = x.shape
        canvas = torch.zeros(batch, 4, 2 * height + 2, 2 * width + 2, dtype=x.dtype)
        for i in range(height):
            for j in range(width):
                painted = torch.einsum("bc,cdij->bdij", x[:, :, i, j], up.weight)
                canvas = canvas + functional.pad(painted, (2 * j, 2 * (width - j) - 2, 2 * i, 2 * (height - i) - 2))
        return canvas[:, :, 1:-1, 1:-1]

    def slowly(features):
        def score(level):
            conv = skip.score[level]
            return torch.einsum("bchw,dc->bdhw", features[level], conv.weight[:, :, 0, 0]) + conv.bias.view(-1, 1, 1)

        total = score(2)
        for level in (1, 0):
            finer = score(level)
            total = finer + upsampled(total, skip.up[level])[:, :, : finer.shape[2], : finer.shape[3]]
        return [total]

    compare(lambda xs: [skip(xs)], slowly, pyramid(CHANNELS, STRIDES, size))


@pytest.mark.part("skip/fcn")
def test_fcn_8s_on_vgg16_adds_little():
    skip = ScoreSkip([256, 512, 4096], STRIDES, 21)
    assert count(skip) == 21 * (256 + 512 + 4096 + 3) + 2 * 21 * 21 * 16


@pytest.mark.part("skip/fcn")
def test_score_fusion_learns_repeats_itself_and_compiles():
    check_module(ScoreSkip(CHANNELS, STRIDES, 4), lambda: ([x.float() for x in pyramid(CHANNELS, STRIDES)],))
    with pytest.raises(ValueError, match="multiples, but 12 follows 8"):
        ScoreSkip([4, 4], [8, 12], 2)


@pytest.mark.part("skip/dense")
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_a_dense_block_is_torchvisions(training):
    theirs = _DenseBlock(4, 6, bn_size=3, growth_rate=5, drop_rate=0.0).double().train(training)
    ours = dense_block(6, 5, 4, width=3).double().train(training)
    randomise(theirs)
    copy_in_order(theirs, ours)
    compare(lambda xs: [ours(xs[0])], lambda xs: [theirs(xs[0])], pyramid([6], [8], (56, 40)))


@pytest.mark.part("skip/dense")
def test_densenet_121s_blocks_have_its_numbers():
    theirs = [m for m in DenseNet(32, (6, 12, 24, 16), 64).features if isinstance(m, _DenseBlock)]
    ours = [dense_block(c, 32, n) for c, n in ((64, 6), (128, 12), (256, 24), (512, 16))]
    assert [count(block) for block in ours] == [count(block) for block in theirs]


@pytest.mark.part("skip/dense")
def test_every_layer_reads_everything_before_it():
    block = Dense(*(nn.Conv2d(2 + i, 1, 1, bias=False) for i in range(3)))
    for layer in block.layers:
        nn.init.ones_(layer.weight)
    x = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    assert block(x).flatten().tolist() == [1, 2, 3, 6, 12]


@pytest.mark.part("skip/dense")
def test_a_dense_block_learns_repeats_itself_and_compiles():
    check_module(dense_block(6, 4, 2, dropout=0.2), lambda: (torch.rand(2, 6, 5, 7),))

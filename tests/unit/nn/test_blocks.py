"""Convolution blocks: torch's own where they are the thing, ours against timm's, and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.nn.same import check, compare, count
from torso.nn.conv import ConvNormAct, effective_kernel
from torso.nn.linear import conv_to_linear, linear_to_conv
from torso.nn.patch import PatchEmbedding
from torso.nn.separable import SeparableConv


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.part("block/conv_norm_act")
def test_the_darknet_unit_equals_timm() -> None:
    from timm.layers import ConvNormAct as Theirs

    theirs = Theirs(6, 10, 3, stride=2, act_layer=lambda **_: nn.LeakyReLU(0.1))
    compare(ConvNormAct(6, 10, 3, 2, activation=lambda: nn.LeakyReLU(0.1)), theirs, 2, 6, 9, 7)
    theirs = Theirs(6, 9, 5, dilation=2, groups=3)
    compare(ConvNormAct(6, 9, 5, dilation=2, groups=3), theirs, 2, 6, 13, 11)


@pytest.mark.part("block/conv_norm_act", "block/preactivation_order")
@pytest.mark.parametrize("order", ["cna", "nac", "acn", "can"])
def test_layers_stand_in_the_order_of_their_letters(order: str) -> None:
    block = ConvNormAct(4, 6, 3, 2, order=order)
    kinds = {"c": nn.Conv2d, "n": nn.BatchNorm2d, "a": nn.ReLU}
    assert [type(layer) for layer in block] == [kinds[letter] for letter in order]
    assert block[order.index("n")].num_features == (4 if order == "nac" else 6)
    assert (block[order.index("c")].bias is None) == (order in {"cna", "acn"}), "a norm right after needs no bias"
    check(block, 2, 4, 9, 7)


@pytest.mark.part("block/preactivation_order")
def test_the_order_matters_and_a_wrong_one_is_told() -> None:
    block = ConvNormAct(3, 3, 1, order="nac", bias=False).double().train()
    x = random(2, 3, 5, 5)
    by_hand = functional.conv2d(functional.batch_norm(x, None, None, training=True).relu(), block[2].weight)
    torch.testing.assert_close(block(x), by_hand)
    for wrong in ("cn", "cnaa", "abc", "ccn"):
        with pytest.raises(ValueError, match=r"order must be the letters c, n and a.*" + wrong):
            ConvNormAct(3, 3, order=wrong)


@pytest.mark.part("block/conv_norm_act")
def test_norm_and_activation_may_be_missing() -> None:
    plain = ConvNormAct(3, 4, 1, norm=None, activation=None)
    assert len(plain) == 1
    assert plain[0].bias is not None
    assert ConvNormAct(3, 4, norm=None, bias=False)[0].bias is None


@pytest.mark.part("block/depthwise", "block/grouped")
def test_groups_do_not_see_each_other() -> None:
    x = random(2, 6, 7, 5)
    for groups, channels in ((6, 6), (6, 12), (3, 9), (2, 4)):
        conv = ConvNormAct(6, channels, norm=None, activation=None, groups=groups).double()[0]
        assert conv.weight.numel() == 9 * channels * 6 // groups
        alone = [
            functional.conv2d(part, weight, bias, padding=1)
            for part, weight, bias in zip(
                x.chunk(groups, 1), conv.weight.chunk(groups), conv.bias.chunk(groups), strict=True
            )
        ]
        torch.testing.assert_close(conv(x), torch.cat(alone, 1))


@pytest.mark.part("block/pointwise")
def test_a_pointwise_convolution_is_a_linear_layer_at_every_place() -> None:
    x = random(2, 6, 7, 5)
    conv = ConvNormAct(6, 4, 1, norm=None, activation=None).double()[0]
    linear = functional.linear(x.permute(0, 2, 3, 1), conv.weight[:, :, 0, 0], conv.bias)
    torch.testing.assert_close(conv(x), linear.permute(0, 3, 1, 2))


@pytest.mark.part("block/depthwise_separable")
def test_separable_convolution_equals_timm_and_has_75_weights() -> None:
    from timm.layers import SeparableConv2d, SeparableConvNormAct

    assert count(SeparableConv(3, 16, norm=None, bias=False)) == 27 + 48 == 75
    assert count(ConvNormAct(3, 16, norm=None, bias=False)) == 432
    bare = SeparableConv(6, 10, stride=2, norm=None, activation=None, between=False)
    compare(bare, SeparableConv2d(6, 10, stride=2, bias=True), 2, 6, 9, 7)
    dilated = SeparableConv(6, 10, dilation=2, between=False)
    compare(dilated, SeparableConvNormAct(6, 10, dilation=2), 2, 6, 9, 7)


@pytest.mark.part("block/depthwise_separable")
def test_mobilenets_separable_block_equals_timm() -> None:
    from timm.models._efficientnet_blocks import DepthwiseSeparableConv

    ours = SeparableConv(6, 10, stride=2)
    compare(ours, DepthwiseSeparableConv(6, 10, stride=2, noskip=True, pw_act=True), 2, 6, 9, 7)
    check(ours.float(), 2, 6, 9, 7)


@pytest.mark.part("block/depthwise_separable")
def test_a_separable_convolution_is_the_full_one_of_rank_one() -> None:
    separable = SeparableConv(3, 5, norm=None, activation=None, bias=False).double()
    depthwise, pointwise = separable[0][0].weight, separable[1][0].weight
    x = random(2, 3, 7, 6)
    torch.testing.assert_close(separable(x), functional.conv2d(x, pointwise * depthwise.transpose(0, 1), padding=1))


@pytest.mark.part("block/dilated")
@pytest.mark.parametrize(("kernel", "dilation", "expected"), [(3, 1, 3), (3, 2, 5), (3, 4, 9), (5, 3, 13), (1, 7, 1)])
def test_a_dilated_kernel_spans_what_the_formula_says(kernel: int, dilation: int, expected: int) -> None:
    assert effective_kernel(kernel, dilation) == expected
    conv = ConvNormAct(1, 1, kernel, norm=None, activation=None, dilation=dilation).double()[0]
    nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 31, 31, dtype=torch.float64, requires_grad=True)
    output = conv(x)
    assert output.shape == x.shape
    (seen,) = torch.autograd.grad(output[0, 0, 15, 15], x)
    rows = seen[0, 0].any(1).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == expected
    assert int(seen.count_nonzero()) == kernel**2


@pytest.mark.part("block/channel_shuffle")
def test_a_shuffle_transposes_groups_and_places() -> None:
    from torchvision.models.shufflenetv2 import channel_shuffle

    x = random(2, 12, 3, 3)
    shuffled = nn.ChannelShuffle(3)(x)
    torch.testing.assert_close(shuffled, x[:, torch.arange(12).view(3, 4).t().flatten()])
    torch.testing.assert_close(shuffled, channel_shuffle(x, 3))
    torch.testing.assert_close(nn.ChannelShuffle(4)(shuffled), x), "shuffling by the other factor undoes it"


@pytest.mark.part("block/gap")
def test_global_average_pooling_is_the_mean_and_commutes_with_a_classifier() -> None:
    x = random(2, 6, 7, 5)
    pooled = nn.AdaptiveAvgPool2d(1)(x).flatten(1)
    torch.testing.assert_close(pooled, x.mean((2, 3)))
    linear = nn.Linear(6, 4).double()
    # The mean of the class activation map is the logit: what Network In Network replaces its last layers by.
    torch.testing.assert_close(linear(pooled), linear_to_conv(linear)(x).mean((2, 3)))


@pytest.mark.part("block/max_pool_unpool")
@pytest.mark.parametrize(("height", "width"), [(8, 6), (9, 7)])
def test_unpooling_copies_the_maxima_to_where_they_came_from(height: int, width: int) -> None:
    x = random(2, 3, height, width)
    pooled, places = nn.MaxPool2d(2, return_indices=True)(x)
    restored = nn.MaxUnpool2d(2)(pooled, places, output_size=x.shape)
    assert restored.shape == x.shape
    kept = restored != 0
    assert int(kept.sum()) == pooled.numel()
    torch.testing.assert_close(restored[kept], x[kept])
    torch.testing.assert_close(nn.functional.max_pool2d(restored.where(kept, torch.tensor(-torch.inf)), 2), pooled)


@pytest.mark.part("block/linear_as_conv")
@pytest.mark.parametrize("bias", [True, False])
def test_a_classifier_becomes_a_convolution_and_comes_back(bias: bool) -> None:
    linear = nn.Linear(4 * 3 * 2, 5, bias=bias).double()
    conv = linear_to_conv(linear, (3, 2))
    x = random(2, 4, 7, 5)
    maps = conv(x)
    assert maps.shape == (2, 5, 5, 4)
    for row in range(5):
        for column in range(4):
            patch = x[:, :, row : row + 3, column : column + 2]
            torch.testing.assert_close(maps[:, :, row, column], linear(patch.flatten(1)))
    back = conv_to_linear(conv)
    torch.testing.assert_close(back.state_dict(), linear.state_dict(), rtol=0, atol=0)
    assert back.weight.data_ptr() != conv.weight.data_ptr(), "a copy, not the same memory"


@pytest.mark.part("block/linear_as_conv")
def test_vggs_classifier_runs_on_larger_pictures() -> None:
    first, second = nn.Linear(8 * 7 * 7, 16), nn.Linear(16, 3)
    convolutional = nn.Sequential(linear_to_conv(first, 7), nn.ReLU(), linear_to_conv(second))
    x = torch.randn(2, 8, 7, 7)
    torch.testing.assert_close(convolutional(x).flatten(1), second(first(x.flatten(1)).relu()))
    assert convolutional(torch.randn(1, 8, 10, 9)).shape == (1, 3, 4, 3)


@pytest.mark.part("block/linear_as_conv")
def test_what_is_no_patch_is_told() -> None:
    with pytest.raises(ValueError, match=r"25 features are no map of 2 x 3"):
        linear_to_conv(nn.Linear(25, 2), (2, 3))
    with pytest.raises(ValueError, match=r"groups=2 and dilation=\(1, 1\)"):
        conv_to_linear(nn.Conv2d(4, 4, 1, groups=2))
    with pytest.raises(ValueError, match=r"groups=1 and dilation=\(2, 2\)"):
        conv_to_linear(nn.Conv2d(4, 4, 3, dilation=2))


@pytest.mark.part("block/patch_embedding")
@pytest.mark.parametrize(("height", "width"), [(24, 16), (25, 15)])
def test_patches_equal_timm(height: int, width: int) -> None:
    from timm.layers import PatchEmbed

    for norm in (None, nn.LayerNorm):
        theirs = PatchEmbed((height, width), 8, 3, 12, norm_layer=norm, flatten=True, dynamic_img_pad=True)
        ours = nn.Sequential(PatchEmbedding(3, 12, 8, norm), nn.Flatten(1, 2))
        compare(ours, theirs, 2, 3, height, width)
    check(PatchEmbedding(3, 12, 8, nn.LayerNorm), 2, 3, height, width)

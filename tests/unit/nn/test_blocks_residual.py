"""Residual blocks against torchvision's and timm's, and weighted residuals against their paper."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.unit.nn.same import check, compare, count
from torso.nn.channel_attention import SqueezeExcite
from torso.nn.conv import ConvNormAct
from torso.nn.csp import CSP
from torso.nn.inverted import fused_mbconv, inverted_residual, mbconv
from torso.nn.residual import Residual, Weighted, basic_block, bottleneck, shortcut


def projection(in_channels: int, channels: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


@pytest.mark.part("block/basic", "skip/residual")
@pytest.mark.parametrize(("before", "stride"), [(16, 1), (8, 2)])
def test_basic_blocks_equal_torchvision(before: int, stride: int) -> None:
    from torchvision.models.resnet import BasicBlock

    down = projection(before, 16, stride) if stride > 1 else None
    ours = basic_block(before, 16, stride)
    compare(ours, BasicBlock(before, 16, stride, down), 2, before, 9, 7)
    check(ours.float(), 2, before, 9, 7)


@pytest.mark.part("block/bottleneck", "block/resnext", "skip/residual")
@pytest.mark.parametrize(
    ("before", "stride", "groups", "width", "dilation"),
    [(32, 1, 1, 8, 1), (16, 2, 1, 8, 1), (32, 1, 4, 16, 1), (16, 2, 4, 16, 1), (32, 1, 4, 16, 2)],
)
def test_bottlenecks_equal_torchvision(before: int, stride: int, groups: int, width: int, dilation: int) -> None:
    from torchvision.models.resnet import Bottleneck

    down = projection(before, 32, stride) if stride > 1 else None
    base = 64 * width // groups // 8  # torchvision counts a group's channels at 64 planes
    theirs = Bottleneck(before, 8, stride, down, groups=groups, base_width=base, dilation=dilation)
    ours = bottleneck(before, 32, stride, width=width, groups=groups, dilation=dilation)
    compare(ours, theirs, 2, before, 9, 7)


@pytest.mark.part("block/resnext")
def test_resnext_is_the_sum_of_equal_branches() -> None:
    """Figure 3 of the paper: aggregated transformations, drawn as one grouped convolution."""
    ours = bottleneck(16, 16, width=8, groups=4, norm=lambda _: nn.Identity()).double()
    squeeze, middle, expand = (layer[0].weight for layer in ours.path)
    x = torch.randn(2, 16, 5, 5, dtype=torch.float64)
    branches = torch.zeros_like(x)
    for down, across, up in zip(squeeze.split(2), middle.split(2), expand.split(2, 1), strict=True):
        y = nn.functional.conv2d(x, down).relu()
        branches += nn.functional.conv2d(nn.functional.conv2d(y, across, padding=1).relu(), up)
    torch.testing.assert_close(ours(x), (x + branches).relu())
    # Equation 4 of the paper: C (256 d + 9 d d + 256 d) with C = 32 and d = 4, about as many as ResNet-50's block has.
    bare = partial(bottleneck, 256, 256, norm=lambda _: nn.Identity())
    assert count(bare(width=128, groups=32)) == 32 * (256 * 4 + 9 * 4 * 4 + 4 * 256) == 70_144
    assert count(bare()) == 256 * 64 + 9 * 64 * 64 + 64 * 256 == 69_632


@pytest.mark.part("block/preactivation_order", "block/basic", "block/bottleneck")
@pytest.mark.parametrize(("before", "stride"), [(32, 1), (16, 2)])
def test_preactivation_blocks_equal_timm(before: int, stride: int) -> None:
    from timm.layers import BatchNormAct2d, create_conv2d
    from timm.models.resnetv2 import DownsampleConv, PreActBasic, PreActBottleneck

    down = partial(DownsampleConv, preact=True) if stride > 1 else None
    for make, theirs in ((bottleneck, PreActBottleneck), (basic_block, PreActBasic)):
        other = theirs(
            before,
            32,
            bottle_ratio=0.25 if make is bottleneck else 1.0,
            stride=stride,
            conv_layer=create_conv2d,
            norm_layer=BatchNormAct2d,
            proj_layer=down,
        )
        ours = make(before, 32, stride, order="nac")
        compare(ours, other, 2, before, 9, 7, convert=projection_last)
        check(ours.float(), 2, before, 9, 7)


def projection_last(named: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(sorted(named.items(), key=lambda item: item[0].startswith("downsample")))


@pytest.mark.part("skip/residual")
def test_a_residual_adds_what_its_path_makes() -> None:
    x = torch.randn(2, 4, 5, 5)
    double = Residual(nn.Identity())
    assert torch.equal(double(x), 2 * x)
    assert torch.equal(Residual(nn.Identity(), activation=nn.ReLU())(x), (2 * x).relu())
    assert isinstance(shortcut(4, 4), nn.Identity)
    for other in (shortcut(4, 6), shortcut(4, 4, 2)):
        assert isinstance(other, ConvNormAct)


@pytest.mark.part("skip/weighted_residual")
def test_a_weighted_residual_begins_as_the_identity_and_learns_its_weight() -> None:
    torch.manual_seed(0)
    block = basic_block(4, 4, weighted=True, order="nac")
    deep = nn.Sequential(*(basic_block(4, 4, weighted=True, order="nac") for _ in range(50)))
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(deep(x), x)
    weights = [layer.weight for layer in deep.modules() if isinstance(layer, Weighted)]
    assert len(weights) == 50
    gradients = torch.autograd.grad(deep(x).square().sum(), weights)
    assert all(gradient != 0 for gradient in gradients), "every weight can leave 0"
    assert count(block) == count(basic_block(4, 4, order="nac")) + 1
    check(block, 2, 4, 9, 7)


@pytest.mark.part("skip/weighted_residual")
@pytest.mark.parametrize(("weight", "used"), [(0.5, 0.5), (-0.25, -0.25), (1.5, 1.0), (-3.0, -1.0)])
def test_the_weight_is_projected_but_can_come_back(weight: float, used: float) -> None:
    block = Residual(Weighted(nn.Identity(), start=weight))
    x = torch.randn(2, 3)
    torch.testing.assert_close(block(x), x + used * x)
    (gradient,) = torch.autograd.grad(block(x).sum(), block.path.weight)
    torch.testing.assert_close(gradient, x.sum())


@pytest.mark.part("block/inverted_residual", "block/linear_bottleneck")
@pytest.mark.parametrize(("channels", "stride", "expansion"), [(8, 1, 6), (12, 1, 6), (8, 2, 6), (8, 1, 1)])
def test_inverted_residuals_equal_torchvision(channels: int, stride: int, expansion: int) -> None:
    from torchvision.models.mobilenetv2 import InvertedResidual

    ours = inverted_residual(8, channels, stride, expansion=expansion)
    compare(ours, InvertedResidual(8, channels, stride, expansion), 2, 8, 9, 7)
    last = list(ours.modules())[-1] if isinstance(ours, nn.Sequential) else list(ours.path.modules())[-1]
    assert isinstance(last, nn.BatchNorm2d), "the bottleneck is linear"
    if expansion == 1:
        check(ours.float(), 2, 8, 9, 7)


@pytest.mark.part("block/linear_bottleneck")
def test_a_linear_bottleneck_loses_nothing_that_an_activation_would() -> None:
    """The last convolution passes negative values on; with an activation half of the space would be gone."""
    torch.manual_seed(0)
    linear = inverted_residual(8, 12)(torch.randn(4, 8, 9, 9))
    assert (linear < 0).float().mean() > 0.4


@pytest.mark.part("block/mbconv")
@pytest.mark.parametrize(("channels", "stride", "expansion", "kernel"), [(16, 1, 6, 3), (24, 2, 4, 5), (16, 1, 1, 3)])
def test_mbconv_equals_torchvision(channels: int, stride: int, expansion: int, kernel: int) -> None:
    from torchvision.models.efficientnet import MBConv, MBConvConfig

    config = MBConvConfig(expansion, kernel, stride, 16, channels, 1)
    ours = mbconv(16, channels, stride, expansion=expansion, kernel=kernel)
    compare(ours, MBConv(config, 0.0, nn.BatchNorm2d), 2, 16, 9, 7)
    if stride == 2:
        check(ours.float(), 2, 16, 9, 7)


@pytest.mark.part("block/fused_mbconv")
@pytest.mark.parametrize(("channels", "stride", "expansion"), [(16, 1, 4), (24, 2, 4), (16, 1, 1)])
def test_fused_mbconv_equals_torchvision(channels: int, stride: int, expansion: int) -> None:
    from torchvision.models.efficientnet import FusedMBConv, FusedMBConvConfig

    config = FusedMBConvConfig(expansion, 3, stride, 16, channels, 1)
    ours = fused_mbconv(16, channels, stride, expansion=expansion)
    compare(ours, FusedMBConv(config, 0.0, nn.BatchNorm2d), 2, 16, 9, 7)
    if expansion == 1:
        check(ours.float(), 2, 16, 9, 7)


@pytest.mark.part("block/mbconv", "block/fused_mbconv")
def test_a_dropped_path_leaves_the_input() -> None:
    x = torch.randn(2, 16, 5, 5)
    for make in (inverted_residual, mbconv, fused_mbconv):
        assert torch.equal(make(16, 16, drop=nn.Dropout(1.0))(x), x)


@pytest.mark.part("block/bottleneck", "attention/se")
def test_attention_stands_before_the_sum() -> None:
    """SE-ResNet's block."""
    from timm.layers import SEModule
    from timm.models.resnet import Bottleneck

    theirs = Bottleneck(32, 8, attn_layer=partial(SEModule, rd_channels=2))
    compare(bottleneck(32, 32, attention=partial(SqueezeExcite, hidden=2)), theirs, 2, 32, 9, 7)


def dark(width: int) -> nn.Module:
    """Two blocks of Darknet-53."""
    paths = (nn.Sequential(ConvNormAct(width, width // 2, 1), ConvNormAct(width // 2, width, 3)) for _ in range(2))
    return nn.Sequential(*(Residual(path) for path in paths))


def halves_swapped(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """CrossStage3 sends the first half through the blocks, CrossStage (and ours) the second."""
    swapped = {}
    for name, value in named.items():
        axis = {"conv_exp": 0, "conv_transition": 1 if value.dim() == 4 else None}.get(name.partition(".")[0])
        swapped[name] = value if axis is None or not value.dim() else value.roll(value.shape[axis] // 2, axis)
    return swapped


@pytest.mark.part("skip/csp")
@pytest.mark.parametrize("ratio", [1.0, 2.0])
@pytest.mark.parametrize("fusion", ["both", "first"])
def test_csp_equals_timm(fusion: str, ratio: float) -> None:
    from timm.models.cspnet import CrossStage, CrossStage3, DarkBlock

    make = {"both": CrossStage, "first": CrossStage3}[fusion]
    layers = {"act_layer": nn.ReLU, "norm_layer": nn.BatchNorm2d, "block_fn": DarkBlock}
    theirs = make(12, 16, 2, 1, 2, expand_ratio=ratio, block_ratio=ratio / 2, bottle_ratio=0.5, **layers)
    ours = nn.Sequential(ConvNormAct(12, 12, 3, 2), CSP(12, 16, dark, width=round(8 * ratio), fusion=fusion))
    compare(ours, theirs, 2, 12, 9, 7, convert=halves_swapped if fusion == "first" else dict)


@pytest.mark.part("skip/csp")
@pytest.mark.parametrize("fusion", ["both", "first", "last"])
def test_csp_wraps_blocks_that_add_channels(fusion: str) -> None:
    """Dense blocks, as in figure 3 of the paper."""
    from torchvision.models.densenet import _DenseBlock

    def dense(width: int) -> nn.Module:
        return _DenseBlock(2, width, bn_size=2, growth_rate=4, drop_rate=0.0)

    ours = CSP(12, 20, dense, width=8, body_width=16, fusion=fusion)
    check(ours, 2, 12, 9, 7)
    x = torch.randn(2, 12, 9, 7)
    ours.eval()
    around, through = ours.expand(x).split(8, 1)
    if fusion == "first":
        expected = ours.fuse(torch.cat([around, ours.body(through)], 1))
    else:
        blocks, transition = ours.body
        expected = torch.cat([around, transition(blocks(through))], 1)
        expected = expected if fusion == "last" else ours.fuse(expected)
    torch.testing.assert_close(ours(x), expected)
    assert expected.shape == (2, 20, 9, 7)


@pytest.mark.part("skip/csp")
def test_half_of_the_channels_pay_for_the_blocks() -> None:
    """The point of the paper: a quarter of the weights of every 3x3 convolution."""
    inside = sum(count(layer) for layer in CSP(64, 64, dark).body[0])
    assert inside / count(dark(64)) == pytest.approx(0.25, abs=0.01)


@pytest.mark.part("skip/csp")
def test_a_wrong_fusion_is_told() -> None:
    with pytest.raises(ValueError, match="fusion must be"):
        CSP(8, 8, dark, fusion="never")
    with pytest.raises(ValueError, match=r"got 'last' with 8 channels and width 8"):
        CSP(8, 8, dark, width=8, fusion="last")

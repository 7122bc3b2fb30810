"""Attention over tokens and channels and places, against torch, torchvision and timm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.nn.same import check, compare, count
from torso.nn.channel_attention import ChannelAttention, SqueezeExcite
from torso.nn.selective import SelectiveKernel
from torso.nn.spatial_attention import CBAM, SpatialAttention


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Equation 1 of Attention Is All You Need, one query after another."""
    rows = []
    for q in query:
        likeness = torch.stack([q @ k for k in key]) / q.numel() ** 0.5
        share = likeness.exp() / likeness.exp().sum()
        rows.append((share[:, None] * value).sum(0))
    return torch.stack(rows)


@pytest.mark.part("attention/self")
def test_scaled_dot_product_attention_is_the_formula() -> None:
    query, key, value = random(5, 8), random(7, 8, seed=1), random(7, 6, seed=2)
    torch.testing.assert_close(functional.scaled_dot_product_attention(query, key, value), by_hand(query, key, value))
    # A query that is like one key only returns its value; queries that are like none return the mean.
    sharp = functional.scaled_dot_product_attention(1e3 * torch.eye(4), torch.eye(4), torch.arange(4.0)[:, None])
    torch.testing.assert_close(sharp, torch.arange(4.0)[:, None])
    mean = functional.scaled_dot_product_attention(torch.zeros_like(query), key, value)
    torch.testing.assert_close(mean, value.mean(0).expand(5, -1))


@pytest.mark.part("attention/self")
def test_self_attention_does_not_know_the_order() -> None:
    x, order = random(1, 9, 8), torch.randperm(9, generator=torch.Generator().manual_seed(0))
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double()
    shuffled = attention(x[:, order], x[:, order], x[:, order])[0]
    torch.testing.assert_close(attention(x, x, x)[0][:, order], shuffled)


@pytest.mark.part("attention/multi_head", "attention/cross")
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_multi_head_attention_is_the_formula_a_head(heads: int) -> None:
    """Self-attention where keys are the queries, cross-attention where another sequence gives keys and values."""
    attention = nn.MultiheadAttention(8, heads, batch_first=True).double()
    nn.init.normal_(attention.in_proj_bias)
    x = random(5, 8)
    for memory in (x, random(7, 8, seed=1)):
        got, shares = attention(x[None], memory[None], memory[None])
        weights = attention.in_proj_weight.chunk(3)
        biases = attention.in_proj_bias.chunk(3)
        query, key, value = (
            functional.linear(*three) for three in zip((x, memory, memory), weights, biases, strict=True)
        )
        size = 8 // heads
        parts = [by_hand(*(y[:, i : i + size] for y in (query, key, value))) for i in range(0, 8, size)]
        torch.testing.assert_close(got[0], attention.out_proj(torch.cat(parts, 1)))
        torch.testing.assert_close(shares.sum(-1), torch.ones(1, 5, dtype=torch.float64))


@pytest.mark.part("attention/cross")
def test_cross_attention_does_not_see_what_is_padding() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    query, memory = random(2, 5, 8), random(2, 7, 8, seed=1)
    padding = torch.arange(7) >= torch.tensor([[4], [7]])
    masked = attention(query, memory, memory, key_padding_mask=padding)[0]
    torch.testing.assert_close(masked[:1], attention(query[:1], memory[:1, :4], memory[:1, :4])[0])
    torch.testing.assert_close(masked[1:], attention(query[1:], memory[1:], memory[1:])[0])


@pytest.mark.part("attention/se")
def test_squeeze_and_excitation_equals_torchvision_and_timm() -> None:
    from timm.layers import SEModule
    from torchvision.ops import SqueezeExcitation

    compare(SqueezeExcite(32, 8), SqueezeExcitation(32, 8), 2, 32, 9, 7)
    compare(SqueezeExcite(32, 4, nn.SiLU, nn.Hardsigmoid), _hard(SqueezeExcitation(32, 4)), 2, 32, 9, 7)
    compare(SqueezeExcite(32), SEModule(32, rd_divisor=1), 2, 32, 9, 7)
    assert list(SqueezeExcite(32, 8).state_dict()) == list(SqueezeExcitation(32, 8).state_dict())
    assert list(SqueezeExcite(32, 8).state_dict()) == list(SEModule(32, rd_channels=8).state_dict())


def _hard(module: nn.Module) -> nn.Module:
    module.activation, module.scale_activation = nn.SiLU(), nn.Hardsigmoid()
    return module


@pytest.mark.part("attention/se")
def test_excitation_is_one_number_a_channel_that_all_places_decide() -> None:
    module = SqueezeExcite(8).double()
    assert count(module) == 8 * 1 + 1 + 1 * 8 + 8, "at least one hidden channel"
    x = random(2, 8, 5, 3)
    ratio = module(x) / x
    torch.testing.assert_close(ratio, ratio[..., :1, :1].expand_as(ratio))
    assert ratio.min() > 0
    assert ratio.max() < 1
    torch.testing.assert_close(module(x.flip(-1)), module(x).flip(-1))
    check(module.float(), 2, 8, 5, 3)


@pytest.mark.part("attention/cbam")
def test_cbam_equals_timm() -> None:
    from timm.layers.cbam import CbamModule, ChannelAttn, SpatialAttn

    compare(ChannelAttention(32), ChannelAttn(32), 2, 32, 9, 7)
    compare(ChannelAttention(32, 4, bias=True), ChannelAttn(32, rd_channels=4, mlp_bias=True), 2, 32, 9, 7)
    compare(SpatialAttention(5), SpatialAttn(5), 2, 6, 9, 7)
    compare(CBAM(32), CbamModule(32), 2, 32, 9, 7)


@pytest.mark.part("attention/cbam")
def test_cbam_keeps_the_contract() -> None:
    check(CBAM(32), 2, 32, 9, 7)
    bare = SpatialAttention(norm=None)
    assert count(bare) == 2 * 49 + 1
    x = torch.randn(2, 6, 9, 7)
    ratio = bare(x) / x
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))


@pytest.mark.part("attention/cbam")
def test_equal_maxima_give_finite_gradients() -> None:
    """As on a map that is 0 everywhere after a ReLU."""
    module = CBAM(16).double().eval()
    x = torch.zeros(1, 16, 5, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x).sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.part("attention/sk")
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 4)])
def test_selective_kernels_equal_timm(split: bool, stride: int, groups: int) -> None:
    from timm.layers import SelectiveKernel as Theirs

    theirs = Theirs(16, 24, stride=stride, groups=groups, rd_channels=8, split_input=split)
    ours = SelectiveKernel(16, 24, stride=stride, groups=groups, hidden=8, split=split)
    compare(ours, theirs, 2, 16, 9, 7)


@pytest.mark.part("attention/sk")
def test_a_channel_takes_shares_of_its_kernels() -> None:
    module = SelectiveKernel(32, kernels=(3, 5, 7)).double().eval()
    check(SelectiveKernel(8, split=True), 2, 8, 9, 7)
    x = random(2, 32, 9, 7)
    seen = torch.stack([branch(x) for branch in module.branches])
    out = module(x)
    assert (out >= seen.amin(0) - 1e-12).all(), "a mean with weights lies between what it is of"
    assert (out <= seen.amax(0) + 1e-12).all()
    nn.init.zeros_(module.select.weight)
    torch.testing.assert_close(module(x), seen.mean(0))
    assert module.reduce[0].out_channels == 32, "at least 32, as in the paper"
    with torch.no_grad():
        far = torch.zeros(1, 32, 15, 15, dtype=torch.float64)
        far[..., 7, 7] = 1
        spans = [branch[0](far).abs().sum((0, 1, 2)).nonzero().flatten() for branch in module.branches]
    assert [int(span[-1] - span[0] + 1) for span in spans] == [3, 5, 7]


@pytest.mark.part("attention/sk")
@pytest.mark.parametrize("options", [{"kernels": (2, 3)}, {"kernels": (1, 3)}, {"kernels": (3, 5, 7), "split": True}])
def test_kernels_that_cannot_be_are_told(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="kernels must be odd and at least 3"):
        SelectiveKernel(16, **options)

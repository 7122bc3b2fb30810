"""Adaptively spatial feature fusion: what its weights are, and the paper's formula cell by cell."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, max_pool2d

from tests.unit.necks.pyramids import compare, count, pyramid, randomise
from torso.necks.asff import ASFF
from torso.testing import check_neck

CHANNELS, STRIDES = [4, 6, 8], [8, 16, 32]


@pytest.mark.part("neck/asff")
@settings(deadline=None, max_examples=25)
@given(
    strides=st.sampled_from([[8, 16], [8, 16, 32], [4, 8, 16, 32], [8, 16, 16], [8, 24, 72]]),
    size=st.tuples(st.integers(8, 200), st.integers(8, 200)),
    seed=st.integers(0, 99),
)
def test_weights_sum_to_1_at_every_position(strides, size, seed):
    channels = [3 + i for i in range(len(strides))]
    neck = ASFF(channels, strides).double().eval()
    randomise(neck, seed)
    features = pyramid(channels, strides, size, seed)
    for i, level in enumerate(neck.levels):
        resized = level.resized(features)
        assert {x.shape for x in resized} == {features[i].shape}
        weights = level.weights(resized)
        assert weights.shape == (2, len(strides), *features[i].shape[2:])
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]), rtol=1e-12, atol=1e-12)
        fused, stack = level(features), torch.stack(resized)
        assert (fused <= stack.amax(0) + 1e-9).all()
        assert (fused >= stack.amin(0) - 1e-9).all()


def by_hand(neck: ASFF, features: list[Tensor]) -> list[Tensor]:
    """Equations 1 to 3 of the paper for three levels, each twice as coarse as the one before, in evaluation mode."""
    x3, x2, x1 = features  # the paper counts from the coarsest

    def block(layers: nn.Sequential, x: Tensor, stride: int = 1) -> Tensor:
        conv, norm = layers[0], layers[1]
        x = conv2d(x, conv.weight, None, stride, conv.weight.shape[2] // 2)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        x = (x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        return leaky_relu(x, 0.1)

    def up(x: Tensor, times: int) -> Tensor:
        return x.repeat_interleave(times, 2).repeat_interleave(times, 3)

    fine, middle, coarse = neck.levels
    resized = [
        (x3, up(block(fine.resize[1], x2), 2), up(block(fine.resize[2], x1), 4)),
        (block(middle.resize[0], x3, 2), x2, up(block(middle.resize[2], x1), 2)),
        (block(coarse.resize[0], max_pool2d(x3, 3, 2, 1), 2), block(coarse.resize[1], x2, 2), x1),
    ]
    outputs = []
    for maps, level, expand in zip(resized, neck.levels, neck.expand, strict=True):
        hidden = torch.cat([block(w, x) for w, x in zip(level.weigh, maps, strict=True)], 1)
        control = conv2d(hidden, level.weight.weight, level.weight.bias).exp()
        alpha, beta, gamma = (control / control.sum(1, keepdim=True)).split(1, 1)
        outputs.append(block(expand, alpha * maps[0] + beta * maps[1] + gamma * maps[2]))
    return outputs


@pytest.mark.part("neck/asff")
def test_it_is_the_papers_equations():
    neck = ASFF(CHANNELS, STRIDES, [5, 7, 9]).double().eval()
    randomise(neck)
    compare(neck, lambda xs: by_hand(neck, xs), pyramid(CHANNELS, STRIDES, (64, 96)))


@pytest.mark.part("neck/asff")
def test_a_level_can_be_switched_off():
    neck = ASFF(CHANNELS, STRIDES).double().eval()
    features = pyramid(CHANNELS, STRIDES)
    for i, level in enumerate(neck.levels):
        nn.init.zeros_(level.weight.weight)
        with torch.no_grad():
            level.weight.bias.copy_(torch.tensor([-1e4, 0, -1e4]))
        torch.testing.assert_close(level(features), level.resized(features)[1])
        if i == 1:
            torch.testing.assert_close(level(features), features[1])


@pytest.mark.part("neck/asff")
def test_its_parameters_are_those_of_the_papers_layers():
    """For YOLOv3's levels of 512, 256 and 256 channels (coarsest first) that end with 1024, 512 and 256."""

    def conv(before: int, after: int, kernel: int) -> int:
        return before * after * kernel**2 + 2 * after

    total = 0
    for channels, resize, end in (
        (512, conv(256, 512, 3) * 2, 1024),
        (256, conv(512, 256, 1) + conv(256, 256, 3), 512),
        (256, conv(512, 256, 1) + conv(256, 256, 1), 256),
    ):
        total += resize + 3 * conv(channels, 16, 1) + (48 * 3 + 3) + conv(channels, end, 3)
    assert count(ASFF([256, 256, 512], STRIDES, [256, 512, 1024])) == total


@pytest.mark.part("neck/asff")
@pytest.mark.parametrize("strides", [[16, 32], [4, 8, 16, 32], [2, 4, 8, 16, 32], [8, 16, 16]])
def test_any_number_of_levels_of_odd_sizes(strides):
    channels = [3 + i for i in range(len(strides))]
    neck = ASFF(channels, strides, 6).eval()
    outputs = neck([x.float() for x in pyramid(channels, strides, (72, 40))])
    assert [list(x.shape[1:]) for x in outputs] == [[6, -(-72 // s), -(-40 // s)] for s in strides]
    assert (neck.channels, neck.strides) == ([6] * len(strides), strides)


@pytest.mark.part("neck/asff")
def test_it_keeps_the_contract():
    check_neck(lambda channels, strides: ASFF(channels, strides, 8, weight_channels=4))
    with pytest.raises(ValueError, match="at least 2 levels, but the backbone gives 1"):
        ASFF([8], [8])
    with pytest.raises(ValueError, match=r"2 channels \[4, 6\] for 3 levels"):
        ASFF(CHANNELS, STRIDES, [4, 6])

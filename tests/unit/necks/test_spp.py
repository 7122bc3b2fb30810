"""Spatial pyramid pooling against timm's and against itself in a chain."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.cspnext import SPPBottleneck
from torch import nn

from tests.unit.necks.pyramids import compare, copy_in_order, pyramid, randomise
from torso.necks.spp import SPP
from torso.nn.pyramid_pool import PyramidPool
from torso.testing import check_module, check_neck


@pytest.mark.part("neck/spp")
@pytest.mark.parametrize("chained", [True, False], ids=["SPPF", "SPP"])
@pytest.mark.parametrize("kernels", [(5, 9, 13), (3, 7)])
def test_it_is_timms(kernels, chained):
    theirs = SPPBottleneck(12, 10, kernels).double()
    ours = SPP([4, 12], [16, 32], 10, kernels, chained, activation=nn.SiLU).double()
    randomise(theirs)
    copy_in_order(theirs, ours)
    compare(ours, lambda xs: [xs[0], theirs(xs[1])], pyramid([4, 12], [16, 32], (250, 330)))


@pytest.mark.part("neck/spp")
def test_three_pools_of_5_in_a_chain_are_pools_of_5_9_and_13():
    (x,) = pyramid([3], [4], (76, 60))
    pool = nn.MaxPool2d(5, 1, 2)
    chain = torch.cat([x, pool(x), pool(pool(x)), pool(pool(pool(x)))], 1)
    for chained in (True, False):
        assert torch.equal(PyramidPool(chained=chained)(x), chain)
    compare(lambda xs: [PyramidPool(chained=True)(xs[0])], lambda xs: [PyramidPool(chained=False)(xs[0])], [x])


@pytest.mark.part("neck/spp")
@settings(deadline=None, max_examples=40)
@given(
    kernels=st.sets(st.integers(1, 8).map(lambda i: 2 * i + 1), min_size=1, max_size=4).map(sorted),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 99),
)
def test_any_chain_is_its_parallel_pools(kernels, size, seed):
    x = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(seed))
    expected = torch.cat([x, *(nn.MaxPool2d(k, 1, k // 2)(x) for k in kernels)], 1)
    assert torch.equal(PyramidPool(kernels, chained=True)(x), expected)
    assert torch.equal(PyramidPool(kernels, chained=False)(x), expected)


@pytest.mark.part("neck/spp")
def test_a_window_sees_as_far_as_its_kernel_says():
    x = torch.zeros(1, 1, 31, 31)
    x[0, 0, 15, 15] = 1
    assert PyramidPool()(x).sum((0, 2, 3)).tolist() == [1, 25, 81, 169]


@pytest.mark.part("neck/spp")
@pytest.mark.parametrize("kernels", [(), (4,), (5, 5), (9, 5), (1, 3), (-3,)])
def test_kernels_that_make_no_pyramid_are_told(kernels):
    with pytest.raises(ValueError, match="odd numbers above 1, rising, got"):
        SPP([8], [32], kernels=kernels)


@pytest.mark.part("neck/spp")
def test_it_keeps_the_contract():
    check_neck(lambda channels, strides: SPP(channels, strides, chained=False))
    check_module(PyramidPool(), lambda: (torch.rand(1, 2, 9, 7, requires_grad=True),))
    neck = SPP([3, 8], [16, 32], 5)
    assert (neck.channels, neck.strides) == ([3, 5], [16, 32])
    fine, coarse = torch.rand(1, 3, 9, 7), torch.rand(1, 8, 5, 4)
    first, second = neck.eval()([fine, coarse])
    assert first is fine
    assert list(second.shape) == [1, 5, 5, 4]
    with pytest.raises(ValueError, match="spp gets 2 in_channels"):
        SPP([3, 8], [16])

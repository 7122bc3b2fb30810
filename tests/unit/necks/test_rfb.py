"""Receptive field blocks against the table of their figure, walked slowly, and against how far they see."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.unit.necks.pyramids import compare, count, pyramid, randomise
from torso.necks.rfb import RFB, ReceptiveFieldBlock
from torso.testing import check_neck

# Figure 4 for 16 channels: kernel (height, width), channels, dilation, whether the block's stride is there.
LARGE = [
    [((1, 1), 4, 1, True), ((3, 3), 4, 1, False)],
    [((1, 1), 2, 1, False), ((3, 3), 4, 1, True), ((3, 3), 4, 3, False)],
    [((1, 1), 2, 1, False), ((3, 3), 3, 1, False), ((3, 3), 4, 1, True), ((3, 3), 4, 5, False)],
]
SMALL = [
    [((1, 1), 4, 1, False), ((3, 3), 4, 1, False)],
    [((1, 1), 4, 1, False), ((3, 1), 4, 1, False), ((3, 3), 4, 3, False)],
    [((1, 1), 4, 1, False), ((1, 3), 4, 1, False), ((3, 3), 4, 3, False)],
    [((1, 1), 2, 1, False), ((1, 3), 3, 1, False), ((3, 1), 4, 1, False), ((3, 3), 4, 5, False)],
]


def walked(block: ReceptiveFieldBlock, x: torch.Tensor, table: list, stride: int, scale: float) -> torch.Tensor:
    """The block step by step: convolutions by patches and matrix products, batch norm by its formula."""
    state = iter(block.state_dict(keep_vars=True).items())

    def conv_norm(x: torch.Tensor, kernel: tuple[int, int], dilation: int = 1, stride: int = 1) -> torch.Tensor:
        given = [next(state)[1] for _ in range(6)]
        weight, gamma, beta, mean, var, _ = given
        assert tuple(weight.shape[2:]) == kernel
        padding = tuple(side // 2 * dilation for side in kernel)
        patches = functional.unfold(x, kernel, dilation, padding, stride)
        size = [-(-side // stride) for side in x.shape[2:]]
        y = (weight.flatten(1) @ patches).unflatten(2, size)
        shape = (-1, 1, 1)
        return (y - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt() * gamma.view(shape) + beta.view(shape)

    seen = []
    for branch in table:
        y = x
        for i, (kernel, channels, dilation, strided) in enumerate(branch):
            y = conv_norm(y, kernel, dilation, stride if strided else 1)
            assert y.shape[1] == channels
            y = y if i == len(branch) - 1 else y.clamp(min=0)
        seen.append(y)
    total = scale * conv_norm(torch.cat(seen, 1), (1, 1))
    return (total + conv_norm(x, (1, 1), stride=stride)).clamp(min=0)


@pytest.mark.part("neck/rfb")
@pytest.mark.parametrize(("small", "stride"), [(False, 1), (False, 2), (True, 1)], ids=["RFB", "strided", "RFB-s"])
@pytest.mark.parametrize("size", [(152, 120), (168, 136)], ids=["odd", "odder"])
def test_it_is_its_figure_step_by_step(small, stride, size):
    block = ReceptiveFieldBlock(16, 10, small, stride, scale=0.3).double().eval()
    randomise(block)
    table = SMALL if small else LARGE
    (x,) = pyramid([16], [8], size)
    compare(lambda xs: [block(xs[0])], lambda xs: [walked(block, xs[0], table, stride, 0.3)], [x])


@pytest.mark.part("neck/rfb")
@pytest.mark.parametrize(
    ("small", "spans"),
    [(False, [(3, 3), (9, 9), (15, 15)]), (True, [(3, 3), (9, 7), (7, 9), (13, 13)])],
    ids=["RFB", "RFB-s"],
)
def test_its_branches_see_farther_and_farther(small, spans):
    block = ReceptiveFieldBlock(16, 16, small, norm=None, activation=nn.Identity)
    for branch, span in zip(block.branches, spans, strict=True):
        x = torch.zeros(1, 16, 31, 31, requires_grad=True)
        branch(x)[0, :, 15, 15].sum().backward()
        seen = x.grad.abs().sum((0, 1))
        rows, columns = seen.sum(1).nonzero(), seen.sum(0).nonzero()
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == span


@pytest.mark.part("neck/rfb")
def test_it_has_the_numbers_of_rfbnet_300s_first_levels():
    neck = RFB([512, 1024], [8, 16], [512, 1024, 512, 256], extra=2)

    def large(before, after):
        t = before // 8
        kernels = before * 4 * t + 36 * t * t + t * t * 18 + 9 * 1.5 * t * t + 9 * 3 * t * t + 2 * 36 * t * t
        norms = (2 + 2 + 1 + 2 + 2 + 1 + 1.5 + 2 + 2) * t
        return int(kernels + 6 * t * after + before * after + 2 * (norms + 2 * after))

    def small(before, after):
        t = before // 4
        kernels = before * 3.5 * t + 4 * 9 * t * t + 2 * 3 * t * t + 3 * 0.5 * 0.75 * t * t + 3 * 0.75 * t * t
        norms = (2 + 3 + 3 + 0.5 + 0.75 + 1 + 1) * t
        return int(kernels + 4 * t * after + before * after + 2 * (norms + 2 * after))

    expected = [small(512, 512), large(1024, 1024), large(1024, 512), large(512, 256)]
    assert [count(block) for block in neck.blocks] == expected
    assert neck.strides == [8, 16, 32, 64]
    assert neck.channels == [512, 1024, 512, 256]


@pytest.mark.part("neck/rfb")
def test_with_scale_0_it_is_its_shortcut():
    block = ReceptiveFieldBlock(8, 6, scale=0.0)
    x = torch.rand(2, 8, 9, 7)
    torch.testing.assert_close(block.eval()(x), block.shortcut(x).relu())


@pytest.mark.part("neck/rfb")
@pytest.mark.parametrize("options", [{"extra": 1, "small": 0}, {"small": 5, "norm": None, "activation": nn.SiLU}])
def test_it_keeps_the_contract(options):
    check_neck(lambda channels, strides: RFB(channels, strides, 8, **options))


@pytest.mark.part("neck/rfb")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": (1, 3)}, r"rfb has 3 rates, .* got rates \[1, 3\]"),
        ({"extra": -1}, "got -1 and 1"),
        ({"channels": [8, 8], "extra": 1}, r"rfb: 2 channels \[8, 8\] for 3 levels"),
    ],
)
def test_arguments_that_do_not_fit_are_told_in_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        RFB([16, 16], [8, 16], **options)
    with pytest.raises(ValueError, match="rfb-s no stride"):
        ReceptiveFieldBlock(8, 8, small=True, stride=2)

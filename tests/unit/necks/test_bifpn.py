"""BiFPN and the fully connected FPN against effdet, whose graphs and nodes we did not write."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from effdet.config import fpn_config, get_efficientdet_config
from effdet.efficientdet import BiFpn, FpnCombine
from omegaconf import OmegaConf
from torch import nn

from tests.unit.necks.pyramids import compare, count, pyramid, randomise
from torso.necks.bifpn import BiFPN, bidirectional
from torso.necks.full_fpn import FullFPN, fully_connected
from torso.necks.fusion import WeightedFusion
from torso.testing import check_module, check_neck

STRIDES, SIZE = [8, 16, 32], (128, 256)
METHODS = {"fast": "fastattn", "softmax": "attn", "sum": "sum"}


def peer(in_channels: list[int], size: tuple[int, int] = SIZE, **options: Any) -> nn.Module:
    """effdet's neck of levels 3 to 7."""
    config = get_efficientdet_config("efficientdet_d0")
    config.image_size, config.fpn_channels, config.fpn_cell_repeats = size, 8, 2
    for name, value in options.items():
        setattr(config, name, value)
    return BiFpn(config, [{"num_chs": c, "reduction": s} for c, s in zip(in_channels, STRIDES, strict=True)]).double()


def connected(method: str) -> Any:
    """Every output of every input, as a graph for effdet."""
    return OmegaConf.create(
        {"nodes": [{"feat_level": i + 3, "inputs_offsets": [*range(5)], "weight_method": method} for i in range(5)]}
    )


def transfer(theirs: nn.Module, pyramid: nn.Module) -> None:
    """effdet's tensors to ours, by place; every one of theirs and every one of ours exactly once."""
    names = {
        "combine.edge_weights": "fuse.weight",
        "after_combine.conv.conv_dw.weight": "depthwise.weight",
        "after_combine.conv.conv_pw.weight": "conv.0.weight",
        "after_combine.conv.conv.weight": "conv.0.weight",
    }
    state = {}
    for name, value in theirs.state_dict().items():
        if name.startswith("resample."):
            level, rest = name.removeprefix("resample.").split(".", 1)
            ours = f"coarser.{int(level) - len(STRIDES)}.{rest}"
        else:
            _, cell, _, node, rest = name.split(".", 4)
            if rest.startswith("combine.resample."):
                offset, rest = rest.removeprefix("combine.resample.").split(".", 1)
                place = list(theirs.cell[int(cell)].fnode[int(node)].combine.inputs_offsets).index(int(offset))
                rest = f"resample.{place}.{rest}"
            rest = names.get(rest, rest.replace("after_combine.conv.bn.", "conv.1."))
            ours = f"cells.{cell}.{node}.{rest}"
        state[ours.replace(".conv.conv.", ".conv.0.").replace(".conv.bn.", ".conv.1.")] = value
    pyramid.load_state_dict(state)


@pytest.mark.part("neck/bifpn", "skip/multi_input_weighted")
@pytest.mark.parametrize("separable", [True, False], ids=["separable", "full"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("fusion", METHODS)
def test_bifpn_is_effdets(fusion, training, separable):
    channels = [6, 8, 12]  # the middle one has the neck's channels: no convolution there
    graph = fpn_config.bifpn_config(3, 7, METHODS[fusion])
    theirs = peer(channels, fpn_config=graph, separable_conv=separable, norm_kwargs={})
    ours = BiFPN(channels, STRIDES, 8, repeats=2, fusion=fusion, separable=separable).double()
    randomise(theirs)
    transfer(theirs, ours.pyramid)
    assert count(ours) == count(theirs)
    compare(ours.train(training), theirs.train(training), pyramid(channels, STRIDES, SIZE))


@pytest.mark.part("neck/bifpn")
def test_the_gradients_of_its_weights_are_effdets():
    channels = [6, 8, 12]
    theirs = peer(channels, norm_kwargs={})
    ours = BiFPN(channels, STRIDES, 8, repeats=2).double()
    randomise(theirs)
    transfer(theirs, ours.pyramid)
    for neck in (ours, theirs):
        sum(x.sin().sum() for x in neck(pyramid(channels, STRIDES, SIZE))).backward()
    expected = copy.deepcopy(ours.pyramid)
    gradients = copy.deepcopy(theirs)
    for name, parameter in gradients.named_parameters():
        parameter.data = dict(theirs.named_parameters())[name].grad
    transfer(gradients, expected)
    for (name, parameter), (_, gradient) in zip(
        ours.pyramid.named_parameters(), expected.named_parameters(), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient.data, rtol=1e-8, atol=1e-8, msg=name)


@pytest.mark.part("neck/bifpn")
@pytest.mark.parametrize(("name", "channels", "repeats"), [("d0", 64, 3), ("d3", 160, 6)])
def test_its_parameters_are_efficientdets(name, channels, repeats):
    config = get_efficientdet_config(f"efficientdet_{name}")
    assert (config.fpn_channels, config.fpn_cell_repeats) == (channels, repeats)
    theirs = BiFpn(config, [{"num_chs": c, "reduction": s} for c, s in zip([40, 112, 320], STRIDES, strict=True)])
    assert count(BiFPN([40, 112, 320], STRIDES, channels, repeats=repeats)) == count(theirs)


@pytest.mark.part("neck/full_fpn")
@pytest.mark.parametrize("fusion", METHODS)
def test_the_fully_connected_fpn_is_effdets_nodes_on_a_full_graph(fusion):
    channels = [6, 8, 12]
    theirs = peer(channels, fpn_config=connected(METHODS[fusion]), pad_type="same", norm_kwargs={})
    ours = FullFPN(channels, STRIDES, 8, repeats=2, fusion=fusion).double()
    pools = 0
    for module in list(theirs.modules()):  # TensorFlow's padding is one-sided; ours has the window in the middle
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                kernel, stride = child.kernel_size[0], child.stride[0]
                setattr(module, name, nn.MaxPool2d(kernel, stride, kernel // 2))
                pools += 1
    assert pools == 2 + 2 * 10
    randomise(theirs)
    transfer(theirs, ours.pyramid)
    compare(ours, theirs, pyramid(channels, STRIDES, SIZE))


@pytest.mark.part("neck/full_fpn")
def test_every_output_of_a_fully_connected_cell_sees_every_input():
    neck = FullFPN([3, 3, 3], STRIDES, 4, extra=0, repeats=1).eval()
    levels = [x.float().requires_grad_() for x in pyramid([3, 3, 3], STRIDES)]
    for output in neck(levels):
        gradients = torch.autograd.grad(output.sum(), levels, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.part("neck/bifpn", "neck/full_fpn")
@pytest.mark.parametrize("part", [BiFPN, FullFPN])
@pytest.mark.parametrize("strides", [[16, 32], [8, 16, 32], [4, 8, 16, 32], [2, 4, 8, 16, 32], [8, 16, 16, 16]])
def test_any_number_of_levels_of_odd_sizes(part, strides):
    channels = [3 + i for i in range(len(strides))]
    neck = part(channels, strides, 4, extra=1, repeats=2).eval()
    outputs = neck([x.float() for x in pyramid(channels, strides, (72, 40))])
    assert [list(x.shape[1:]) for x in outputs] == [[4, -(-72 // s), -(-40 // s)] for s in neck.strides]
    assert neck.strides == [*strides, 2 * strides[-1]]
    assert neck.channels == [4] * len(neck.strides)


@pytest.mark.part("neck/bifpn")
def test_a_level_that_was_rounded_down_is_met():
    neck = BiFPN([3, 3], [8, 16], 4, extra=0, repeats=1).eval()
    outputs = neck([torch.rand(1, 3, 9, 7), torch.rand(1, 3, 4, 3)])
    assert [list(x.shape[2:]) for x in outputs] == [[9, 7], [4, 3]]


@pytest.mark.part("neck/bifpn", "neck/full_fpn")
@pytest.mark.parametrize("fusion", ["softmax", "sum"])
@pytest.mark.parametrize("part", [BiFPN, FullFPN])
def test_they_keep_the_contract(part, fusion):
    check_neck(lambda channels, strides: part(channels, strides, 8, extra=1, repeats=1, fusion=fusion))


@pytest.mark.part("neck/bifpn", "neck/full_fpn")
@pytest.mark.parametrize(
    ("part", "arguments", "message"),
    [
        (BiFPN, {"in_channels": [8, 8], "strides": [8]}, "bifpn gets 2 in_channels"),
        (BiFPN, {"in_channels": [8], "strides": [8], "extra": 0}, "at least 2 levels"),
        (FullFPN, {"in_channels": [8, 8], "strides": [8, 16], "repeats": 0}, "full_fpn needs .* repeats >= 1"),
        (FullFPN, {"in_channels": [8, 8], "strides": [8, 20]}, "stride 20 follows 8"),
        (BiFPN, {"in_channels": [8, 8], "strides": [8, 16], "fusion": "mean"}, "fast, softmax or sum, got 'mean'"),
    ],
)
def test_wrong_arguments_are_told_in_a_sentence(part, arguments, message):
    with pytest.raises(ValueError, match=message):
        part(**arguments)


@pytest.mark.part("neck/bifpn")
def test_the_graphs_are_the_papers():
    theirs = fpn_config.bifpn_config(3, 7)
    assert bidirectional(5) == [(node.feat_level - 3, list(node.inputs_offsets)) for node in theirs.nodes]
    assert fully_connected(3) == [(0, [0, 1, 2]), (1, [0, 1, 2]), (2, [0, 1, 2])]


@pytest.mark.part("skip/multi_input_weighted")
@pytest.mark.parametrize("method", METHODS)
def test_the_weighted_sum_is_effdets(method):
    info = [{"num_chs": 4, "size": (6, 6)}] * 3
    theirs = FpnCombine(info, 4, (0, 1, 2), (6, 6), weight_method=METHODS[method]).double()
    ours = WeightedFusion(3, method).double()
    if method != "sum":
        weight = torch.tensor([0.7, -0.4, 2.0], dtype=torch.float64)  # relu switches the second one off
        ours.weight.data = weight.clone()
        theirs.edge_weights.data = weight.clone()
    maps = [torch.randn(2, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    compare(ours, theirs, maps)


@pytest.mark.part("skip/multi_input_weighted")
def test_fast_weights_lie_in_0_to_1_and_sum_to_almost_1():
    fuse = WeightedFusion(3)
    with torch.no_grad():
        fuse.weight.copy_(torch.tensor([1.0, -5, 3]))
        first, second, third = fuse.weights()
    torch.testing.assert_close(torch.stack([first, second, third]), torch.tensor([1.0, 0, 3]) / 4.0001)
    with torch.no_grad():
        fuse.weight.fill_(-1)
        assert not fuse([torch.ones(2)] * 3).any()
    check_module(WeightedFusion(2), lambda: ([torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 3)],))

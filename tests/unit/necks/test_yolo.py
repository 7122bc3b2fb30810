"""YOLOv3's and YOLOv4's necks against Darknet's layer lists and the sizes of its published weight files."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.unit.necks.pyramids import compare, copy_in_order, count, pyramid, randomise
from torso.necks.yolov3 import UpsampleConcat, YOLOv3
from torso.necks.yolov4 import YOLOv4
from torso.testing import check_module, check_neck

CHANNELS, STRIDES = [8, 16, 32], [8, 16, 32]

# What follows the backbone, whose levels are called c3, c4, c5: (filters, size, stride) is a convolution, a list a
# concatenation, where a name is what was called so, and the first entry of a pair names what the second one gives.
V3: list[Any] = [
    "c5", (16, 1, 1), (32, 3, 1), (16, 1, 1), (32, 3, 1), ("n5", (16, 1, 1)),
    (8, 1, 1), "up", ["last", "c4"], (8, 1, 1), (16, 3, 1), (8, 1, 1), (16, 3, 1), ("n4", (8, 1, 1)),
    (4, 1, 1), "up", ["last", "c3"], (4, 1, 1), (8, 3, 1), (4, 1, 1), (8, 3, 1), ("n3", (4, 1, 1)),
]  # fmt: skip
V4: list[Any] = [
    "c5", (16, 1, 1), (32, 3, 1), ("s", (16, 1, 1)),
    ("pool5", 5), "s", ("pool9", 9), "s", ("pool13", 13), ["s", "pool5", "pool9", "pool13"],
    (16, 1, 1), (32, 3, 1), ("p5", (16, 1, 1)), "c4", ("l4", (8, 1, 1)), "p5", (8, 1, 1), ("up4", "up"),
    ["up4", "l4"], (8, 1, 1), (16, 3, 1), (8, 1, 1), (16, 3, 1), ("p4", (8, 1, 1)), "c3", ("l3", (4, 1, 1)),
    "p4", (4, 1, 1), ("up3", "up"), ["up3", "l3"], (4, 1, 1), (8, 3, 1), (4, 1, 1), (8, 3, 1), ("n3", (4, 1, 1)),
    (8, 3, 2), ["last", "p4"], (8, 1, 1), (16, 3, 1), (8, 1, 1), (16, 3, 1), ("n4", (8, 1, 1)),
    (16, 3, 2), ["last", "p5"], (16, 1, 1), (32, 3, 1), (16, 1, 1), (32, 3, 1), ("n5", (16, 1, 1)),
]  # fmt: skip


class Darknet(nn.Module):
    """Runs a list of layers as Darknet does, one after another."""

    def __init__(self, layers: list[Any]):
        super().__init__()
        self.layers, self.convolutions = layers, nn.ModuleList()
        widths: dict[str, int] = {"c3": 8, "c4": 16, "c5": 32}
        for name, layer in map(named, layers):
            if isinstance(layer, tuple):
                filters, size, stride = layer
                convolution = nn.Conv2d(widths["last"], filters, size, stride, size // 2, bias=False)
                self.convolutions.append(nn.Sequential(convolution, nn.BatchNorm2d(filters)))
                widths["last"] = filters
            elif isinstance(layer, list):
                widths["last"] = sum(widths[part] for part in layer)
            elif layer in widths:
                widths["last"] = widths[layer]
            widths[name] = widths["last"]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = dict(zip(("c3", "c4", "c5"), features, strict=True))
        convolutions = iter(self.convolutions)
        for name, layer in map(named, self.layers):
            if isinstance(layer, tuple):
                x = nn.functional.leaky_relu(next(convolutions)(maps["last"]), 0.1)
            elif isinstance(layer, list):
                x = torch.cat([maps[part] for part in layer], 1)
            elif isinstance(layer, int):
                x = nn.functional.max_pool2d(maps["last"], layer, 1, layer // 2)
            elif layer == "up":
                x = maps["last"].repeat_interleave(2, 2).repeat_interleave(2, 3)
            else:
                x = maps[layer]
            maps[name] = maps["last"] = x
        return [maps["n3"], maps["n4"], maps["n5"]]


def named(layer: Any) -> tuple[str, Any]:
    return layer if isinstance(layer, tuple) and isinstance(layer[0], str) else ("last", layer)


def in_the_order_of_calls(neck: nn.Module, inputs: list[Tensor]) -> nn.ModuleList:
    """Convolutions with their norms, as they are called: Darknet's order."""
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: called.append(module))
        for module in neck.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    neck(inputs)
    for hook in hooks:
        hook.remove()
    return nn.ModuleList(called)


@pytest.mark.part("neck/yolov3", "neck/yolov4")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("part", "layers"), [(YOLOv3, V3), (YOLOv4, V4)])
def test_they_are_darknets_lists_of_layers(part, layers, training):
    inputs = pyramid(CHANNELS, STRIDES, (128, 192))
    ours, theirs = part(CHANNELS, STRIDES).double(), Darknet(layers).double()
    randomise(theirs)
    copy_in_order(theirs.convolutions, in_the_order_of_calls(ours, inputs))
    compare(ours.train(training), theirs.train(training), inputs)


@pytest.mark.part("neck/yolov3", "neck/yolov4")
@pytest.mark.parametrize(
    ("part", "backbone", "file_bytes", "statistics"),
    [(YOLOv3, "darknet53", 248_007_048, 52_608), (YOLOv4, "cspdarknet53", 257_717_640, 66_304)],
)
def test_with_backbone_and_predictions_they_fill_darknets_weight_files(part, backbone, file_bytes, statistics):
    """yolov3.weights and yolov4.weights: 20 bytes of header, then float32s, among them running means and variances."""
    with torch.device("meta"):
        body, neck = timm.create_model(backbone, num_classes=0), part([256, 512, 1024], STRIDES)
    head = sum(n * 2 * n * 9 + 2 * 2 * n + (2 * n + 1) * 255 for n in neck.channels)
    running = [value for key, value in body.state_dict().items() if ".running" in key]
    running += [value for key, value in neck.state_dict().items() if ".running" in key]
    assert sum(value.numel() for value in running) + sum(2 * 2 * n for n in neck.channels) == statistics
    assert 20 + 4 * (count(body) + count(neck) + head + statistics) == file_bytes


@pytest.mark.part("neck/yolov3", "neck/yolov4")
@pytest.mark.parametrize("part", [YOLOv3, YOLOv4])
@pytest.mark.parametrize("strides", [[32], [16, 32], [4, 8, 16, 32], [2, 4, 8, 16, 32], [8, 16, 16, 16]])
def test_any_number_of_levels_of_odd_sizes(part, strides):
    channels = [4 + 2 * i for i in range(len(strides))]
    neck = part(channels, strides, channels=6).eval()
    outputs = neck([x.float() for x in pyramid(channels, strides, (72, 40))])
    assert [list(x.shape[1:]) for x in outputs] == [[6, -(-72 // s), -(-40 // s)] for s in strides]
    assert (neck.channels, neck.strides) == ([6] * len(strides), strides)


@pytest.mark.part("neck/yolov3", "neck/yolov4")
@pytest.mark.parametrize("part", [YOLOv3, YOLOv4])
def test_they_keep_the_contract(part):
    check_neck(lambda channels, strides: part(channels, strides, channels=[4, 6, 8]))
    with pytest.raises(ValueError, match=r"2 channels \[4, 6\] for 3 levels"):
        part(CHANNELS, STRIDES, channels=[4, 6])
    with pytest.raises(ValueError, match="stride 8 follows 32"):
        part([4, 4], [32, 8])


@pytest.mark.part("neck/yolov4")
def test_a_level_that_was_rounded_down_is_met():
    outputs = YOLOv4([4, 4], [8, 16]).eval()([torch.rand(1, 4, 9, 7), torch.rand(1, 4, 4, 3)])
    assert [list(x.shape[2:]) for x in outputs] == [[9, 7], [4, 3]]


@pytest.mark.part("block/upsample_concat")
def test_the_coarser_map_is_copied_up_and_put_before_the_finer_one():
    join = UpsampleConcat(2, 1, norm=None, activation=nn.Identity).double()
    coarse, fine = pyramid([2, 3], [8, 4], (16, 24))
    weight, bias = join.conv[0].weight, join.conv[0].bias
    expected = torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], coarse) + bias[:, None, None]
    output = join(coarse, fine)
    for y in range(4):
        for x in range(6):
            torch.testing.assert_close(output[:, :1, y, x], expected[:, :, y // 2, x // 2])
    assert torch.equal(output[:, 1:], fine)
    join = UpsampleConcat(2, 4, nn.BatchNorm2d, nn.ReLU)
    check_module(join, lambda: (torch.rand(2, 2, 3, 2), torch.rand(2, 3, 5, 4)))
    assert join(torch.rand(2, 2, 3, 2), torch.rand(2, 3, 5, 4)).shape == (2, 7, 5, 4)

"""Whole networks on ``meta``: Darknet's weight files to the last number, published counts, and grids."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from torso.backbones import CSPDarknet
from torso.backbones.extraction import Extraction
from torso.necks.yolov2 import YOLOv2
from torso.necks.yolov3 import YOLOv3
from torso.recipes.recipe import Recipe


def whole(name: str, *overrides: str, num_classes: int = 80) -> Any:
    with torch.device("meta"):
        return Recipe.load(name, list(overrides), without_data=True).model.build(num_classes=num_classes).eval()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def statistics(module: nn.Module) -> int:
    return sum(value.numel() for key, value in module.state_dict().items() if ".running_" in key)


RESNET = "model.backbone={name: resnet, depth: 50, levels: [5]}"
LARGE = ("model.backbone.depth=1", "model.backbone.width=1", "model.neck.depth=3")
LOCAL = ("model.head.first=local", "model.head.hidden=256", "model.prior.slots=[1, 1, 1]")


@pytest.mark.part("recipe/yolov1", "recipe/yolov2", "recipe/yolov3", "recipe/yolov4")
@pytest.mark.parametrize(
    ("name", "overrides", "classes", "file_bytes", "header"),
    [
        ("yolov1", LOCAL, 20, 789_312_988, 16),  # yolov1.cfg: locally connected, three boxes a cell
        ("yolov2", (), 80, 203_934_260, 16),
        ("yolov3", (), 80, 248_007_048, 20),
        ("yolov4", (), 80, 257_717_640, 20),
    ],
)
def test_the_network_fills_darknets_weight_file(
    name: str, overrides: tuple[str, ...], classes: int, file_bytes: int, header: int
) -> None:
    """A header, then float32s: weights, biases, and the running means and variances of norms."""
    model = whole(name, *overrides, num_classes=classes)
    assert header + 4 * (parameters(model) + statistics(model)) == file_bytes


@pytest.mark.part("recipe/yolov3", "recipe/yolov2", "recipe/yolov4", "recipe/yolox", "recipe/yolov5", "recipe/pp_yolo")
@pytest.mark.parametrize(
    ("name", "overrides", "millions"),
    [
        ("yolov2", (), 50.96),
        ("yolov3", (), 61.95),
        ("yolov4", (), 64.36),
        ("yolov5", (), 7.235389),  # 7,235,389: as published for S
        ("yolov5", LARGE, 46.563709),  # 46,563,709: L
        ("yolox", (), 8.97),
        ("yolox", (*LARGE, "model.head.channels=256"), 54.21),
        ("yolox", ("model.backbone.width=0.375", "model.head.channels=96"), 5.06),  # tiny
    ],
)  # fmt: skip
def test_parameters_are_as_many_as_published(name: str, overrides: tuple[str, ...], millions: float) -> None:
    exact = 6 if millions != round(millions, 2) else 2
    assert round(parameters(whole(name, *overrides)) / 1e6, exact) == millions


@pytest.mark.part("recipe/yolov3")
def test_yolov3_at_416_says_three_boxes_in_each_of_13_26_and_52_squared_cells() -> None:
    model = whole("yolov3")
    assert round(parameters(model.backbone) / 1e6, 3) == 40.585
    output = model(torch.zeros(1, 3, 416, 416, device="meta"))
    assert output.counts == tuple(3 * side**2 for side in (52, 26, 13))
    shapes = [x.shape[-1] for x in (output.deltas, output.extra["objectness"][..., None], output.logits)]
    assert shapes == [4, 1, 80]
    levels = [list(layer.weight.shape) for layer in model.head.predictions.class_logits]
    assert levels == [[240, 256, 1, 1], [240, 512, 1, 1], [240, 1024, 1, 1]]


@pytest.mark.part("recipe/yolov1", "recipe/yolov2", "recipe/yolov4", "recipe/yolov5", "recipe/yolox", "recipe/pp_yolo")
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("yolov1", (7 * 7 * 2,)),
        ("yolov2", (13 * 13 * 5,)),
        ("yolov4", tuple(3 * side**2 for side in (64, 32, 16))),
        ("yolov5", tuple(3 * side**2 for side in (80, 40, 20))),
        ("yolox", tuple(side**2 for side in (80, 40, 20))),
        ("pp_yolo", tuple(3 * side**2 for side in (76, 38, 19))),
    ],
)
def test_the_priors_of_the_paper(name: str, counts: tuple[int, ...]) -> None:
    size = Recipe.load(name, without_data=True).tree["data"]["size"]
    output = whole(name)(torch.zeros(1, 3, size, size, device="meta"))
    assert output.counts == counts
    assert output.logits.shape == (1, sum(counts), 80)


@pytest.mark.part("recipe/yolov1")
@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        ([RESNET, "model.head.grid=[14, 14]", "model.coder.unit=14"], 392),
        (["model.backbone={name: grid, stride: 64}", "model.head.grid=null", "model.head.hidden=128"], 98),
    ],
)  # fmt: skip
def test_the_variants_in_the_header_build(overrides: list[str], count: int) -> None:
    header = Recipe.load("yolov1", without_data=True).header
    assert all(word.split("=")[0] in header for word in overrides)
    output = whole("yolov1", *overrides, num_classes=1)(torch.zeros(1, 3, 448, 448, device="meta"))
    assert output.logits.shape == (1, count, 1)


@pytest.mark.part("recipe/pp_yolo")
def test_pp_yolo_is_the_sum_of_its_parts() -> None:
    model = whole("pp_yolo")
    assert parameters(model.backbone) == parameters(timm.create_model("resnet50d", num_classes=0))
    assert model.score_powers == (1.0, 0.6, 0.4)
    assert model.coder.scale == 1.05
    assert model.criterion.branches == ["iou", "objectness"]
    assert type(model.suppress).__name__ == "MatrixNMS"
    assert model.head.towers[0][1][0].in_channels == model.neck.channels[0] + 2


@pytest.mark.part("backbone/extraction")
def test_extraction_is_figure_3_of_the_paper() -> None:
    with torch.device("meta"):
        net = Extraction(levels=(1, 2, 3, 4, 5, 6))
    shapes = [list(x.shape[1:]) for x in net(torch.zeros(1, 3, 448, 448, device="meta"))]
    assert shapes == [[64, 224, 224], [192, 112, 112], [512, 56, 56], [1024, 28, 28], [1024, 14, 14], [1024, 7, 7]]
    assert sum(isinstance(layer, nn.Conv2d) for layer in net.modules()) == 24


@pytest.mark.part("backbone/csp_darknet")
def test_focus_and_the_strided_convolution_say_the_same() -> None:
    """The 6x6 kernel at stride 2 is the 3x3 kernel on squares of 2x2 pixels, its taps in another order."""
    torch.manual_seed(0)
    focus, strided = (
        CSPDarknet(0.33, 0.125, stem=stem, levels=(1,)).double().eval() for stem in ("focus", "convolution")
    )
    kernel = focus.stages[0].layers[1].weight  # [8, (channel, y, x), 3, 3]
    spread = kernel.reshape(-1, 3, 2, 2, 3, 3).permute(0, 1, 4, 2, 5, 3).reshape(-1, 3, 6, 6)
    strided.stages[0].layers[1].weight.data = spread.contiguous()
    x = torch.randn(2, 3, 35, 48, dtype=torch.float64)
    torch.testing.assert_close(focus(x)[0], strided(x)[0])


@pytest.mark.part("backbone/csp_darknet")
def test_shortcuts_and_pooling_stand_where_the_two_families_have_them() -> None:
    for pooling, place, shortcuts in (("before", 1, False), ("after", 2, True)):
        net = CSPDarknet(1.0, 0.125, pooling=pooling)
        names = [type(layer).__name__ for layer in net.stages[-1]]
        assert names.index("Pooling") == place
        last = [m.shortcut for m in net.stages[-1].modules() if type(m).__name__ == "Bottleneck"]
        assert last == [shortcuts] * 3
        earlier = [m.shortcut for m in net.stages[:-1].modules() if type(m).__name__ == "Bottleneck"]
        assert earlier == [True] * (3 + 9 + 9)
    with pytest.raises(ValueError, match="above 0"):
        CSPDarknet(0.0)


@pytest.mark.part("neck/yolov2")
def test_passed_cells_lie_in_the_coarse_cell_they_belong_to() -> None:
    torch.manual_seed(0)
    neck = YOLOv2([3, 4], [16, 32], channels=8, passed=2, norm=None).double()
    fine, coarse = torch.randn(1, 3, 7, 6, dtype=torch.float64), torch.randn(1, 4, 4, 3, dtype=torch.float64)
    passed = nn.functional.pad(neck.reduce[0](fine), (0, 0, 0, 1))  # the coarse level was rounded up
    squares = torch.zeros(1, 8, 4, 3, dtype=torch.float64)
    for y in range(4):
        for x in range(3):
            squares[0, :, y, x] = passed[0, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(8)
    (found,) = neck([fine, coarse])
    torch.testing.assert_close(found, neck.join(torch.cat([squares, neck.top(coarse)], dim=1)))
    assert (neck.channels, neck.strides) == ([8], [32])


@pytest.mark.part("neck/yolov3")
def test_spp_in_yolov3s_neck_adds_the_windows_and_one_convolution() -> None:
    with torch.device("meta"):
        plain, pooled = (YOLOv3([16, 32], [16, 32], norm=None, kernels=kernels) for kernels in ((), (5, 9, 13)))
    top = 16
    assert parameters(pooled) - parameters(plain) == 4 * top * top + top
    assert pooled([torch.zeros(1, 16, 8, 8, device="meta"), torch.zeros(1, 32, 4, 4, device="meta")])[1].shape[1] == top

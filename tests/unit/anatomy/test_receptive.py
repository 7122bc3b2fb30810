"""Receptive fields and strides: what the recurrences say is what the gradient of the picture shows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.anatomy.receptive import Receptive
from torso.anatomy.summary import Row, shown, summary
from torso.backbones import BACKBONES
from torso.necks import NECKS


class Levels(nn.Module):
    """A backbone as a model."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.backbone(images)


def positive(module: nn.Module) -> nn.Module:
    """Weights that cancel nothing, and windows that pass gradients to all they hold: averages instead of maxima."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
        else:
            positive(child)
    for parameter in module.parameters():
        parameter.data = parameter.data.abs() + 0.05
    return module.double().eval()


def support(model: nn.Module, level: int, side: int) -> tuple[int, int]:
    """Height and width of the part of the picture that one position in the middle of a level depends on."""
    images = torch.ones(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    features = model(images)[level]
    features[0, :, features.shape[2] // 2, features.shape[3] // 2].sum().backward()
    ys, xs = images.grad[0].abs().sum(0).nonzero(as_tuple=True)
    return int(ys.max() - ys.min() + 1), int(xs.max() - xs.min() + 1)


def fields(model: nn.Module, side: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    model = model.to("meta").float()
    images = torch.zeros(1, 3, side, side, device="meta")
    with torch.no_grad(), Receptive() as receptive:
        receptive.begin(images)
        outputs = model(images)
    return [tuple(receptive.of(tensor)) for tensor in outputs]


CASES = {
    "tiny": ({}, 160),
    "resnet": ({"depth": 18, "levels": (2, 3)}, 400),
    "vgg": ({"depth": 11, "levels": (2, 3, 4)}, 256),
    "darknet19": ({"levels": (3, 4)}, 256),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_field_is_the_support_of_the_gradient(name: str) -> None:
    options, side = CASES[name]
    model = positive(BACKBONES[name](**options))
    strides = model.strides
    seen = [support(model, level, side) for level in range(len(strides))]
    for level, (size, step) in enumerate(fields(model, side)):
        assert size[0] < side, "the picture must be larger, or its edge cuts the field"
        assert size == seen[level]
        assert step == (strides[level], strides[level])


@pytest.mark.parametrize(
    ("layer", "size", "step"),
    [
        (nn.Conv2d(3, 4, (3, 5), stride=(1, 2)), (3, 5), (1, 2)),
        (nn.Conv2d(3, 4, 3, dilation=3), (7, 7), (1, 1)),
        (nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ConvTranspose2d(4, 4, 2, stride=2)), (3, 3), (1, 1)),
        (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 3)), (6, 6), (2, 2)),
        (nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=2)), (4, 4), (2, 2)),
        (nn.PixelUnshuffle(2), (2, 2), (2, 2)),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3), nn.PixelShuffle(2)), (6, 6), (1, 1)),
        (nn.AdaptiveAvgPool2d(1), (math.inf, math.inf), (1, 1)),
    ],
)
def test_single_layers(layer: nn.Module, size: tuple[float, float], step: tuple[float, float]) -> None:
    images = torch.zeros(1, 3, 24, 24, device="meta")
    with torch.no_grad(), Receptive() as receptive:
        receptive.begin(images)
        output = layer.to("meta")(images)
    found = receptive.of(output)
    assert found is not None
    assert (found.size, found.step) == (size, step)


def test_paths_that_meet_see_what_the_widest_sees() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.near, self.far = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 9, padding=4)

        def forward(self, x: Tensor) -> list[Tensor]:
            return [self.near(x) + self.far(x), torch.cat([self.near(x), x], 1)]

    assert [size for size, _ in fields(Two(), 32)] == [(9, 9), (3, 3)]


def test_every_second_pixel_beside_its_neighbours_sees_both() -> None:
    class Focus(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)]

    assert fields(Focus(), 32) == [((2, 2), (2, 2))]


def test_attention_sees_everything() -> None:
    class Attends(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            tokens = functional.avg_pool2d(x, 4).flatten(2).transpose(1, 2)
            return [functional.scaled_dot_product_attention(tokens, tokens, tokens)]

    (size, step), *_ = fields(Attends(), 32)
    assert size == (math.inf, math.inf)
    assert step == (4, 4)


def rows_of(model: nn.Module, depth: int = 2) -> dict[str, Row]:
    return {row.path: row for row in summary(model, (96, 64), depth)}


def test_a_summary_counts_what_formulas_count() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    rows = rows_of(model)
    assert [rows[name].outputs for name in ("0", "2")] == [((1, 8, 32, 48),), ((1, 4, 32, 48),)]
    # Two operations a multiply-add, as torch.utils.flop_counter counts; a bias is not counted.
    assert rows["0"].flops == 2 * 3 * 9 * 8 * 32 * 48
    assert rows["2"].flops == 2 * 8 * 4 * 32 * 48
    assert rows[""].flops == rows["0"].flops + rows["2"].flops
    assert rows[""].parameters == 3 * 9 * 8 + 8 + 8 * 4 + 4
    assert (rows["2"].stride, rows["2"].receptive_field) == (2, 3)


def test_looking_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    summary(model, (32, 32))
    assert model.training
    assert not model[0]._forward_hooks
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_layer_that_runs_for_each_level_is_one_row() -> None:
    backbone = BACKBONES["tiny"]()
    model = nn.Sequential(backbone, NECKS["fpn"](backbone.channels, backbone.strides, channels=8, extra=0))
    rows = rows_of(model)
    assert len(rows["1"].outputs) == 3
    assert rows["1"].flops == sum(rows[f"1.{name}"].flops for name in ("lateral", "smooth")) or rows["1"].flops > 0
    assert sum(p.numel() for p in model.parameters()) == rows[""].parameters


def test_numbers_are_short() -> None:
    assert [shown(x) for x in (0, 999, 1000, 33_839_924, 1.9e11, math.inf)] == [
        "0",
        "999",
        "1 k",
        "33.8 M",
        "190 G",
        "all",
    ]

"""Darknet-19 against table 6 of YOLO9000 and what Darknet's own page says of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.unit.backbones.cost import multiply_adds, on_meta, parameters
from torso.backbones.darknet import Darknet19
from torso.config import check
from torso.config.nodes import node
from torso.config.roles import Role

# Filters and kernel of each convolution of the table, "M" a max pooling.
ROWS = """
32/3 M
64/3 M
128/3 64/1 128/3 M
256/3 128/1 256/3 M
512/3 256/1 512/3 256/1 512/3 M
1024/3 512/1 1024/3 512/1 1024/3
"""
CLASSIFIER = 1024 * 1000 + 1000


class Plain(nn.Module):
    """The table, layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for entry in ROWS.split():
            if entry == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            filters, kernel = map(int, entry.split("/"))
            conv = nn.Conv2d(before, filters, kernel, padding=kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(filters), nn.LeakyReLU(0.1)]
            before = filters
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        before_pooling = []
        for layer in self.layers:
            if isinstance(layer, nn.MaxPool2d):
                before_pooling.append(x)
            x = layer(x)
        return [*before_pooling, x]


@pytest.mark.part("backbone/darknet19")
def test_it_is_the_table_of_the_paper() -> None:
    """Outputs at every stride, and gradients, of the layers in a row with the same weights."""
    torch.manual_seed(0)
    plain, ours = Plain().double(), Darknet19(levels=(1, 2, 3, 4, 5)).double()
    state = dict(zip(ours.state_dict(), plain.state_dict().values(), strict=True))
    ours.load_state_dict(state)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    theirs, mine = plain(x)[1:], ours(x)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    sum(a.square().mean() for a in mine).backward()
    sum(b.square().mean() for b in theirs).backward()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.part("backbone/darknet19")
def test_it_costs_what_the_paper_says() -> None:
    """5.58 billion operations at 224 px with the classifier, and 20.8 million parameters."""
    body = on_meta(lambda: Darknet19((5,)))
    convolutions = [layer for layer in body.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) + 1 == 19
    assert parameters(body) + CLASSIFIER == 20_842_376
    operations = 2 * (multiply_adds(lambda: Darknet19((5,)), 224) + 7 * 7 * 1024 * 1000)
    assert round(operations / 1e9, 2) == 5.58


def test_a_recipe_records_the_slope_of_the_activation() -> None:
    spec = check(node({"model": {"name": "darknet19"}}, "recipe"), {"model": Role("backbone")})["model"]
    activation = spec.args["activation"]
    assert (activation.name, activation.args["negative_slope"]) == ("leaky_relu", 0.1)
    backbone = spec.build()
    slopes = {layer.negative_slope for layer in backbone.modules() if isinstance(layer, nn.LeakyReLU)}
    assert slopes == {0.1}

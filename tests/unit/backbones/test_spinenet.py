"""SpineNet against the figures of its paper, what its authors publish, and a slow walk over the same graph."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.backbones.cost import multiply_adds, on_meta, parameters, shapes
from torso.backbones.spinenet import BLOCKS, FAMILY, SpineNet, needed, wiring

# The authors' model zoo: input side of the RetinaNet, its G multiply-adds and M parameters; the classifier's at 224 px.
PUBLISHED = {
    "49": ((640, 85.4, 28.5), (3.5, 22.1)),
    "96": ((1024, 265.4, 43.0), (5.7, 36.5)),
    "143": ((1280, 524.0, 67.0), (9.1, 60.5)),
}


def head(channels: int, classes: int) -> int:
    """Weights of a RetinaNet head for 9 anchors: two towers of four 3x3, and the two predictions."""
    return 9 * channels * (2 * 4 * channels + 9 * classes + 9 * 4)


@pytest.mark.part("backbone/spinenet")
@pytest.mark.parametrize("depth", sorted(PUBLISHED))
def test_it_costs_what_its_authors_publish(depth: str) -> None:
    """Alone under a classifier, and under a RetinaNet head with a norm a level, as theirs has, and 91 classes."""
    (side, giga, millions), (small_giga, small_millions) = PUBLISHED[depth]
    own = parameters(on_meta(lambda: SpineNet(depth)))
    channels = FAMILY[depth].channels
    assert (own + channels * 1000) / 1e6 == pytest.approx(small_millions, abs=0.05)
    assert multiply_adds(lambda: SpineNet(depth), 224) / 1e9 == pytest.approx(small_giga, abs=0.05)
    norms_and_biases = 2 * 4 * 5 * 2 * channels + 2 * 4 * channels + 9 * 91 + 36
    assert (own + head(channels, 91) + norms_and_biases) / 1e6 == pytest.approx(millions, abs=0.06)
    cells = sum((side // 2**level) ** 2 for level in range(3, 8))
    adds = multiply_adds(lambda: SpineNet(depth), side) + cells * head(channels, 91)
    assert adds / 1e9 == pytest.approx(giga, rel=0.002)


@pytest.mark.part("backbone/spinenet")
def test_the_smallest_has_065_of_the_channels() -> None:
    """Published are 11.9 M and 33.8 G with a head of 128 channels; what the authors describe comes to 11.3 and 30.8."""
    backbone = on_meta(lambda: SpineNet("49S"))
    assert backbone.channels == [128] * 5
    norms_and_biases = 2 * 4 * 5 * 2 * 128 + 2 * 4 * 128 + 9 * 91 + 36
    assert parameters(backbone) == 9_089_215
    assert (parameters(backbone) + head(128, 91) + norms_and_biases) / 1e6 == pytest.approx(11.27, abs=0.01)
    cells = sum((640 // 2**level) ** 2 for level in range(3, 8))
    adds = multiply_adds(lambda: SpineNet("49S"), 640) + cells * head(128, 91)
    assert adds / 1e9 == pytest.approx(30.8, abs=0.05)


@pytest.mark.part("backbone/spinenet")
def test_the_graph_is_that_of_the_paper() -> None:
    """16 permuted blocks after the stem, 49 layers in all; one output a level; a block hears only earlier ones."""
    permuted = BLOCKS[2:]
    assert len(permuted) == 16
    # The 7x7, three layers a bottleneck, two a basic block (without the last, of level 2), and the 1x1 of an output.
    assert 1 + sum(3 if spec.is_bottleneck else 2 for spec in BLOCKS[:-1]) + 1 == 49
    assert sorted(spec.level for spec in permuted if spec.is_output) == [2, 3, 4, 5, 6, 7]
    for place, parents in enumerate(wiring()):
        assert all(parent < place for parent in parents)
        assert place < 2 or tuple(parents[:2]) == BLOCKS[place].parents
    # Block 11 (level 5) is heard by nobody, so the output of its level takes it in as it is.
    assert [place for place, parents in enumerate(wiring()) if len(parents) > 2] == [14]
    assert wiring()[14] == [7, 12, 11]


def slow(backbone: SpineNet, images: Tensor) -> list[Tensor]:
    """The permuted network by recursion from the outputs, resampling written out."""

    def resampled(source: int, target: int) -> Tensor:
        layer = backbone.resampling[f"{source}-{target}"]
        x = layer.reduce[0](value(source))
        ratio = 2 ** abs(BLOCKS[target].level - BLOCKS[source].level)
        if BLOCKS[target].level > BLOCKS[source].level:
            x = layer.reduce[1](x)
            while ratio > 2:
                x, ratio = functional.max_pool2d(x, 3, 2, 1), ratio // 2
        else:
            x = x.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3)
        return layer.expand(x)

    @cache
    def value(place: int) -> Tensor:
        if place < 2:
            return backbone.blocks[str(place)](value(0) if place else backbone.stem(images))
        first, second = BLOCKS[place].parents
        total = resampled(first, place) + resampled(second, place)
        if place == 14:
            total = total + value(11)
        return backbone.blocks[str(place)](total.relu())

    last = {BLOCKS[place].level: place for place in range(len(BLOCKS))}
    return [backbone.ends[str(last[level])](value(last[level])) for level in backbone.levels]


@pytest.mark.part("backbone/spinenet")
def test_it_computes_what_a_walk_from_the_outputs_computes() -> None:
    torch.manual_seed(0)
    backbone = SpineNet("49S", levels=(2, 3, 4, 5, 6, 7)).eval()
    images = torch.randn(1, 3, 128, 256)
    with torch.no_grad():
        for a, b in zip(backbone(images), slow(backbone, images), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.part("backbone/spinenet")
def test_levels_at_640_px() -> None:
    backbone = on_meta(SpineNet)
    assert shapes(backbone, 640, 640) == [[2, 256, side, side] for side in (80, 40, 20, 10, 5)]


def test_blocks_that_no_level_needs_are_not_built() -> None:
    every = wiring()
    assert needed([17], every) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 17]  # level 2 hears blocks 2 and 13
    whole, part = on_meta(SpineNet), on_meta(lambda: SpineNet(levels=(3,)))
    assert "17" not in whole.blocks
    assert set(part.blocks) < set(whole.blocks)
    assert parameters(part) < parameters(whole)


def test_repeats_and_shares_are_the_familys() -> None:
    once, twice, thrice = (on_meta(partial(SpineNet, depth)) for depth in ("49", "96", "143"))
    assert [len(net.blocks["5"]) for net in (once, twice, thrice)] == [1, 2, 3]
    inner = [net.resampling["3-4"].expand[0].in_channels for net in (once, twice, thrice)]
    assert inner == [128, 128, 256]  # alpha 0.5, 0.5 and 1 of block 3's 256


def test_weights_have_the_variance_of_their_fan_in() -> None:
    torch.manual_seed(0)
    for layer in SpineNet("49S").modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 50_000:
            weight = layer.weight.detach()
            fan = weight[0].numel()
            assert float(weight.std()) * fan**0.5 == pytest.approx(1, abs=0.02)
            assert float(weight.abs().max()) <= 2.28 * fan**-0.5

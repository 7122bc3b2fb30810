"""ShuffleNet V1 against tables 1, 2 and 5 of its paper and the parameters that its authors publish."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.unit.backbones.cost import multiply_adds, on_meta, parameters
from torso.backbones.shufflenet import ShuffleNetV1, ShuffleUnit, stage_channels

# Table 1: channels of the three stages and multiply-adds in millions, by groups.
TABLE = {
    1: ((144, 288, 576), 143),
    2: ((200, 400, 800), 140),
    3: ((240, 480, 960), 137),
    4: ((272, 544, 1088), 133),
    8: ((384, 768, 1536), 137),
}
# Of the authors' code: groups and scale to millions of multiply-adds and of parameters, classifier included.
PUBLISHED = {
    (3, 2.0): (524, 5.4),
    (8, 2.0): (522, 6.5),
    (3, 1.5): (292, 3.4),
    (8, 1.5): (290, 4.3),
    (3, 1.0): (138, 1.9),
    (8, 1.0): (138, 2.4),
    (3, 0.5): (38, 0.7),
    (8, 0.5): (40, 1.0),
}


def cost(groups: int, scale: float) -> tuple[float, float]:
    """Millions of multiply-adds at 224 px and of parameters, with a classifier of 1000 classes without bias."""
    body = on_meta(lambda: ShuffleNetV1(groups, scale, levels=(5,)))
    classifier = body.channels[-1] * 1000
    adds = multiply_adds(lambda: ShuffleNetV1(groups, scale, levels=(5,)), 224) + classifier
    return adds / 1e6, (parameters(body) + classifier) / 1e6


@pytest.mark.part("backbone/shufflenet_v1")
@pytest.mark.parametrize("groups", sorted(TABLE))
def test_channels_and_cost_are_those_of_table_1(groups: int) -> None:
    channels, millions = TABLE[groups]
    backbone = on_meta(lambda: ShuffleNetV1(groups))
    assert tuple(backbone.channels) == channels
    assert backbone.strides == [8, 16, 32]
    assert [len(stage) for stage in backbone.stages] == [4, 8, 4]
    assert cost(groups, 1.0)[0] == pytest.approx(millions, rel=0.011)  # 3 of the 5 are published rounded down


@pytest.mark.part("backbone/shufflenet_v1")
@pytest.mark.parametrize(("groups", "scale"), sorted(PUBLISHED))
def test_the_family_costs_what_its_authors_publish(groups: int, scale: float) -> None:
    adds, millions = PUBLISHED[groups, scale]
    found = cost(groups, scale)
    assert found[0] == pytest.approx(adds, abs=0.6)
    assert found[1] == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 1.5, 2.0, 0.3, 1.1])
@pytest.mark.parametrize("groups", sorted(TABLE))
def test_any_scale_gives_widths_that_the_groups_divide(groups: int, scale: float) -> None:
    """And never fewer channels than asked for, nor a whole step more."""
    stem, *stages = stage_channels(groups, scale)
    assert stem % groups == 0
    for number, channels in enumerate(stages):
        assert (channels // 4) % groups == channels % 4 == (channels - stem) % groups == 0
        asked = TABLE[groups][0][number] * scale
        assert asked - 1e-6 <= channels < asked + 4 * groups * 2**number - 1e-6


def test_a_scale_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="scale more than 0, got 3 and 0"):
        ShuffleNetV1(scale=0)
    with pytest.raises(ValueError, match=r"one of \[1, 2, 3, 4, 8\]"):
        ShuffleNetV1(groups=5)


def test_only_the_very_first_1x1_is_not_grouped() -> None:
    """Section 3.3 of the paper: it has few input channels."""
    backbone = on_meta(lambda: ShuffleNetV1(3))
    pointwise = [
        layer for layer in backbone.stages.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
    ]
    assert [layer.groups for layer in pointwise] == [1] + [3] * (2 * 16 - 1)


@pytest.mark.part("backbone/shufflenet_v1", "block/channel_shuffle")
@pytest.mark.parametrize("groups", [2, 3, 4, 8])
def test_the_shuffle_lets_every_group_hear_every_other(groups: int) -> None:
    """Without it an output of a unit depends on the inputs of its own group; with it, on all (figure 1)."""
    torch.manual_seed(0)
    width = 4 * groups * groups
    unit = ShuffleUnit(width, width, groups, groups, 1, nn.BatchNorm2d, nn.Identity).eval()
    x = torch.randn(1, width, 3, 3, requires_grad=True)
    heard = torch.autograd.grad(unit.path(x)[0, 0].sum(), x)[0].abs().sum((0, 2, 3)).view(groups, -1)
    assert (heard.sum(1) > 0).all()
    unit.path[1] = nn.Identity()
    heard = torch.autograd.grad(unit.path(x)[0, 0].sum(), x)[0].abs().sum((0, 2, 3)).view(groups, -1)
    assert (heard.sum(1) > 0).tolist() == [True] + [False] * (groups - 1)


def test_halving_keeps_the_pooled_input_beside_the_new_channels() -> None:
    unit = ShuffleUnit(12, 48, 3, 3, 2, nn.BatchNorm2d, nn.ReLU).eval()
    x = torch.rand(2, 12, 7, 9)
    out = unit(x)
    assert list(out.shape) == [2, 48, 4, 5]
    torch.testing.assert_close(out[:, :12], nn.functional.avg_pool2d(x, 3, 2, 1))

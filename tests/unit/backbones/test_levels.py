"""What every backbone written here owes: any levels, any size, one sentence for a level it lacks."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from tests.unit.backbones.cost import empty, on_meta, promised, shapes
from torso.backbones.csp_darknet import CSPDarknet
from torso.backbones.darknet import Darknet19
from torso.backbones.detnas import DetNAS
from torso.backbones.detnet import DetNet59
from torso.backbones.extraction import Extraction
from torso.backbones.grid import Grid
from torso.backbones.hourglass import Hourglass
from torso.backbones.shufflenet import ShuffleNetV1
from torso.backbones.spinenet import SpineNet
from torso.config import ModelError
from torso.nn.norms import Group

OFFERED: dict[str, tuple[Callable[..., nn.Module], range]] = {
    "csp_darknet": (partial(CSPDarknet, 0.33, 0.25), range(1, 6)),
    "darknet19": (Darknet19, range(1, 6)),
    "extraction": (Extraction, range(1, 7)),
    "shufflenet_v1": (partial(ShuffleNetV1, 3, 0.25), range(2, 6)),
    "detnet59": (DetNet59, range(2, 7)),
    "detnas": (DetNAS, range(2, 6)),
    "spinenet": (partial(SpineNet, "49S"), range(2, 8)),
}
SMALL: dict[str, Callable[..., nn.Module]] = {
    **{name: make for name, (make, _) in OFFERED.items()},
    "grid": Grid,
    "hourglass": partial(Hourglass, widths=(16, 24, 32), repeats=(1, 1, 1), channels=16),
    "newell": partial(Hourglass, 1, (16, 16, 16), (1, 1, 1), "preact", channels=16),
}
BY_NAME = pytest.mark.parametrize("name", sorted(OFFERED))


@BY_NAME
def test_a_level_is_the_same_whichever_others_are_asked_for(name: str) -> None:
    """Each alone, and the finest with the coarsest, named in any order."""
    make, offered = OFFERED[name]
    every = dict(zip(offered, shapes(empty(partial(make, levels=tuple(offered))), 64, 96), strict=True))
    for levels in [*((level,) for level in offered), (max(offered), min(offered))]:
        backbone = empty(partial(make, levels=levels))
        assert shapes(backbone, 64, 96) == [every[level] for level in sorted(levels)]
        assert shapes(backbone, 64, 96) == promised(backbone, 64, 96)


@BY_NAME
def test_a_level_it_lacks_is_one_sentence(name: str) -> None:
    make, offered = OFFERED[name]
    with pytest.raises(ModelError, match=f"{name} has no level {max(offered) + 1}: choose among {min(offered)} to"):
        make(levels=(max(offered), max(offered) + 1))
    with pytest.raises(ModelError, match="no level"):
        make(levels=())


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 47), (97, 130), (127, 65)])
def test_levels_of_pictures_of_any_size_are_rounded_up(name: str, height: int, width: int) -> None:
    backbone = empty(SMALL[name])
    assert shapes(backbone, height, width) == promised(backbone, height, width)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_odd_sizes_give_numbers_in_both_modes(name: str) -> None:
    torch.manual_seed(0)
    backbone = SMALL[name]()
    for training in (True, False):
        for x in backbone.train(training)(torch.randn(2, 3, 75, 53)):
            assert x.isfinite().all()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_norm_and_activation_is_the_chosen_one(name: str) -> None:
    backbone = on_meta(partial(SMALL[name], norm=Group, activation=nn.SiLU))
    kinds = {type(layer) for layer in backbone.modules()}
    assert {Group, nn.SiLU} <= kinds
    assert not kinds & {nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_signal_neither_dies_nor_explodes_at_the_start(name: str) -> None:
    """With a fresh norm after every convolution in training mode, features are of the order of one."""
    torch.manual_seed(0)
    backbone = SMALL[name]().train()
    for x in backbone(torch.randn(4, 3, 128, 128)):
        assert 0.05 < float(x.detach().std()) < 20


@pytest.mark.skipif(not os.environ.get("TORSO_SLOW"), reason="a minute in all: TORSO_SLOW=1 does it")
@pytest.mark.parametrize("name", sorted(SMALL))
def test_one_exported_program_serves_pictures_of_any_size(name: str) -> None:
    torch.manual_seed(0)
    backbone = SMALL[name]().eval()
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    program = torch.export.export(backbone, (torch.randn(2, 3, 256, 320),), dynamic_shapes={"images": sizes}).module()
    for shape in ((3, 3, 288, 384), (2, 3, 275, 353)):
        images = torch.randn(shape)
        for a, b in zip(program(images), backbone(images), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

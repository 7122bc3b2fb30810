"""Backbones from libraries keep the contract, tell the truth about sizes that divide by nothing, and are exported."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from tests.contracts.library import LIBRARY, QUICK
from torso.backbones import BACKBONES
from torso.testing import check_backbone

SLOW = bool(os.environ.get("TORSO_SLOW"))
EACH = pytest.mark.parametrize("backbone", sorted(LIBRARY), indirect=True)


@pytest.fixture(scope="module")
def backbone(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made = BACKBONES[request.param](**LIBRARY[request.param])
    made.part = request.param
    return made


@pytest.mark.part("backbone/alexnet", "backbone/cspdarknet53", "backbone/cspresnext50", "backbone/darknet53")
@pytest.mark.part("backbone/densenet", "backbone/efficientnet", "backbone/efficientnetv2", "backbone/hrnet")
@pytest.mark.part("backbone/mobilenetv1", "backbone/mobilenetv2", "backbone/resnet", "backbone/resnext")
@pytest.mark.part("backbone/senet", "backbone/shufflenet_v2", "backbone/sknet", "backbone/squeezenet", "backbone/swin")
@pytest.mark.part("backbone/timm", "backbone/vgg", "backbone/vit", "backbone/xception")
@EACH
def test_library_backbones_keep_the_contract(backbone: nn.Module) -> None:
    check_backbone(backbone, size=32, compiles=SLOW or backbone.part in QUICK)


@EACH
def test_sizes_are_rounded_up(backbone: nn.Module) -> None:
    """65 x 97 divides by nothing; 33 x 32 leaves one row alone on every level."""
    backbone.eval()
    with torch.no_grad():
        for height, width in ((64, 64), (65, 97), (33, 32)):
            found = [list(x.shape) for x in backbone(torch.rand(1, 3, height, width))]
            expected = [
                [1, c, -(-height // s), -(-width // s)]
                for c, s in zip(backbone.channels, backbone.strides, strict=True)
            ]
            assert found == expected


@pytest.mark.parametrize("backbone", sorted(LIBRARY) if SLOW else ["squeezenet", "vgg", "vit"], indirect=True)
def test_library_backbones_are_exported(backbone: nn.Module) -> None:
    backbone.eval()
    images = torch.rand(1, 3, 65, 64)
    with torch.no_grad():
        program = torch.export.export(backbone, (images,), strict=False).module()
        for mine, exported in zip(backbone(images), program(images), strict=True):
            torch.testing.assert_close(mine, exported)

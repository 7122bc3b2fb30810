"""Any backbone goes with any neck: forward and backward at 64 px; where two cannot, one sentence names both.

Every backbone runs once. Each neck learns on its features, and what the necks ask of the features goes back through the
backbone together: the gradient of a sum is the sum of the gradients.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contracts.library import LIBRARY
from tests.contracts.test_parts import SMALL
from torso.backbones import BACKBONES
from torso.boxes.cells import pair
from torso.config import RecipeError
from torso.necks import NECKS
from torso.recipes.recipe import Recipe

# As many levels as the necks like; the grid and the hourglass have one by nature.
ARGUMENTS = SMALL | LIBRARY | {"detnas": {"levels": (2, 3, 4)}, "xception": {"depth": 41, "levels": (2, 3, 4)}}
FEW = {"grid", "hourglass"}
WHOLE = {"timm_trunk"}  # a vector, not levels
SIZE = 64


def small(name: str) -> dict[str, Any]:
    """Few channels and one repetition, where the neck lets them be chosen."""
    taken = inspect.signature(NECKS[name]).parameters
    return {key: value for key, value in {"channels": 16, "repeats": 1}.items() if key in taken}


def neck_learns(neck: nn.Module, features: list[Tensor]) -> list[Tensor]:
    """The gradients of the features; shapes and all gradients of the neck are checked."""
    leaves = [x.detach().requires_grad_() for x in features]
    outputs = neck.train()(leaves)
    assert [list(x.shape) for x in outputs] == [
        [2, c, -(-SIZE // down), -(-SIZE // right)]
        for c, (down, right) in zip(neck.channels, map(pair, neck.strides), strict=True)
    ]
    torch.autograd.backward([x.square().mean() for x in outputs])
    for name, parameter in neck.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert all(x.grad is None or x.grad.isfinite().all() for x in leaves)
    return [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - WHOLE))
def test_a_backbone_goes_with_every_neck(name: str) -> None:
    torch.manual_seed(0)
    backbone = BACKBONES[name](**ARGUMENTS.get(name, {})).train()
    features = backbone(torch.rand(2, 3, SIZE, SIZE))
    wanted = [torch.zeros_like(x) for x in features]
    alone: dict[str, str] = {}
    for key in sorted(NECKS):
        try:
            neck = NECKS[key](backbone.channels, backbone.strides, **small(key))
        except ValueError as error:
            alone[key] = str(error)
            continue
        wanted = [total + more for total, more in zip(wanted, neck_learns(neck, features), strict=True)]
    assert all(key in told and str(list(backbone.strides)) in told for key, told in alone.items()), alone
    assert name in FEW or len(NECKS) - len(alone) >= 12, f"{name} does not go with {sorted(alone)}"
    if not [*backbone.parameters()]:  # pixels as they are
        return
    torch.autograd.backward(features, wanted)
    for key, parameter in backbone.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


def test_there_are_enough_pairs() -> None:
    assert len(set(BACKBONES) - WHOLE - FEW) >= 25
    assert len(NECKS) >= 12


def test_a_wrong_pair_is_told_in_one_sentence_that_names_both() -> None:
    recipe = Recipe.load("retinanet", ["model.backbone=grid", "model.neck=pan"], without_data=True)
    with pytest.raises(RecipeError) as caught:
        recipe.model.build(num_classes=3)
    message = str(caught.value)
    assert "\n" not in message
    for word in ("model.neck (pan)", "grid", "[32]", "[128]", "at least 2"):
        assert word in message

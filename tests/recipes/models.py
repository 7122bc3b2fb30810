"""The shipped detectors as small models, with random statistics, so that nothing is 0 by chance."""

from __future__ import annotations

import torch
from torch import nn

from tests.recipes.small import SMALL
from torso.recipes.recipe import Recipe, shipped

CLASSES, SIZE = ["ball", "cone", "cube"], 128
DETECTORS = sorted(
    name
    for name in shipped()
    if Recipe.load(name, without_data=True).model.name in ("detector", "two_stage", "corners", "query", "classical")
    and name != "transfer"
)


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = Recipe.load(name, SMALL[name], without_data=True).model.build(num_classes=len(CLASSES))
    for module in model.modules():  # statistics of norms that are not 0 and 1, and scores that are not all alike
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    for learned in [*model.head.parameters()] or [*model.head.buffers()]:  # planes of support vectors are buffers
        learned.data += torch.randn_like(learned) * 0.02
    return model

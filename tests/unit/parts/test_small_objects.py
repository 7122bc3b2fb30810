"""A head a level: each level's answer is that of a head of its own."""

from __future__ import annotations

import pytest
import torch

from torso.heads import HEADS, Retina
from torso.recipes.recipe import Recipe

FEATURES = [torch.rand(2, 8, 16, 16), torch.rand(2, 12, 8, 8), torch.rand(2, 16, 4, 4)]


def head(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return HEADS["small_objects"](in_channels=[8, 12, 16], num_classes=3, num_priors=[2, 2, 2], **options).eval()


@pytest.mark.part("head/small_objects")
def test_each_level_is_a_retina_head_of_its_own() -> None:
    whole = head()
    output = whole(FEATURES)
    start = 0
    for level, (features, channels) in enumerate(zip(FEATURES, (8, 12, 16), strict=True)):
        alone = Retina([channels], 3, [2], depth=1, norm=torch.nn.BatchNorm2d).eval()
        alone.load_state_dict(whole.levels[level].state_dict())
        expected = alone([features])
        count = expected.logits.shape[1]
        assert torch.equal(output.logits[:, start : start + count], expected.logits)
        assert torch.equal(output.deltas[:, start : start + count], expected.deltas)
        start += count
    assert start == output.logits.shape[1] == 2 * (256 + 64 + 16)


@pytest.mark.part("head/small_objects")
def test_what_one_level_learns_leaves_the_others_alone() -> None:
    whole = head()
    count = 2 * 16 * 16
    whole(FEATURES).logits[:, :count].square().sum().backward()
    touched = {name.split(".")[1] for name, p in whole.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"0"}


@pytest.mark.part("head/small_objects")
def test_a_recipe_adds_a_finer_level_in_two_words() -> None:
    words = ["model.head=small_objects", "model.backbone.levels=[2,3,4]", "model.neck.extra=0"]
    recipe = Recipe.load("demo", words, without_data=True)
    model = recipe.model.build(num_classes=4)
    assert model.backbone.strides == [4, 8, 16]
    output = model(torch.zeros(1, 3, 64, 64))
    assert output.counts[0] == output.counts[1] * 4
    assert len(model.head.levels) == 3

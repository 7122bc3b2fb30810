"""What a recipe or a run is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torso.config import DataError, Spec
from torso.recipes.artifact import read_config, without_weights
from torso.recipes.assemble import parameter_groups
from torso.recipes.recipe import Recipe
from torso.recipes.sources import open_split


def show(target: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved recipe, the parts and where they come from, and the parameters of each section of the model.

    Args:
        target: a recipe (name or file) or a run folder.
        overrides: ``key=value`` changes.

    Returns:
        ``name``, ``recipe`` (tree), ``yaml``, ``parts``, ``parameters`` (section -> count; built on ``meta``) and the
        optimizer's ``groups``.
    """
    folder = Path(target)
    classes: int | None = None
    if (folder / "config.json").is_file():
        config = read_config(folder / "config.json")
        recipe = Recipe.from_tree(config["recipe"], name=config["name"], overrides=overrides)
        classes = len(config["classes"])
    else:
        recipe = Recipe.load(target, overrides, without_data=True)
    from torso.recipes.parts import describe_part

    if classes is None:
        classes = count_classes(recipe)
    bare = Recipe.from_tree(without_weights(recipe.tree), name=recipe.name, without_data=True)
    with torch.device("meta"):
        model = bare.model.build(num_classes=classes)
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    return {
        "name": recipe.name,
        "recipe": recipe.tree,
        "yaml": recipe.to_yaml(),
        "num_classes": classes,
        "parts": [describe_part(spec) for spec in specs(recipe.model)],
        "parameters": {name: count for name, count in parameters.items() if count},
        "groups": update_groups(recipe, model),
    }


def update_groups(recipe: Recipe, model: nn.Module) -> list[dict[str, Any]]:
    """What the optimizer does with which parameters, a row a group; frozen ones are in none."""
    return [
        {
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
            "tensors": len(group["params"]),
            "parameters": sum(parameter.numel() for _, parameter in group["params"]),
            "first": group["params"][0][0],
        }
        for group in parameter_groups(recipe.train.build(), model)
    ]


def count_classes(recipe: Recipe) -> int:
    """Classes of the recipe's data where it is here, else COCO's 80."""
    if recipe.data.args.get("path") is None:
        return 80
    try:
        return len(open_split(recipe.data.build(), recipe.data.args["train"]).classes)
    except DataError:
        return 80


def specs(spec: Spec) -> list[Spec]:
    """A part and the parts it is made of."""
    inner = [s for value in spec.args.values() for s in _inside(value)]
    return [spec, *inner]


def _inside(value: Any) -> list[Spec]:
    if isinstance(value, Spec):
        return specs(value)
    if isinstance(value, list | tuple):
        return [s for item in value for s in _inside(item)]
    return []

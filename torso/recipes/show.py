"""What a recipe or a run is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torso.anatomy.figure import anatomy_svg
from torso.anatomy.summary import summary
from torso.config import DataError, Spec
from torso.recipes.artifact import read_config, without_weights
from torso.recipes.assemble import parameter_groups
from torso.recipes.recipe import Recipe
from torso.recipes.sources import open_split, size_of
from torso.recipes.transfer import hold


def show(
    target: str, overrides: Sequence[str] = (), *, depth: int = 2, svg: str | Path | None = None
) -> dict[str, Any]:
    """The resolved recipe, the parts and where they come from, and the model layer by layer.

    Args:
        target: a recipe (name or file) or a run folder.
        overrides: ``key=value`` changes.
        depth: how deep to look into the model; 1 gives its sections.
        svg: a file for the figure of backbone, neck and head.

    Returns:
        ``name``, ``recipe`` (tree), ``yaml``, ``parts``, ``parameters`` (section -> count; built on ``meta``),
        ``layers`` (rows of `torso.anatomy.summary`), ``size`` (of the picture they are for), the optimizer's
        ``groups``, and ``svg`` (the file).
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
    size = size_of(recipe.data.args)
    layers = summary(model, size, depth)
    if svg is not None:
        figure = anatomy_svg(layers, size, recipe.name, _strides(model), _names(recipe.model))
        Path(svg).write_text(figure, encoding="utf-8")
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    return {
        "name": recipe.name,
        "recipe": recipe.tree,
        "yaml": recipe.to_yaml(),
        "num_classes": classes,
        "parts": [describe_part(spec) for spec in specs(recipe.model)],
        "parameters": {name: count for name, count in parameters.items() if count},
        "size": list(size),
        "layers": [asdict(row) for row in layers],
        "groups": update_groups(recipe, model),
        **({} if svg is None else {"svg": str(svg)}),
    }


def _strides(model: nn.Module) -> dict[str, Sequence[int | tuple[int, int]]]:
    found: dict[str, Any] = {name: getattr(part, "strides", None) for name, part in model.named_children()}
    return {name: strides for name, strides in found.items() if strides is not None}


def _names(spec: Spec) -> dict[str, str]:
    """The words of a recipe for the sections: ``timm resnet50``, ``fpn``."""
    names = {}
    for section, part in spec.args.items():
        if isinstance(part, Spec):
            model = part.args.get("model")
            names[section] = f"{part.name} {model}" if isinstance(model, str) else part.name
    return names


def update_groups(recipe: Recipe, model: nn.Module) -> list[dict[str, Any]]:
    """What the optimizer does with which parameters, a row a group; frozen ones are in none."""
    settings = recipe.train.build()
    hold(model, settings)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return []  # planes of support vectors are no parameters
    return [
        {
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
            "tensors": len(group["params"]),
            "parameters": sum(parameter.numel() for _, parameter in group["params"]),
            "first": group["params"][0][0],
        }
        for group in parameter_groups(settings, model)
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

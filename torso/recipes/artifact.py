"""What a run leaves behind: weights and what is needed to use them rightly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import torso
from torso.config import ModelError
from torso.recipes.recipe import Recipe
from torso.train import checkpoint
from torso.train.run_folder import RunFolder
from torso.weights import safe_load


@dataclass(frozen=True)
class Artifact:
    """A model that is ready to answer, and what it was made from."""

    model: Any  # a torso model, or a torso.deploy.Exported: task, num_classes, stride, predict
    config: dict[str, Any]  # config.json, see `describe`
    path: Path  # what was loaded
    folder: Path  # where results go: the run, or the folder of the file

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the model's outputs."""
        return tuple(self.config["classes"])

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return Recipe.from_tree(self.config["recipe"], name=self.config["name"])

    @property
    def threshold(self) -> float:
        """The score from which a detection is worth showing: where F1 was best on the validation split."""
        return float(self.config.get("threshold") or 0.25)


def describe(recipe: Recipe, task: str, classes: tuple[str, ...], class_ids: tuple[int, ...]) -> dict[str, Any]:
    """The content of ``config.json``: enough, with the weights, to evaluate, predict, export and resume."""
    return {
        "torso": torso.__version__,
        "name": recipe.name,
        "task": task,
        "classes": list(classes),
        "class_ids": list(class_ids),
        "recipe": recipe.tree,
    }


def load(path: str | Path) -> Artifact:
    """A run folder, a ``model.safetensors`` with its ``config.json``, a checkpoint of a run, or an exported ``.onnx``.

    Raises:
        ModelError: nothing there that can be loaded, or it is damaged.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        from torso.deploy.exported import Exported

        exported = Exported(path)
        return Artifact(exported, {**exported.metadata, "name": path.stem}, path, path.parent)
    folder = path if path.is_dir() else path.parent
    config_file = next(
        (f / "config.json" for f in (folder, folder.parent.parent) if (f / "config.json").is_file()), None
    )
    if config_file is None:
        raise ModelError(
            f"{path} is not something torso can load: expected a run folder (with config.json), "
            "a model.safetensors with its config.json beside it, or a .onnx file"
        )
    config = read_config(config_file)
    model = build(config)
    state = weights(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"the weights in {path} do not fit {config_file}: {str(error).splitlines()[-1].strip()}"
        ) from error
    return Artifact(model.eval(), config, path, config_file.parent)


def read_config(path: Path) -> dict[str, Any]:
    """The content of a ``config.json``."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        missing = {"recipe", "classes", "class_ids", "task", "name"} - set(config)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    if missing:
        raise ModelError(f"{path} lacks {', '.join(sorted(missing))}: it was not written by torso")
    return dict(config)


def build(config: Mapping[str, Any]) -> nn.Module:
    """The model of a ``config.json``, without the weights its recipe started from: they are not needed any more."""
    tree = without_weights(config["recipe"])
    model: nn.Module = Recipe.from_tree(tree, name=config["name"]).model.build(num_classes=len(config["classes"]))
    return model


def without_weights(tree: Any) -> Any:
    """The same recipe with every ``weights`` that names a file set to null."""
    if isinstance(tree, Mapping):
        named = {key for key, value in tree.items() if key == "weights" and isinstance(value, str)}
        return {key: None if key in named else without_weights(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_weights(value) for value in tree]
    return tree


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights to use: the file given, a run's ``model.safetensors``, or its best or newest whole checkpoint."""
    if path.is_file():
        return safe_load(path)
    if (path / "manifest.json").is_file():
        return checkpoint.weights(path)
    run = RunFolder(path)
    if run.model.is_file():
        return safe_load(run.model)
    found = checkpoint.best(run.checkpoints) or checkpoint.latest_valid(run.checkpoints)
    if found is None:
        raise ModelError(f"{path} has no weights yet: no model.safetensors and no whole checkpoint")
    return checkpoint.weights(found)

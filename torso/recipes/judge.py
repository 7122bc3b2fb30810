"""Evaluation and the report of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torso.config import DataError, RecipeError
from torso.data import Index
from torso.data.loader import Loader
from torso.evaluate import classification, detection, figure, pictures, plots, report, voc
from torso.evaluate.classification import ClassificationResult
from torso.evaluate.detection import DetectionResult
from torso.evaluate.predictions import Predictions, collect
from torso.recipes.artifact import Artifact, load
from torso.recipes.looking import Looking, answers
from torso.recipes.recipe import Recipe
from torso.recipes.sources import locate, open_split
from torso.structures import Detections
from torso.train import disk
from torso.train.run_folder import RunFolder

Result = DetectionResult | ClassificationResult


def judge(
    predict: Callable[[Tensor], Detections | Tensor], loader: Loader, device: str = "cpu", most: int = 100
) -> tuple[Predictions, Result]:
    """Predictions for all pictures of a split, and the marks they get; ``most`` as in `detection.evaluate`."""
    found = collect(predict, loader, device)
    return found, marks(loader.index, found, most)


def marks(index: Index, found: Predictions, most: int = 100) -> Result:
    """The marks that predictions get.

    Raises:
        DataError: these are classes, and the data has no class for each picture.
    """
    if found.probabilities is None:
        return detection.evaluate(index, found, most=most)
    if index.image_labels is None:
        raise DataError(f"{index.root} has no class for each picture: a classifier cannot be judged on it")
    return classification.evaluate(index.image_labels[found.seen], found.probabilities, index.classes)


def evaluate(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    split: str | None = None,
    out: str | Path | None = None,
    how: Looking | None = None,
) -> dict[str, Any]:
    """Judge a run, a ``model.safetensors`` or an exported file on a split of its data, or of other data.

    Args:
        path: what to judge.
        overrides: of the recipe, such as ``data.path=DIR``.
        split: name of the split; the recipe's ``data.val`` when ``None``.
        out: folder for ``predictions.json`` (COCO results form) and ``evaluation.json``; none are written if ``None``.
        how: mirrored, at scales, in windows; once, as the model learned to, when ``None``.

    Returns:
        ``summary``, ``per_class`` and what else the task has; for a detector also ``voc``, the mean AP at
        overlap 0.5 by the rules of PASCAL VOC (``all_points`` from 2010 on, ``eleven_points`` up to 2007).
    """
    artifact = load(path)
    recipe = Recipe.from_tree(artifact.config["recipe"], name=artifact.config["name"], overrides=overrides)
    others = [override for override in overrides if not override.startswith("data.")]
    if others:
        raise RecipeError(f"{others[0]}: only data.* can be changed when a trained model is judged")
    data = recipe.data.build()
    index = open_split(data, split or data["val"], artifact.classes)
    check_task(artifact.config["task"], index)
    began = time.monotonic()
    found, _ = answers(artifact, data, index, how)
    result = marks(index, found, data["max_detections"])
    answer = {
        "model": str(path),
        "data": str(locate(data["path"])),
        "split": split or data["val"],
        "images": len(index),
        "seconds": round(time.monotonic() - began, 2),
        **({} if how is None else {"looking": how.told()}),
        **result.to_dict(),
    }
    if found.probabilities is None:
        rules = {"all_points": False, "eleven_points": True}
        answer["voc"] = {name: voc.evaluate(index, found, eleven_point=rule).mean for name, rule in rules.items()}
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "predictions.json", found.to_coco(index))
        write_json(folder / "evaluation.json", answer)
    return answer


def check_task(task: str, index: Index) -> None:
    """A detector needs boxes, a classifier a class for each picture.

    Raises:
        DataError: the data is for another task.
    """
    if index.task == task:
        return
    has = {
        "detect": "boxes",
        "classify": "a class for each picture",
        "segment": "a map of classes for each picture",
        "unlabeled": "no labels",
    }
    advice = {
        "detect": "take a recipe whose model is a detector",
        "classify": "take a recipe whose model is a classifier",
        "segment": "name another data.format if the folder holds boxes too",
        "unlabeled": "look with torso data check what the folder is, or name data.format",
    }
    raise DataError(f"{index.root} has {has[index.task]}, but this model needs {has[task]}: {advice[index.task]}")


def check_masks(model: Any, data: dict[str, Any], index: Index) -> None:
    """A model that learns masks needs data that has them, and asks for them.

    Raises:
        DataError: the objects have no masks.
        RecipeError: they have, but are not loaded.
    """
    if not getattr(model, "masks", False):
        return
    if index.masks is None:
        raise DataError(
            f"{index.root} has no masks of objects, but this model learns masks: take data that has them, or "
            "model.mask_head=null"
        )
    if not data["masks"]:
        raise RecipeError("this model learns masks, but data.masks is false: set data.masks=true")


def write_report(
    run: RunFolder, artifact: Artifact, train: Loader, val: Index, found: Predictions, result: Result, **facts: Any
) -> None:
    """``report.html`` and ``plots/`` of a run."""
    indexes = {"train": train.index, "val": val}
    figures = plots.figures(metrics=run.read_metrics(), results=run.read_results(), evaluation=result, indexes=indexes)
    figure.save(figures, run.plots)
    # Drawn by the loader's own generators, like everything in an epoch: looking changes nothing.
    batch = next(iter(train.epoch(0)))
    shown = pictures.Pictures(
        labels=pictures.of_labels(train.index),
        batches=pictures.of_batch(batch, train.index.classes),
        mistakes=pictures.of_mistakes(val, found, artifact.threshold),
    )
    report.write(
        run.report,
        name=f"{run.path.name}",
        recipe_yaml=run.recipe.read_text(encoding="utf-8"),
        command=run.command.read_text(encoding="utf-8"),
        environment=json.loads(run.environment.read_text(encoding="utf-8")),
        facts=facts,
        evaluation=result,
        data={"train": train.index.report(), "val": val.report()},
        figures=figures,
        pictures=shown,
    )


def write_json(path: Path, content: Any) -> None:
    """Readable JSON, numbers of numpy and torch as plain ones; a reader, or a crash, never finds half of it."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | torch.Tensor | np.ndarray):
            return value.tolist()
        raise TypeError(f"cannot write {type(value).__name__} as JSON")

    disk.write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False, default=plain) + "\n").encode())

"""The verbs: train, resume; evaluate, predict, export and show stand beside it and are named here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from torso.config import DataError, ModelError, RecipeError
from torso.data import Index
from torso.data.loader import Loader
from torso.evaluate.predictions import Predictions
from torso.recipes.answer import predict
from torso.recipes.artifact import Artifact, describe, load, read_config, weights, without_weights
from torso.recipes.assemble import parameter_groups
from torso.recipes.classical import without_gradients
from torso.recipes.judge import Result, check_masks, check_task, evaluate, judge, write_json, write_report
from torso.recipes.recipe import Recipe
from torso.recipes.ship import export
from torso.recipes.show import show
from torso.recipes.sources import (
    check_proposals,
    given_files,
    judging_loader,
    locate,
    open_split,
    training_loader,
)
from torso.recipes.transfer import absolute, begin, hold, told
from torso.train import checkpoint
from torso.train.engine import fit
from torso.train.log import Log
from torso.train.rounds import fit_rounds
from torso.train.run_folder import RunFolder
from torso.train.seed import seed_everything

__all__ = ["evaluate", "export", "load", "predict", "resume", "show", "train"]

HEADLINE = {"detect": "AP", "classify": "accuracy"}
# In results.csv and in the report, not in the line of an epoch.
_SIZES = ("APs", "APm", "APl", "ARs", "ARm", "ARl")
DETAILS = ("AR1", "AR10", *_SIZES, *(f"mask {key}" for key in _SIZES), "top5", "macro_precision", "macro_recall")


def train(
    recipe: str | Path | Recipe,
    overrides: Sequence[str] = (),
    *,
    runs: str | Path = "runs",
    name: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a recipe: a new run folder with everything in it.

    Args:
        recipe: name of a shipped recipe, path of a YAML file, or a `Recipe`.
        overrides: ``key=value`` changes of it.
        runs: where run folders are made: ``runs/<task>/<name>-<n>``.
        name: of the run; the recipe's name when ``None``.
        quiet: print nothing.

    Returns:
        ``run``, ``seconds``, ``metrics`` of the shipped weights on the validation split.

    Raises:
        RecipeError, DataError, ModelError: what is wrong, before anything is trained.
        Preempted, Interrupted: after SIGTERM or SIGINT, everything saved; see `resume`.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(str(recipe), overrides)
    settings = recipe.data.build()
    # Absolute, so that a resume works from any folder.
    files = {"path": str(locate(settings["path"])), "proposals": given_files(settings) or None}
    tree = {**recipe.tree, "data": {**recipe.tree["data"], **files}}
    tree["train"] = {**tree["train"], "init": absolute(tree["train"]["init"])}
    # Of the header only what it is: the cost and score it tells are not those of this run.
    recipe = Recipe.from_tree(tree, name=recipe.name, header=recipe.header.partition("\n")[0])
    log = Log(quiet, hidden=DETAILS)
    work = _prepare(recipe, log)
    run = RunFolder.create(runs, work.task, name or recipe.name)
    run.recipe.write_text(recipe.to_yaml(), encoding="utf-8")
    write_json(run.config, work.config)
    if work.begun:
        write_json(run.path / "init.json", {name: report.to_dict() for name, report in work.begun.items()})
    write_data_report(run, work, {"train": [], "val": []})
    log.say(f"run      {run.path}")
    return _work(work, run, log)


def resume(path: str | Path, *, quiet: bool = False) -> dict[str, Any]:
    """Go on with a run that was stopped or killed, as if nothing had happened.

    Raises:
        ModelError: not a run folder, or its checkpoints are damaged.
        DataError: the data has changed.
    """
    run = RunFolder(path)
    if not run.recipe.is_file() or not run.config.is_file():
        raise ModelError(f"{path} is not a run folder: expected recipe.yaml and config.json in it")
    log = Log(quiet, hidden=DETAILS)
    if run.get_state().get("status") == "done" and run.report.is_file():
        config = read_config(run.config)
        log.say(f"{run.path} is done; its report is {run.report}")
        return {"run": str(run.path), "seconds": 0.0, "metrics": config.get("metrics", {})}
    config = read_config(run.config)
    recipe = Recipe.from_tree(config["recipe"], name=config["name"])
    # Once there is a checkpoint, the file of weights that training began with may be gone.
    saved = checkpoint.latest_valid(run.checkpoints) is not None
    return _work(_prepare(recipe, log, bare=saved), run, log, resuming=True)


class _Work:
    """A recipe with its data opened and its model built."""

    def __init__(self, recipe: Recipe, bare: bool = False) -> None:
        self.recipe = recipe
        self.data, self.settings = recipe.data.build(), recipe.train.build()
        if self.settings["threads"]:
            torch.set_num_threads(self.settings["threads"])
        self.device = _device(self.settings["device"])
        self.train_index: Index = open_split(self.data, self.data["train"])
        if self.train_index.task == "unlabeled":
            raise DataError(
                f"{self.train_index.root} has no labels to learn from: look with torso data check what the folder is, "
                "or name data.format"
            )
        classes = self.train_index.classes
        self.val_index: Index = open_split(self.data, self.data["val"], classes)
        seed_everything(self.settings["seed"])
        plan = Recipe.from_tree(without_weights(recipe.tree), name=recipe.name) if bare else recipe
        self.model: nn.Module = plan.model.build(num_classes=len(classes))
        self.begun = {} if bare else begin(self.model, self.settings)
        hold(self.model, self.settings)
        if hasattr(self.model, "learner"):
            without_gradients(recipe)
        self.task = str(self.model.task)
        check_task(self.task, self.train_index)
        check_masks(self.model, self.data, self.train_index)
        check_proposals(self.model, self.data, self.train_index, self.val_index)
        self.config = describe(recipe, self.task, classes, self.train_index.class_ids)

    def judge(self, model: Any, loader: Loader) -> tuple[Predictions, Result]:
        """What the model says of all pictures, and the marks it gets."""
        return judge(model.predict, loader, self.device, self.data["max_detections"])


def _prepare(recipe: Recipe, log: Log, bare: bool = False) -> _Work:
    """Everything that can be wrong is found here, before a run folder is made; says what was found."""
    work = _Work(recipe, bare)
    log.say(recipe.to_yaml().rstrip())
    for split, index in (("train", work.train_index), ("val", work.val_index)):
        objects = f", {len(index.labels)} objects" if index.task == "detect" else ""
        log.say(f"{split:8} {len(index)} pictures{objects}, {len(index.classes)} classes from {index.root}")
        for problem in index.problems[:5]:
            log.say(f"         {problem}")
        if len(index.problems) > 5:
            log.say(f"         and {len(index.problems) - 5} more, all in data_report.json")
    if work.begun:
        log.say(told(work.begun, work.settings["init"]))
    count = sum(p.numel() for p in work.model.parameters())
    learned = sum(p.numel() for p in work.model.parameters() if p.requires_grad)
    log.say(f"model    {count / 1e6:.2f} M parameters, {learned / 1e6:.2f} M of them learned; on {work.device}")
    return work


def _work(work: _Work, run: RunFolder, log: Log, resuming: bool = False) -> dict[str, Any]:
    """Fit, keep the best weights, judge them, write the report."""
    settings, began = work.settings, time.monotonic()
    loader = training_loader(work.data, work.train_index, settings["seed"], settings["epochs"])
    judging = judging_loader(work.data, work.val_index)
    model = work.model.to(work.device)
    if hasattr(model, "learner"):
        _mine(work, run, log, loader, judging, resuming)
        return _finish(work, run, log, loader, time.monotonic() - began)
    optimizer = settings["optimizer"].build(params=parameter_groups(settings, model))
    fit(
        model,
        loader,
        optimizer,
        settings["schedule"],
        epochs=settings["epochs"],
        run=run,
        tricks=settings["tricks"],
        evaluator=lambda m: work.judge(m, judging)[1].summary,
        precision=settings["precision"],
        accumulate=settings["accumulate"],
        evaluate_every=settings["evaluate_every"],
        save_every=settings["save_every"],
        log_every=max(1, min(10, len(loader) // settings["accumulate"])),
        seed=settings["seed"],
        best=settings["best"] or HEADLINE[work.task],
        log=log,
        device=work.device,
        resume_from=run if resuming else None,
        about=work.config,
    )
    return _finish(work, run, log, loader, time.monotonic() - began)


def _mine(work: _Work, run: RunFolder, log: Log, loader: Any, judging: Any, resuming: bool) -> None:
    """Fit a model that no gradient reaches."""
    settings = work.settings
    if resuming:
        log.say("nothing of a round can be taken up half-way: the rounds begin anew, and end the same")
    fit_rounds(
        work.model,
        work.model.learner(settings["seed"]),  # type: ignore[operator]
        loader,
        epochs=settings["epochs"],
        run=run,
        evaluator=lambda m: work.judge(m, judging)[1].summary,
        evaluate_every=settings["evaluate_every"],
        seed=settings["seed"],
        best=settings["best"] or HEADLINE[work.task],
        log=log,
        device=work.device,
        about=work.config,
    )


def _finish(work: _Work, run: RunFolder, log: Log, loader: Any, seconds: float) -> dict[str, Any]:
    """The best weights as ``model.safetensors``, their marks, and the report."""
    chosen = checkpoint.best(run.checkpoints) or checkpoint.latest_valid(run.checkpoints)
    if chosen is None:
        raise ModelError(f"{run.path} has no whole checkpoint")
    state = weights(chosen)
    work.model.load_state_dict(state)
    model = work.model.eval()
    judging = judging_loader(work.data, work.val_index)
    found, result = work.judge(model, judging)
    marks = result.to_dict()
    config = {**work.config, "metrics": marks["summary"], "threshold": marks.get("threshold")}
    save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, run.model)
    write_json(run.config, config)
    write_json(run.path / "predictions.json", found.to_coco(work.val_index))
    write_json(run.path / "evaluation.json", marks)
    artifact = Artifact(model, config, run.path, run.path)
    skipped = {"train": sorted({*loader.skipped}), "val": sorted({*judging.skipped})}
    write_data_report(run, work, skipped)
    if count := sum(map(len, skipped.values())):
        log.say(f"{count} pictures could not be read and were left out, all named in {run.data_report}")
    write_report(run, artifact, loader, work.val_index, found, result, training=f"{seconds / 60:.1f} min")
    return {"run": str(run.path), "seconds": round(seconds, 1), "metrics": marks["summary"]}


def write_data_report(run: RunFolder, work: _Work, skipped: dict[str, list[tuple[str, str]]]) -> None:
    """``data_report.json``: the data in numbers, and everything of it that was left out or changed, with the reason."""
    report = {"train": work.train_index.report(), "val": work.val_index.report()}
    for split, pictures in skipped.items():
        report[split]["unreadable"] = [{"path": path, "reason": reason} for path, reason in pictures]
    write_json(run.data_report, report)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RecipeError(f"train.device is {name}, but torch sees no such device: take auto or cpu")
    return name

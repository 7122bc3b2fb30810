"""Training in rounds, of models that no gradient reaches."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from torso.config import TorsoError
from torso.structures import Batch
from torso.train import checkpoint
from torso.train.engine import Batches, Evaluator
from torso.train.log import Log
from torso.train.run_folder import RunFolder
from torso.train.seed import seed_everything, undisturbed
from torso.train.signals import Stop, Stopped


class Learner(Protocol):
    """What finds the weights of a model, one pass over the data after the other."""

    def round(self, batches: Iterable[Batch], number: int) -> Mapping[str, float]:
        """One pass; what there is to tell of it, ``loss`` among it."""
        ...


def fit_rounds(
    model: nn.Module,
    learner: Learner,
    loader: Batches,
    *,
    epochs: int,
    run: RunFolder,
    evaluator: Evaluator,
    evaluate_every: int = 1,
    seed: int = 0,
    best: str = "AP",
    log: Log | None = None,
    device: str = "cpu",
    about: Mapping[str, Any] | None = None,
) -> None:
    """Train a model in rounds, an epoch each; every round leaves a checkpoint and a row of results.

    A round has nothing that could be taken up half-way: a run that is stopped begins anew, and ends the same.

    Args:
        model: whose weights the learner finds.
        learner: see `Learner`.
        loader: the batches.
        epochs: rounds.
        run: where everything is written.
        evaluator: model to metrics, all better when higher.
        evaluate_every: rounds; the last one is always evaluated.
        seed: of what is drawn; the loader has its own.
        best: the metric that says which round is the best one.
        log: what is shown.
        device: where the model is.
        about: what else each checkpoint carries, as JSON.

    Raises:
        Preempted, Interrupted: after SIGTERM, SIGINT.
        TorsoError: the evaluator does not give the metric ``best``, or the disk refused.

    Source: own design.
    """
    log = log or Log()
    seed_everything(seed)
    run.rewind(0, 0)
    fingerprint = getattr(getattr(loader, "index", None), "fingerprint", None)
    rest = {"about": dict(about or {}), "fingerprint": fingerprint}
    state: dict[str, Any] = {"epoch": 0, "step": 0, "best": None}
    with Stop() as stop, _told(run, log, state, epochs):
        for number in range(epochs):
            begun = time.monotonic()
            row = dict(learner.round(_until(stop, loader, number, device), number))
            state["epoch"] = state["step"] = number + 1
            weights = {"model": dict(model.state_dict())}
            path = checkpoint.save(run.checkpoints, number + 1, weights, {"progress": dict(state), **rest})
            metrics: dict[str, float] = {}
            if (number + 1) % evaluate_every == 0 or number + 1 == epochs:
                with stop.at_once(), undisturbed(), torch.no_grad():
                    metrics = dict(evaluator(model.eval()))
                _keep_best(state, path, metrics, best)
            row = {"epoch": number + 1, "step": number + 1, **row}
            run.add_metrics({**row, "seconds": round(time.monotonic() - begun, 3)})
            row |= metrics | {"seconds": time.monotonic() - begun}
            run.add_result(row)
            log.epoch(row)
            run.set_state("running", **state)


def _until(stop: Stop, loader: Batches, number: int, device: str) -> Iterator[Batch]:
    """The batches of a round, as long as nobody wants it to stop."""
    for batch in loader.epoch(number):
        if stop.requested is not None:
            raise stop.requested(f"stopped in round {number + 1}; `torso resume` begins the rounds anew")
        yield batch.to(device)


def _keep_best(state: dict[str, Any], path: Path, metrics: Mapping[str, float], best: str) -> None:
    if best not in metrics:
        raise TorsoError(f"the best round is chosen by {best!r}, but the evaluator gives {', '.join(metrics)}")
    value = float(metrics[best])
    if value > (state["best"]["value"] if state["best"] else -math.inf):  # never for NaN
        state["best"] = {"metric": best, "value": value, "epoch": state["epoch"], "step": state["step"]}
        checkpoint.mark_best(path)


@contextmanager
def _told(run: RunFolder, log: Log, state: dict[str, Any], epochs: int) -> Iterator[None]:
    """Around the rounds: `state.json` says how it goes and how it ended."""
    run.set_state("running")
    log.start(epochs=epochs, total_steps=epochs)
    try:
        yield
        run.set_state("done", **state)
    except BaseException as error:
        with suppress(TorsoError):  # the disk may be the very reason
            run.set_state("stopped" if isinstance(error, Stopped) else "failed", **state, error=str(error))
        raise
    finally:
        log.stop()

"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from torso.config import TorsoError
from torso.structures import Batch, Losses
from torso.train import nonfinite
from torso.train.log import Log
from torso.train.precision import Choice, Precision, choose
from torso.train.run_folder import RunFolder, Status
from torso.train.schedules import Schedule
from torso.train.seed import seed_everything, undisturbed
from torso.train.signals import Stop, Stopped
from torso.train.snapshot import Snapshots
from torso.train.state import State
from torso.train.tricks import Trick

Evaluator = Callable[[nn.Module], Mapping[str, float]]


class Batches(Protocol):
    """What `fit` needs of a loader: `epoch` gives the same batches for the same arguments, whenever it is called."""

    def __len__(self) -> int:
        """Batches an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from the `start`-th on."""


def fit(
    model: nn.Module,
    loader: Batches,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    epochs: int,
    run: RunFolder,
    tricks: Sequence[Trick] = (),
    evaluator: Evaluator | None = None,
    precision: Choice = "auto",
    accumulate: int = 1,
    evaluate_every: int = 1,
    save_every: int | None = None,
    log_every: int = 10,
    keep: int = 2,
    seed: int = 0,
    best: str = "AP",
    log: Log | None = None,
    device: str = "cpu",
    resume_from: Path | RunFolder | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a model.

    A step is one move of the optimizer: `accumulate` batches, or what is left of an epoch. SIGTERM and SIGINT finish
    the step and save. A run that was stopped or killed ends, after a resume, with the weights of one that was not.

    Args:
        model: has `losses(batch)`.
        loader: the batches.
        optimizer: over the model's parameters, see `optim.groups`; its rates are the rates at factor 1.
        schedule: step -> factor of the rates.
        epochs: how often all data is seen.
        run: where everything is written.
        tricks: what else happens, see `tricks`.
        evaluator: model -> metrics, all better when higher. It gets the model in eval mode, without autocast.
        precision: see `precision.choose`.
        accumulate: batches a step.
        evaluate_every: epochs; the last one is always evaluated.
        save_every: steps; a checkpoint is written at the end of every epoch in any case.
        log_every: steps between two rows of `metrics.jsonl`.
        keep: whole checkpoints that stay, besides the best one.
        seed: of what is drawn in training; the loader has its own.
        best: the metric that says which checkpoint is the best one.
        log: what is shown.
        device: where the model is trained.
        resume_from: a checkpoint, or a run: its newest whole one.
        about: what else each checkpoint carries (resolved recipe, class names), as JSON.

    Returns:
        `epoch`, `step`, `best`, the mean `losses` of the last epoch, and `metrics`.

    Raises:
        NonFiniteError: a loss is NaN or infinite; the weights were not touched by it.
        Preempted, Interrupted: after SIGTERM, SIGINT; all is saved.
        ModelError, DataError: the checkpoint does not fit to model, recipe or data.
        TorsoError: the disk refused twice, or the loader broke its promise.
    """
    if epochs < 1 or accumulate < 1 or evaluate_every < 1 or len(loader) < 1:
        raise TorsoError(f"nothing to train: {epochs} epochs of {len(loader)} batches, {accumulate} a step")
    numbers = choose(precision, device)
    log = log or Log()
    seed_everything(seed)
    state = State(numbers.prepare(model).train(), optimizer, schedule, epochs, len(loader), accumulate)
    for trick in tricks:
        trick.start(state)
    fingerprint = getattr(getattr(loader, "index", None), "fingerprint", None)
    snapshots = Snapshots(state, tricks, run, about=about or {}, fingerprint=fingerprint, keep=keep)
    if resume_from is not None:
        found = snapshots.resume(resume_from)
        log.say(f"resumed from {found}" if found else "no checkpoint was written before; starting anew")
    with Stop() as stop:
        job = _Job(loader, tricks, evaluator, numbers, run, log, snapshots, stop, save_every, log_every)
        with _told(job, state):
            result: dict[str, Any] = {}
            while state.epoch < epochs:
                result = _epoch(job, state, evaluate_every, best)
            return result | {"epoch": state.epoch, "step": state.step, "best": state.best}


@dataclass(frozen=True)
class _Job:
    """What stays the same while a run trains."""

    loader: Batches
    tricks: Sequence[Trick]
    evaluator: Evaluator | None
    numbers: Precision
    run: RunFolder
    log: Log
    snapshots: Snapshots
    stop: Stop
    save_every: int | None
    log_every: int


def _epoch(job: _Job, state: State, evaluate_every: int, best: str) -> dict[str, Any]:
    """Train what is left of an epoch, save, evaluate, note the results; begin the next one."""
    begun = time.monotonic()
    _train(job, state)
    job.snapshots.save()  # before evaluating, which may take longer than a SIGTERM leaves time for
    losses = {name: total / state.batches for name, total in state.sums.items()}
    metrics: dict[str, float] = {}
    if (state.epoch + 1) % evaluate_every == 0 or state.epoch + 1 == state.epochs:
        metrics = _evaluate(job, state)
    if metrics:
        _keep_best(job, state, metrics, best)
    row = {"epoch": state.epoch + 1, "step": state.step, "loss": sum(losses.values()), **losses, **metrics}
    row |= {"lr": state.rate, "seconds": time.monotonic() - begun}
    job.run.add_result(row)
    job.log.epoch(row)
    state.epoch, state.position, state.sums = state.epoch + 1, 0, {}
    job.run.set_state("running", epoch=state.epoch, step=state.step, best=state.best)
    return {"losses": losses, "metrics": metrics}


def _train(job: _Job, state: State) -> None:
    """All optimizer steps that an epoch still owes."""
    begun = time.monotonic()
    # Closed however training ends: workers that ignore SIGTERM would keep the process from ending.
    with closing(_batches(job, state)) as batches:
        while state.position < state.batches:
            due = (state.step + 1) % job.log_every == 0
            row = _step(job, state, batches, due)
            loss = sum(row["losses"].values())
            job.log.step(epoch=state.epoch, step=state.step, loss=loss)
            if due:
                row = {"step": state.step, "epoch": state.epoch + 1, "loss": loss, "lr": state.rate, **row}
                job.run.add_metrics(row | {"seconds": round(time.monotonic() - begun, 3)})
            if job.stop.requested is not None:
                job.snapshots.save()
                raise job.stop.exception(f"after step {state.step} of {state.total_steps}")
            if job.save_every and state.step % job.save_every == 0:
                job.snapshots.save()


def _step(job: _Job, state: State, batches: Iterator[Batch], measure: bool) -> dict[str, Any]:
    """One move of the optimizer: the mean gradient over `accumulate` batches, or over those the epoch has left."""
    count = min(state.accumulate, state.batches - state.position)
    model, optimizer = state.model, state.optimizer
    state.set_rate()
    optimizer.zero_grad(set_to_none=True)
    seen: list[tuple[Batch, Losses]] = []
    for batch in islice(batches, count):
        there = batch.to(job.numbers.device, non_blocking=True)
        for trick in job.tricks:
            there = trick.batch(there, state.epoch)
        with job.numbers.autocast():
            losses = cast("Callable[[Batch], Losses]", model.losses)(there)
        (torch.stack([*losses.values()]).sum() / count).backward()  # type: ignore[no-untyped-call]
        seen.append((there, {name: loss.detach() for name, loss in losses.items()}))
    if len(seen) < count:
        raise TorsoError(f"the loader promised {state.batches} batches an epoch and gave {state.position + len(seen)}")
    means = _finite(job, state, seen)  # waits for the device, once a step, before anything can reach a weight
    row: dict[str, Any] = {"losses": means}
    if measure:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        row["gradient_norm"] = float(nn.utils.get_total_norm(gradients))
    for trick in job.tricks:
        trick.gradients(model)
    optimizer.step()
    state.step += 1
    state.position += count
    state.samples += sum(len(batch) for batch, _ in seen)
    for trick in job.tricks:
        trick.stepped(model, state.step)
    return row


def _finite(job: _Job, state: State, seen: Sequence[tuple[Batch, Losses]]) -> dict[str, float]:
    """The mean of each loss over the batches of a step; also adds them up for the epoch.

    Raises:
        NonFiniteError: when one is NaN or infinite.
    """
    values = torch.stack([loss.float() for _, losses in seen for loss in losses.values()]).tolist()
    means: dict[str, float] = {}
    rest = iter(values)
    for batch, losses in seen:
        named = dict(zip(losses, rest, strict=False))
        if not all(map(math.isfinite, named.values())):
            with job.numbers.autocast():
                raise nonfinite.report(job.run.path, state.step + 1, state.model, batch, named)
        for name, value in named.items():
            means[name] = means.get(name, 0.0) + value / len(seen)
            state.sums[name] = state.sums.get(name, 0.0) + value
    return means


def _batches(job: _Job, state: State) -> Generator[Batch]:
    """The batches an epoch still owes. Starting workers draws from the global generators; nobody shall notice."""
    with undisturbed():
        batches = iter(job.loader.epoch(state.epoch, state.position))
        first = list(islice(batches, 1))
    try:
        yield from first
        yield from batches
    finally:
        if isinstance(batches, Generator):
            batches.close()


def _evaluate(job: _Job, state: State) -> dict[str, float]:
    """The metrics of now, and not a trace of having asked: generators and train/eval modes are as before."""
    if job.evaluator is None:
        return {}
    model = state.model
    for trick in job.tricks:
        model = trick.evaluate(model)
    modes = [(module, module.training) for module in model.modules()]
    try:
        with job.stop.at_once(), undisturbed(), torch.no_grad():
            return dict(job.evaluator(model.eval()))
    except Exception as error:
        if job.stop.requested is None or isinstance(error, Stopped):
            raise
        raise job.stop.exception("during evaluation") from error  # the signal has ended a worker before us
    finally:
        for module, mode in modes:
            module.training = mode


def _keep_best(job: _Job, state: State, metrics: Mapping[str, float], best: str) -> None:
    if best not in metrics:
        raise TorsoError(f"the best checkpoint is chosen by {best!r}, but the evaluator gives {', '.join(metrics)}")
    value = float(metrics[best])
    before = state.best["value"] if state.best else -math.inf
    if value > before:  # never for NaN
        state.best = {"metric": best, "value": value, "epoch": state.epoch + 1, "step": state.step}
        job.snapshots.mark_best()


@contextmanager
def _told(job: _Job, state: State) -> Iterator[None]:
    """Around the training: `state.json` says how it goes and how it ended, and the terminal is given back."""

    def tell(status: Status, error: str = "") -> None:
        job.run.set_state(status, epoch=state.epoch, step=state.step, best=state.best, error=error)

    tell("running")
    job.log.start(epochs=state.epochs, total_steps=state.total_steps, step=state.step)
    try:
        yield
        tell("done")
    except BaseException as error:
        with suppress(TorsoError):  # the disk may be the very reason
            tell("stopped" if isinstance(error, Stopped) else "failed", str(error))
        raise
    finally:
        job.log.stop()

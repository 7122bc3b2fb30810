"""Assignment and losses of dense detectors, forward and backward, on fixed outputs of the head, against their peers.

RetinaNet, FCOS and SSD against torchvision, whose numbers they equal; task-aligned assignment with binary cross
entropy, CIoU and distributions against Ultralytics' smallest model, which computes about the same. Pictures of 320x320.
torso's time includes decoding the boxes, which it does in forward. Beside time: calls of operators, and how often a
host would wait for a device; the most memory that a step holds.

``python benchmarks/criteria.py``; ``... criteria.py fcos`` one system, and then nothing is written.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from criteria_peers import BATCHES, BOXES, SYSTEMS, Case, objects
from measure import milliseconds, ratio, rounds, write
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from torso.structures import DenseOutput, Targets

ROUNDS = 7
COMPILED = {(2, 10), (2, 300), (8, 100)}  # a compilation each: half a minute
# What makes a host wait for a device: a number, or a size that depends on values.
SYNCS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique2", "_unique2"}


class Calls(TorchDispatchMode):
    """Counts calls of aten operators, and those among them for which a host waits for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.syncs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        self.names[name] += 1
        by_mask = name in {"index", "index_put", "index_put_"} and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.syncs += name in SYNCS or by_mask
        return func(*args, **(kwargs or {}))


def peak(task: Callable[[], object]) -> float:
    """The most MiB that a call has allocated at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        task()
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return round(most / 2**20, 1)


def cost(task: Callable[[], object]) -> dict[str, float]:
    """Calls, waits and memory of one step."""
    with Calls() as counted:
        task()
    return {"aten calls": counted.names.total(), "host syncs": counted.syncs, "peak MiB": peak(task)}


def tasks(case: Case, targets: Targets, there: Sequence[dict[str, Tensor]], *, compiled: bool) -> dict[str, Any]:
    """The same step by the peer and by torso."""
    leaves = case.leaves(len(targets.boxes))

    def ours(targets: Targets, *leaves: Tensor) -> Tensor:
        logits, deltas, *more = leaves
        boxes = case.criterion.coder.decode(deltas, case.priors, case.strides)
        extra = dict(zip(case.criterion.branches, more, strict=True))
        output = DenseOutput(
            logits, deltas, boxes, case.priors, case.counts, extra, case.strides, case.size, case.criterion.background
        )
        return torch.stack(list(case.criterion(output, targets).values())).sum()

    def whole(loss: Callable[..., Tensor], *arguments: Any) -> Callable[[], Tensor]:
        def run() -> Tensor:
            for leaf in leaves:
                leaf.grad = None
            value = loss(*arguments)
            value.backward()
            return value.detach()

        return run

    found = {"peer": whole(case.peer, there, leaves), "torso eager": whole(ours, targets, *leaves)}
    if compiled:
        found["torso compiled"] = whole(torch.compile(ours, fullgraph=True, dynamic=False), targets, *leaves)
    return found


def measured(case: Case, batch: int, count: int) -> dict[str, Any]:
    """One cell of the table."""
    there, targets = objects(batch, count, case.classes)
    several = tasks(case, targets, there, compiled=(batch, count) in COMPILED)
    values = [float(task()) for task in several.values()]
    if case.equal:  # the two compute one number
        torch.testing.assert_close(values[1:], [values[0]] * (len(values) - 1), rtol=1e-4, atol=0)
    seconds = rounds(several, ROUNDS, warm=2)
    return {
        "loss": {name: round(value, 5) for name, value in zip(several, values, strict=True)},
        "milliseconds": {name: milliseconds(each) for name, each in seconds.items()},
        "ratios": {name: ratio(seconds, name, "peer") for name in several if name != "peer"},
        "peer": cost(several["peer"]),
        "torso": cost(several["torso eager"]),
    }


def growth(cells: dict[str, Any]) -> dict[str, float]:
    """Time at 300 boxes over time at 10, two pictures."""
    ten, many = (cells[f"{BATCHES[0]} x {count}"]["milliseconds"] for count in (10, 300))
    return {name: round(many[name] / ten[name], 2) for name in ten}


def main() -> None:
    asked = sys.argv[1:] or list(SYSTEMS)
    results: dict[str, Any] = {}
    for name in asked:
        case = SYSTEMS[name]()
        cells = {}
        for batch in BATCHES:
            for count in BOXES:
                torch._dynamo.reset()
                cells[f"{batch} x {count}"] = cell = measured(case, batch, count)
                sys.stderr.write(f"{name} {batch} x {count}: {cell['milliseconds']} {cell['ratios']}\n")
        results[name] = {"peer": case.peer_name, "cells": cells, "growth from 10 to 300 boxes": growth(cells)}
    if len(asked) == len(SYSTEMS):
        write("criteria", rounds=ROUNDS, systems=results)


if __name__ == "__main__":
    main()

"""Where a training run stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from torso.train.schedules import Schedule


@dataclass
class State:
    """All that moves while a run trains; what a checkpoint holds besides the generators and the tricks."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    epochs: int
    batches: int  # micro-batches an epoch
    accumulate: int  # micro-batches an optimizer step
    epoch: int = 0  # the epoch under way, from 0
    position: int = 0  # micro-batches of it that are done
    step: int = 0  # optimizer steps done in all
    samples: int = 0  # pictures seen in all
    sums: dict[str, float] = field(default_factory=dict)  # losses of this epoch, summed over its micro-batches
    best: dict[str, Any] | None = None  # {"metric", "value", "epoch", "step"}

    def __post_init__(self) -> None:
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch; the last one may have fewer micro-batches."""
        return -(-self.batches // self.accumulate)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def set_rate(self) -> None:
        """Give the optimizer the rate of the step that comes now."""
        factor = self.schedule(self.step, self.steps_per_epoch, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    @property
    def rate(self) -> float:
        """The highest rate of all groups (a backbone may have a lower one)."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def progress(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        names = ("epochs", "batches", "accumulate", "epoch", "position", "step", "samples", "sums", "best")
        return {name: getattr(self, name) for name in names}

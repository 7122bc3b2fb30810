"""Schedules: pure functions of the optimizer step, so that a resumed run needs no state to go on exactly.

Contract of the role: `schedule(step, steps_per_epoch, total_steps) -> factor`, what the base rate is multiplied with at
optimizer step `step` (from 0). Every schedule can begin with a linear warm-up: the factor rises from
`warmup_factor` at step 0 to what the schedule says at step `warmup`. With accumulation a step is one of the
optimizer's, not a micro-batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right


class Schedule(ABC):
    """A curve with a linear warm-up before it or over it.

    Source: "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, arXiv:1706.02677
    """

    warmup: int
    warmup_factor: float

    def __call__(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """The factor of the base rate at one step."""
        rise = 1.0
        if step < self.warmup:
            rise = self.warmup_factor + (1 - self.warmup_factor) * step / self.warmup
        return rise * self.curve(step, steps_per_epoch, total_steps)

    @abstractmethod
    def curve(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """The factor without the warm-up."""

    def _rise(self, warmup: int, factor: float) -> None:
        if warmup < 0 or not 0 <= factor <= 1:
            raise ValueError(f"warmup is 0 or more steps from a factor in 0..1, not {warmup} steps from {factor}")
        self.warmup, self.warmup_factor = warmup, factor


class Constant(Schedule):
    """The base rate, from the first step to the last.

    Source: torch.optim.lr_scheduler.ConstantLR (factor 1).
    """

    def __init__(self, warmup: int = 0, warmup_factor: float = 0.001) -> None:
        self._rise(warmup, warmup_factor)

    def curve(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """1."""
        return 1.0


class Warmup(Schedule):
    """A linear warm-up over `warmup` steps, then the base rate: `constant` with a warm-up by default.

    Source: "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, arXiv:1706.02677
    """

    def __init__(self, warmup: int = 500, warmup_factor: float = 0.001) -> None:
        self._rise(warmup, warmup_factor)

    def curve(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """1."""
        return 1.0


class Step(Schedule):
    """The rate times `factor` after every `every` epochs.

    Source: torch.optim.lr_scheduler.StepLR.
    """

    def __init__(self, every: int = 30, factor: float = 0.1, warmup: int = 0, warmup_factor: float = 0.001) -> None:
        if every < 1:
            raise ValueError(f"every is a number of epochs from 1, not {every}")
        self.every, self.factor = every, factor
        self._rise(warmup, warmup_factor)

    def curve(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """One factor for each `every` epochs that have passed."""
        return self.factor ** (step // (self.every * steps_per_epoch))


class MultiStep(Schedule):
    """The rate times `factor` after each epoch of `milestones`, counted from the start of training, warm-up included.

    Source: torch.optim.lr_scheduler.MultiStepLR.
    """

    def __init__(
        self, milestones: list[int], factor: float = 0.1, warmup: int = 0, warmup_factor: float = 0.001
    ) -> None:
        if any(epoch < 1 for epoch in milestones):
            raise ValueError(f"milestones are epochs from 1, not {milestones}")
        self.milestones, self.factor = sorted(milestones), factor
        self._rise(warmup, warmup_factor)

    def curve(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """One factor for each milestone that has passed."""
        return self.factor ** bisect_right(self.milestones, step // steps_per_epoch)


class Cosine(Schedule):
    """Half a cosine from the base rate at the end of the warm-up to `final` of it at the end of training.

    The cosine starts where the warm-up ends (as torch's SequentialLR and timm have it), not at step 0.

    Source: "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv:1608.03983
    """

    def __init__(self, final: float = 0.0, warmup: int = 0, warmup_factor: float = 0.001) -> None:
        if not 0 <= final <= 1:
            raise ValueError(f"final is a part of the base rate in 0..1, not {final}")
        self.final = final
        self._rise(warmup, warmup_factor)

    def curve(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """1 during the warm-up, `final` at `total_steps`."""
        length = max(total_steps - self.warmup, 1)
        done = min(max(step - self.warmup, 0) / length, 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


SCHEDULES = {"constant": Constant, "warmup": Warmup, "step": Step, "multistep": MultiStep, "cosine": Cosine}

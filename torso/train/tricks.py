"""Tricks: small objects that the training loop calls at a few named moments.

Contract of the role: a trick overrides only the moments it needs. `state_dict` may hold tensors and JSON values; it
goes into every checkpoint under the trick's `name` and must be enough to go on exactly.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from torso.config import Role
from torso.structures import Batch
from torso.train.state import State


class Trick:
    """The moments; each does nothing until a trick says otherwise."""

    name = ""

    def start(self, state: State) -> None:
        """Once, before the first step, with the model on its device; a resume loads the trick's state afterwards."""

    def batch(self, batch: Batch, epoch: int) -> Batch:
        """A training batch has come to the device; what is returned is learned from."""
        return batch

    def gradients(self, model: nn.Module) -> None:
        """All gradients of a step are there, the optimizer has not moved yet."""

    def stepped(self, model: nn.Module, step: int) -> None:
        """The optimizer has moved; `step` steps are done."""

    def evaluate(self, model: nn.Module) -> nn.Module:
        """The model that is evaluated and shipped."""
        return model

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs: tensors and JSON values by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class Augment(Trick):
    """Changes training batches on the device: torchvision's transforms where the processor has no time for them.

    Args:
        transform: called with a batch and the epoch, such as ``on_device``; its draws have to be a pure function of
            the two, or a resumed run goes another way.

    Source: own design; torchvision v2.
    """

    name = "augment"

    def __init__(self, transform: Annotated[nn.Module, Role("transform")]) -> None:
        if not isinstance(transform, nn.Module):
            raise ValueError(f"augment needs a layer such as on_device, got {type(transform).__name__}")
        self.transform = transform

    def batch(self, batch: Batch, epoch: int) -> Batch:
        """The batch after the transform."""
        changed: Batch = self.transform(batch, epoch)
        return changed


class ClipGradients(Trick):
    """Scale all gradients down together when their common L2 norm is over `norm`.

    Source: "On the difficulty of training Recurrent Neural Networks", 2012, arXiv:1211.5063
    """

    name = "clip_gradients"

    def __init__(self, norm: float = 10.0) -> None:
        if not norm > 0:
            raise ValueError(f"norm is over 0, not {norm}")
        self.norm = norm

    def gradients(self, model: nn.Module) -> None:
        """Clip in place."""
        nn.utils.clip_grad_norm_(model.parameters(), self.norm)


class EMA(Trick):
    """Evaluate and ship a running mean of the weights: ``mean += (1 - d) * (weights - mean)`` after every step.

    The decay ``d = decay * (1 - exp(-n / tau))`` at the n-th update rises from 0, so that the random weights of the
    start are soon forgotten; ``tau = 0`` is the plain mean with a constant decay. timm warms up by another formula, so
    equal numbers need both warm-ups off. Buffers (running means of batch norm) are copied, not averaged.

    Args:
        decay: the final decay, in 0..1; about 1 / (1 - decay) steps are averaged.
        tau: updates after which the decay has reached 63 % of its final value.

    Source: "Acceleration of stochastic approximation by averaging", 1992; form of the warm-up as in YOLOv5, 2020.
    """

    name = "ema"

    def __init__(self, decay: float = 0.9998, tau: float = 2000.0) -> None:
        if not 0 <= decay <= 1 or tau < 0:
            raise ValueError(f"decay is in 0..1 and tau 0 or more, not {decay} and {tau}")
        self.decay = decay
        self.tau = tau
        self.updates = 0
        self._mean: nn.Module | None = None

    @property
    def mean(self) -> nn.Module:
        """The averaged model, in eval mode."""
        if self._mean is None:
            raise RuntimeError("EMA has not started: call start(state) first")
        return self._mean

    def start(self, state: State) -> None:
        """Copy the model."""
        self._mean = copy.deepcopy(state.model).eval().requires_grad_(False)
        self.updates = 0

    @torch.no_grad()
    def stepped(self, model: nn.Module, step: int) -> None:
        """Move the mean."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.tau)) if self.tau else self.decay
        torch._foreach_lerp_([*self.mean.parameters()], [*model.parameters()], 1 - decay)
        for mean, buffer in zip(self.mean.buffers(), model.buffers(), strict=True):
            mean.copy_(buffer)

    def evaluate(self, model: nn.Module) -> nn.Module:
        """The mean."""
        return self.mean

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of updates."""
        return {**self.mean.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a mean."""
        self.updates = int(state["updates"])
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        self.mean.load_state_dict(tensors)


class ScheduleArgument(Trick):
    """Move an argument of some layers linearly while the model learns: DropBlock's ``p`` from 0 to its target.

    After step ``n`` of ``N`` the argument is ``start + (end - start) * (n / N - begin) / (until - begin)``, held before
    `begin` and after `until`.

    Args:
        layers: pattern of the layers' names, with ``*`` for anything: ``backbone.*``.
        argument: the layers' attribute, a number; layers of these names without it are left alone.
        start: its first value.
        end: its last value; what each layer was made with if left out.
        begin: share of the run after which it starts to move, 0..1.
        until: share of the run after which it rests, 0..1, over `begin`.

    Raises:
        ValueError: wrong shares; at the start, no layer that fits.

    Source: DropBlock: A regularization method for convolutional networks, 2018, arXiv:1810.12890
    """

    name = "schedule_argument"

    def __init__(
        self,
        layers: str = "*",
        argument: str = "p",
        start: float = 0.0,
        end: float | None = None,
        begin: float = 0.0,
        until: float = 1.0,
    ) -> None:
        if not 0 <= begin < until <= 1:
            raise ValueError(f"0 <= begin < until <= 1 are shares of the run, not {begin} and {until}")
        self.layers, self.argument = layers, argument
        self.first, self.end, self.begin, self.until = start, end, begin, until
        self._ends: dict[str, float] = {}
        self._share = 0.0
        self._model: nn.Module | None = None
        self._steps = 1

    def start(self, state: State) -> None:
        """Find the layers and give them the first value."""
        self._model, self._steps, self._share = state.model, state.total_steps, 0.0
        self._ends = {}
        for name, layer in state.model.named_modules():
            own = getattr(layer, self.argument, None)
            if fnmatchcase(name, self.layers) and isinstance(own, int | float) and not isinstance(own, bool):
                self._ends[name] = own if self.end is None else self.end
        if not self._ends:
            raise ValueError(f"no layer called {self.layers!r} has a number {self.argument!r} to schedule")
        self._give(state.model)

    def stepped(self, model: nn.Module, step: int) -> None:
        """The value of the next step."""
        self._share = min(max((step / self._steps - self.begin) / (self.until - self.begin), 0.0), 1.0)
        self._give(model)

    def evaluate(self, model: nn.Module) -> nn.Module:
        """The same values for a copy of the model, such as EMA's."""
        self._give(model)
        return model

    def state_dict(self) -> dict[str, Any]:
        """How far it is, and each layer's last value."""
        return {"share": self._share, "ends": dict(self._ends)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._share, self._ends = float(state["share"]), dict(state["ends"])
        if self._model is not None:
            self._give(self._model)

    def _give(self, model: nn.Module) -> None:
        for name, end in self._ends.items():
            value = end if self._share == 1 else self.first + (end - self.first) * self._share
            setattr(model.get_submodule(name), self.argument, value)


TRICKS = {"augment": Augment, "clip_gradients": ClipGradients, "ema": EMA, "schedule_argument": ScheduleArgument}

"""Tricks: small objects that the training loop calls at a few named moments.

Contract of the role: a trick overrides only the moments it needs. `state_dict` may hold tensors and JSON values; it
goes into every checkpoint under the trick's `name` and must be enough to go on exactly.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torso.train.state import State


class Trick:
    """The moments; each does nothing until a trick says otherwise."""

    name = ""

    def start(self, state: State) -> None:
        """Once, before the first step, with the model on its device; a resume loads the trick's state afterwards."""

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


TRICKS = {"clip_gradients": ClipGradients, "ema": EMA}

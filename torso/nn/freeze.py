"""Keep parts of a network as they are while the rest learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from torso.config import ModelError, suggestion


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Freeze the parameters whose names fit, and everything that moves without them.

    A module whose parameters are all frozen stays in evaluation mode, whatever ``train()`` says, until `unfreeze`: its
    norms keep their statistics, its dropout lets everything pass. Frozen parameters never reach the optimizer
    (`torso.train.optim.groups`): make it afterwards.

    >>> from torch import nn
    >>> net = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "head": nn.Linear(2, 1)})
    >>> freeze(net, ["backbone", "!backbone.1.*"])
    ['backbone.0.weight', 'backbone.0.bias']

    Args:
        model: changed in place.
        patterns: names of parameters, ``*`` for anything, or of modules (``backbone.body.layer1``: all in it). ``!``
            before a pattern takes parameters out again; the last pattern that fits a name decides.

    Returns:
        the names of all parameters that do not learn now, those that were frozen before included.

    Raises:
        ModelError: a pattern that fits nothing.

    Source: timm.utils.freeze; parameters without gradient as in torch.nn.Module.requires_grad_
    """
    names = [name for name, _ in model.named_parameters()]
    chosen = _chosen(names, patterns)
    for name, parameter in model.named_parameters():
        if name in chosen:
            parameter.requires_grad_(False)
    for module in _frozen(model):
        _rest(module)
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def unfreeze(model: nn.Module, patterns: Sequence[str] = ("*",)) -> list[str]:
    """Let parameters learn again, and the modules around them follow the mode of ``model``.

    Args:
        model: changed in place.
        patterns: as for `freeze`.

    Returns:
        the names of the parameters that learn again.

    Raises:
        ModelError: a pattern that fits nothing.

    Source: timm.utils.unfreeze
    """
    chosen = _chosen([name for name, _ in model.named_parameters()], patterns)
    woken = []
    for name, parameter in model.named_parameters():
        if name in chosen and not parameter.requires_grad:
            parameter.requires_grad_(True)
            woken.append(name)
    for module in model.modules():
        if isinstance(module, _Resting):
            _wake(module)
    frozen = list(_frozen(model))
    for module in frozen:
        _rest(module)
    model.train(model.training)
    return woken


def linear_probe(model: nn.Module) -> list[str]:
    """Freeze all but the head: what it learns then says how good the features are.

    Args:
        model: a model with a ``head``.

    Returns:
        the names of the parameters that do not learn.

    Raises:
        ModelError: the model has no head.

    Source: Understanding intermediate layers using linear classifier probes, 2016, arXiv:1610.01644
    """
    if not any(name.startswith("head.") for name, _ in model.named_parameters()):
        raise ModelError(f"a linear probe trains the head, and {type(model).__name__} has none")
    return freeze(model, ("*", "!head.*"))


def _chosen(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    chosen: set[str] = set()
    for pattern in patterns:
        word = pattern.removeprefix("!")
        fitting = {name for name in names if fnmatchcase(name, word) or fnmatchcase(name, f"{word}.*")}
        if not fitting:
            tops = dict.fromkeys(name.partition(".")[0] + ".*" for name in names)
            raise ModelError(f"no parameter is called {word!r}{suggestion(word, tops, 'the model has')}")
        chosen = chosen - fitting if pattern.startswith("!") else chosen | fitting
    return chosen


def _frozen(module: nn.Module) -> Iterator[nn.Module]:
    """The topmost modules that have parameters, none of which learns."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield module
    elif parameters:
        for child in module.children():
            yield from _frozen(child)


class _Resting:
    """Mixed into the class of a frozen module, the way torch's own parametrizations change one.

    The state dict, copies and ``isinstance`` stay as they were.
    """

    awake: type[nn.Module]

    def train(self, mode: bool = True) -> Any:
        """Always evaluation mode."""
        return super().train(False)  # type: ignore[misc]


def _rest(module: nn.Module) -> None:
    if not isinstance(module, _Resting):
        awake = type(module)
        module.__class__ = type(awake.__name__, (_Resting, awake), {"awake": awake, "__module__": awake.__module__})
    module.eval()


def _wake(module: _Resting) -> None:
    module.__class__ = module.awake  # type: ignore[assignment]

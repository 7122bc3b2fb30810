"""Optimizers, the groups their parameters fall into, and their state by the names of the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from torso.config import ModelError

OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    *,
    backbone_factor: float = 1.0,
    decay_norm_bias: bool = False,
    slow: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """What to hand to an optimizer: up to four groups, {backbone and slow, rest} x {decayed, not decayed}.

    Frozen parameters are left out. Parameters of norms, biases and all others of one dimension are not decayed unless
    `decay_norm_bias`. Each group says the names of its parameters in `param_names`.

    Args:
        model: its backbone is what lies under `backbone.`.
        lr: rate at factor 1 of the schedule.
        weight_decay: of the decayed groups.
        backbone_factor: the backbone's rate as a part of `lr`; 0 is not "frozen", use `frozen_stages` for that.
        decay_norm_bias: decay everything.
        slow: patterns of names that learn as the backbone does; one that fits none is no error, for another part may
            have no such layers.

    Raises:
        ModelError: when nothing is left to train.

    Source: "Bag of Tricks for Image Classification with Convolutional Neural Networks", 2018, arXiv:1812.01187
    """
    of_norms = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(False)}
    sorted_out: dict[tuple[bool, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim <= 1 or name.endswith(".bias") or id(parameter) in of_norms
            named_slow = any(fnmatchcase(name, word) or fnmatchcase(name, f"{word}.*") for word in slow)
            key = (named_slow or name.startswith("backbone."), decay_norm_bias or not plain)
            sorted_out.setdefault(key, []).append((name, parameter))
    if not sorted_out:
        raise ModelError("the model has no parameter that can be trained: all are frozen")
    return [
        {
            "params": named,
            "lr": lr * (backbone_factor if slower else 1.0),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (slower, decayed), named in sorted(sorted_out.items(), reverse=True)
    ]


def pack(optimizer: torch.optim.Optimizer, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state by parameter name: tensors called `name|key` for safetensors, everything else for JSON."""
    packed = optimizer.state_dict()
    names = _names(optimizer, model)
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for place, state in packed["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{names[place]}|{key}"] = value
            else:
                scalars.setdefault(names[place], {})[key] = value
    options = [
        {key: value for key, value in group.items() if key not in ("params", "param_names")}
        | {"names": [names[place] for place in group["params"]]}
        for group in packed["param_groups"]
    ]
    options = [{k: float(v) if isinstance(v, Tensor) else v for k, v in group.items()} for group in options]
    return tensors, {"kind": type(optimizer).__name__, "groups": options, "scalars": scalars}


def unpack(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Give an optimizer the state that `pack` took.

    Raises:
        ModelError: when it is another kind of optimizer, or its groups hold other parameters.
    """
    if rest["kind"] != type(optimizer).__name__:
        raise ModelError(f"the checkpoint was trained with {rest['kind']}, the recipe says {type(optimizer).__name__}")
    names = _names(optimizer, model)
    packed = optimizer.state_dict()
    for number, (group, stored) in enumerate(zip(packed["param_groups"], rest["groups"], strict=False)):
        here = [names[place] for place in group["params"]]
        if here != stored["names"]:
            different = sorted(set(here) ^ set(stored["names"])) or ["the same ones in another order"]
            raise ModelError(f"optimizer group {number} of the checkpoint holds other parameters: {different[:5]}")
        for key, value in stored.items():
            if key in group and not isinstance(group[key], Tensor):
                group[key] = tuple(value) if isinstance(group[key], tuple) else value
    if len(packed["param_groups"]) != len(rest["groups"]):
        raise ModelError(f"the checkpoint has {len(rest['groups'])} groups, here are {len(packed['param_groups'])}")
    places = {name: place for place, name in enumerate(names)}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {places[name]: dict(values) for name, values in rest["scalars"].items()}
    for name, tensor in tensors.items():
        parameter_name, _, key = name.rpartition("|")
        place = places[parameter_name]
        state.setdefault(place, {})[key] = _laid_out_like(parameters[place], tensor)
    optimizer.load_state_dict({"state": state, "param_groups": packed["param_groups"]})


def _laid_out_like(parameter: Tensor, stored: Tensor) -> Tensor:
    """The stored tensor in the memory format of its parameter (files are row-major, kernels channels-last)."""
    if stored.shape != parameter.shape:
        return stored.clone()
    return torch.empty_like(parameter, dtype=stored.dtype, device="cpu").copy_(stored)


def _names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """The name of each parameter in the order in which the optimizer counts them."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    try:
        return [known[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    except KeyError:
        raise ModelError("the optimizer holds a parameter that is not the model's; build it after the model") from None

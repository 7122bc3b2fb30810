"""A loss that is not a number any more: stop before it reaches a weight, and leave what is needed to see why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from torso.config import TorsoError
from torso.structures import Batch


class NonFiniteError(TorsoError):
    """A loss, or a weight, is NaN or infinite. Nothing of it was saved: the last checkpoint is a good one."""


def report(folder: Path, step: int, model: nn.Module, batch: Batch, losses: Mapping[str, float]) -> NonFiniteError:
    """Write `nan-<step>/` with the batch, the weights and what is known; return the error to raise.

    The weights are those before the step, so `model.losses(batch)` shows the same again.
    """
    place = folder / f"nan-{step}"
    rows = batch.index.tolist()
    info: dict[str, Any] = {
        "step": step,
        "images": rows,
        "losses": {name: repr(value) for name, value in losses.items()},
        "first_module": first_module(model, batch),
    }
    try:
        place.mkdir(exist_ok=True)
        (place / "info.json").write_text(json.dumps(info, indent=1), encoding="utf-8")
        save_file(_tensors(batch), place / "batch.safetensors")
        save_file(
            {k: v.detach().cpu().clone().contiguous() for k, v in model.state_dict().items()},
            place / "model.safetensors",
        )
    except OSError as error:
        info["not_written"] = str(error)
    bad = ", ".join(f"{name} = {value}" for name, value in losses.items() if value - value != 0)
    where = f" The first module to give such a number is {info['first_module']}." if info["first_module"] else ""
    return NonFiniteError(
        f"the loss is not finite at step {step}: {bad}, on images {rows} of the index.{where} Batch and weights "
        f"are in {place}. Look at these images; then lower the rate, warm up longer, clip gradients or try fp32"
    )


def check_weights(model: nn.Module, step: int) -> None:
    """Refuse weights that are not finite, so that no checkpoint ever holds one.

    Raises:
        NonFiniteError: naming them.
    """
    statistics = [
        (name, value) for name, value in model.named_buffers() if name.endswith(("running_mean", "running_var"))
    ]
    named = chain(model.named_parameters(), statistics)  # other buffers may hold -inf on purpose (attention masks)
    bad = [name for name, value in named if not bool(torch.isfinite(value).all())]
    if bad:
        raise NonFiniteError(
            f"weights are not finite after step {step}: {', '.join(bad[:5])} ({len(bad)} in all); they are not saved. "
            "Lower the rate, clip gradients, or use precision fp32"
        )


@torch.no_grad()
def first_module(model: nn.Module, batch: Batch) -> str | None:
    """The first module whose output holds a number that is not finite when the batch is run once more."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and any(not bool(torch.isfinite(tensor).all()) for tensor in _flat(output)):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        model.losses(batch)  # type: ignore[operator]
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for inner in value for tensor in _flat(inner)] if isinstance(value, list | tuple) else []


def _tensors(batch: Batch) -> dict[str, Tensor]:
    targets = {f"targets.{k}": v for k, v in vars(batch.targets).items() if isinstance(v, Tensor)}
    rest = {k: v for k, v in vars(batch).items() if isinstance(v, Tensor)}
    return {name: value.detach().cpu().contiguous() for name, value in (targets | rest).items()}

"""Replace the norms of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torso.config import ModelError, suggestion
from torso.nn.frozen import Frozen
from torso.nn.norms import NORMS, FilterResponse, Layer

_MAPS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.InstanceNorm2d, Frozen, Layer, FilterResponse)
_BY_NAME = frozenset({"FrozenBatchNorm2d", "LayerNorm2d"})  # torchvision's and timm's, without importing them


@dataclass(frozen=True)
class Swap:
    """One norm that was replaced."""

    name: str  # backbone.stages.0.0.1
    before: str  # BatchNorm2d
    after: str  # GroupNorm
    kept: tuple[str, ...]  # weight, bias: tensors with the values they had
    new: tuple[str, ...]  # tensors that begin anew, of the new norm
    dropped: tuple[str, ...]  # tensors of the old norm that have no place


def swap_norm(
    model: nn.Module,
    norm: str | Callable[[int], nn.Module],
    *,
    only: Callable[[str, nn.Module], bool] | None = None,
) -> list[Swap]:
    """Replace, in place, every norm over maps ``[B, C, H, W]`` below ``model``.

    Weight, bias and running statistics go over where the new norm has a tensor of that name and shape; so do device,
    dtype, mode (train or eval) and whether weight and bias learn. An activation inside a norm (timm's
    ``BatchNormAct2d``) is kept behind the new one. ``nn.LayerNorm`` over tokens is left alone.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32))
    >>> print(table(swap_norm(net, "group")))
    name  before       after  kept          new  dropped
    1     BatchNorm2d  Group  weight, bias  -    running_mean, running_var, num_batches_tracked

    Args:
        model: changed; make its optimizer afterwards.
        norm: a name of ``torso parts norm``, or what makes a norm for a number of channels.
        only: called with name and norm, says whether that one is replaced.

    Returns:
        what was replaced, in the order of ``model.named_modules()``.

    Raises:
        ModelError: no norm of that name; or the model is itself a norm, which cannot be replaced in place.
    """
    if isinstance(norm, str) and norm not in NORMS:
        raise ModelError(f"no norm is called {norm!r}{suggestion(norm, NORMS)}")
    make = NORMS[norm] if isinstance(norm, str) else norm
    if is_norm(model):
        raise ModelError(f"a {type(model).__name__} cannot be replaced in place: give what holds it")
    made: dict[int, nn.Module] = {}  # a norm that is used twice stays one norm
    swaps = []
    for name, old in list(model.named_modules(remove_duplicate=False)):
        if not is_norm(old) or (only is not None and not only(name, old)):
            continue
        if id(old) not in made:
            new = make(channels_of(old)).train(old.training)
            swaps.append(_carry_over(name, old, new))
            made[id(old)] = _with_activation(old, new)
        parent, _, key = name.rpartition(".")
        setattr(model.get_submodule(parent), key, made[id(old)])
    return swaps


def is_norm(module: nn.Module) -> bool:
    """Whether it normalises maps ``[B, C, H, W]``."""
    return isinstance(module, _MAPS) or type(module).__name__ in _BY_NAME


def channels_of(norm: nn.Module) -> int:
    """Channels a norm was made for.

    Raises:
        ModelError: it does not say.
    """
    for attribute in ("num_features", "num_channels"):
        if isinstance(channels := getattr(norm, attribute, None), int):
            return channels
    if isinstance(weight := getattr(norm, "weight", None), Tensor):
        return weight.shape[0]
    raise ModelError(f"{type(norm).__name__} does not say how many channels it has")


def table(swaps: Sequence[Swap]) -> str:
    """What was replaced, as text: a line a norm."""
    head = ("name", "before", "after", "kept", "new", "dropped")
    rows = [
        head,
        *(
            (s.name, s.before, s.after, *(", ".join(names) or "-" for names in (s.kept, s.new, s.dropped)))
            for s in swaps
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


@torch.no_grad()
def _carry_over(name: str, old: nn.Module, new: nn.Module) -> Swap:
    before, after = _tensors(old), _tensors(new)
    like = next((x for x in before.values() if x.is_floating_point()), None)
    if like is not None:
        new.to(device=like.device, dtype=like.dtype)
        after = _tensors(new)
    kept = []
    for key, tensor in after.items():
        source = before.get(key)
        if source is None or source.shape != tensor.shape:
            continue
        tensor.copy_(source)
        kept.append(key)
        if isinstance(tensor, nn.Parameter) and isinstance(source, nn.Parameter):
            tensor.requires_grad_(source.requires_grad)
    return Swap(
        name,
        type(old).__name__,
        type(new).__name__,
        tuple(kept),
        tuple(key for key in after if key not in kept),
        tuple(key for key in before if key not in kept),
    )


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _with_activation(old: nn.Module, new: nn.Module) -> nn.Module:
    inside = [layer for key in ("drop", "act") if isinstance(layer := getattr(old, key, None), nn.Module)]
    inside = [layer for layer in inside if not isinstance(layer, nn.Identity)]
    return nn.Sequential(new, *inside) if inside else new

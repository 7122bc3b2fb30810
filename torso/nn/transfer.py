"""Weights of one network for another: by name and shape, with a table of what was loaded and what was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torso.config import ModelError, suggestion
from torso.nn.match import COUNTER, Dialect, Match, State, in_order, match_names
from torso.weights import safe_load

Status = Literal["loaded", "re-initialised", "missing", "unexpected"]
STATUSES: tuple[Status, ...] = ("loaded", "re-initialised", "missing", "unexpected")


@dataclass(frozen=True)
class Row:
    """What happened to one tensor.

    ``re-initialised``: the file has it in another shape, or it was dropped; ``missing``: the file has none, so that it
    stays as it was; ``unexpected``: only the file has it.
    """

    status: Status
    name: str  # in the module; of an unexpected one, in the file
    here: tuple[int, ...] | None  # shape in the module
    there: tuple[int, ...] | None  # shape in the file
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What `load_weights` did, a row a tensor."""

    source: str
    rows: tuple[Row, ...]

    def names(self, status: Status) -> list[str]:
        """The tensors of one status, in their order."""
        return [row.name for row in self.rows if row.status == status]

    @property
    def share(self) -> float:
        """How much of what was asked for was loaded, by tensors, 0..1; those that were dropped do not count."""
        mine = [r for r in self.rows if r.status != "unexpected" and not r.note and not r.name.endswith(COUNTER)]
        return sum(row.status == "loaded" for row in mine) / len(mine) if mine else 0.0

    def table(self, limit: int = 8) -> str:
        """As text: a line that counts, then at most ``limit`` lines a status."""
        total = sum(row.status != "unexpected" for row in self.rows)
        counts = [f"{count} {status}" for status in STATUSES if (count := len(self.names(status)))]
        lines = [f"{total} tensors: {', '.join(counts)}"]
        shown = [row for status in STATUSES for row in [r for r in self.rows if r.status == status][:limit]]
        width = max((len(row.name) for row in shown), default=0)
        for status in STATUSES:
            lines += [f"{status:14}  {row.name:{width}}  {_shapes(row)}" for row in shown if row.status == status]
            if (more := len(self.names(status)) - limit) > 0:
                lines.append(f"{status:14}  and {more} more")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, every tensor by name."""
        return {"source": self.source, "share": self.share} | {status: self.names(status) for status in STATUSES}


def load_weights(
    module: nn.Module,
    weights: Mapping[str, Tensor] | str | Path,
    *,
    prefix: str | None = None,
    drop: Sequence[str] = (),
    match: Literal["name", "shape"] = "name",
    rename: Mapping[str, str] | None = None,
    dialect: Dialect | None = None,
    minimum: float = 0.5,
) -> Report:
    """Give a network those tensors of a file that fit: equal in name and in shape.

    A tensor whose shape differs (the classifier of another number of classes) stays as it is, and the report says so.
    Equal numbers of elements are not enough: a ``[64, 32]`` and a ``[32, 64]`` are different layers. Wrappers around
    either network (``module.``, ``model.``, ``backbone.body.``) are found by the names.

    >>> from torch import nn
    >>> old, new = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 9)), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    >>> print(load_weights(new, old.state_dict()).table())
    4 tensors: 2 loaded, 2 re-initialised
    loaded          0.weight  [4, 4]
    loaded          0.bias    [4]
    re-initialised  1.weight  [2, 4] here, [9, 4] in the file
    re-initialised  1.bias    [2] here, [9] in the file

    Args:
        module: changed in place; not at all where an error is raised.
        weights: a state dict, a file (see `torso.weights.safe_load`), or the folder of a run that is done.
        prefix: take only names in the file that begin so, without it; ``None`` finds it out, ``""`` takes names as they
            are.
        drop: patterns (``fc.*``) of names in the file that are left out.
        match: ``name``; or ``shape`` for a network that was renamed: the k-th tensor of the file is the k-th of the
            module, from the first on as long as their kind (the last word of the name) and shape are equal.
        rename: beginnings of names in the file, and what they are called in the module.
        dialect: what brings the names of several libraries to one form (`torso.backbones.names.timm_names`); both sides
            go through it.
        minimum: least share of the module's tensors, those dropped aside, that must be loaded, 0..1.

    Returns:
        what happened to each tensor.

    Raises:
        ModelError: fewer tensors fit than ``minimum``; a value that is not finite; a pattern or a beginning that fits
            no name; a file that cannot be read.
        ValueError: a ``minimum`` that is no share, another word for ``match``.

    Source: torch.nn.Module.load_state_dict(strict=False)
    """
    if not 0 <= minimum <= 1 or match not in ("name", "shape"):
        raise ValueError(f"minimum is a share, 0..1, and match is name or shape, not {minimum} and {match!r}")
    source = "a state dict" if isinstance(weights, Mapping) else str(weights)
    state = dict(weights) if isinstance(weights, Mapping) else safe_load(weights)
    dropped = {name for pattern in drop for name in _fitting(pattern, state, source)}
    wanted = {name: x for name, x in module.state_dict().items() if isinstance(x, Tensor)}
    original = _renamed(state, rename or {}, source)
    named = {name: state[old] for name, old in original.items() if match == "name" or old not in dropped}
    found = match_names(wanted, named, prefix, dialect) if match == "name" else in_order(wanted, named)
    matches = {name: Match(original[other], fits) for name, (other, fits) in found.items()}
    report = _report(source, wanted, state, matches, dropped)
    if report.share < minimum:
        raise ModelError(_too_few(report, minimum))
    taken = {name: state[matches[name].name] for name in report.names("loaded")}
    _check_finite(taken, source)
    module.load_state_dict({name: x.reshape(wanted[name].shape) for name, x in taken.items()}, strict=False)
    return report


def _report(source: str, wanted: State, state: State, matches: Mapping[str, Match], dropped: set[str]) -> Report:
    rows = []
    for name, tensor in wanted.items():
        here = tuple(tensor.shape)
        if name not in matches:
            if not name.endswith(COUNTER):
                rows.append(Row("missing", name, here, None))
            continue
        other, fits = matches[name]
        there = tuple(state[other].shape)
        if other in dropped:
            rows.append(Row("re-initialised", name, here, there, "dropped"))
        else:
            rows.append(Row("loaded" if fits else "re-initialised", name, here, there))
    used = {match.name for match in matches.values()} | dropped
    rows += [Row("unexpected", name, None, tuple(x.shape)) for name, x in state.items() if name not in used]
    return Report(source, tuple(rows))


def _too_few(report: Report, minimum: float) -> str:
    parts = [f"only {report.share:.0%} of the tensors could be loaded from {report.source}, {minimum:.0%} are needed"]
    parts += [
        f"{status} are {len(names)}: {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
        for status in STATUSES[1:]
        if (names := report.names(status))
    ]
    return (
        "; ".join(parts)
        + ". It is another network, or its layers have other names (rename=), or ask for less (minimum)"
    )


def _fitting(pattern: str, state: Mapping[str, Tensor], source: str) -> list[str]:
    found = [name for name in state if fnmatchcase(name, pattern)]
    if not found:
        raise ModelError(f"no tensor in {source} is called {pattern!r}, which was to be left out{_first(state)}")
    return found


def _renamed(state: Mapping[str, Tensor], rename: Mapping[str, str], source: str) -> dict[str, str]:
    """What every tensor is called after ``rename``, and what it was called."""
    for start in rename:
        if not any(name.startswith(start) for name in state):
            raise ModelError(f"no tensor in {source} begins with {start!r}, which was to be renamed{_first(state)}")
    original: dict[str, str] = {}
    for name in state:
        start = max((s for s in rename if name.startswith(s)), key=len, default="")
        new = rename.get(start, "") + name[len(start) :]
        if new in original:
            raise ModelError(f"{source}: after renaming, {original[new]} and {name} are both called {new}")
        original[new] = name
    return original


def _first(state: Mapping[str, Tensor]) -> str:
    tops = dict.fromkeys(name.partition(".")[0] + ".*" for name in state)
    return suggestion("", tops, "it holds")


def _check_finite(taken: Mapping[str, Tensor], source: str) -> None:
    for name, tensor in taken.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{source} holds values in {name} that are not finite: it was saved from a broken run")


def _shapes(row: Row) -> str:
    if row.note:
        return f"{list(row.here or ())} {row.note}"
    if row.here is not None and row.there is not None and row.here != row.there:
        return f"{list(row.here)} here, {list(row.there)} in the file"
    return str(list(row.here or row.there or ()))

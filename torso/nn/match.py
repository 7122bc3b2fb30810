"""Which tensor of one state dict is which of another: by their names, or by their order and shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from torso.config import ModelError

State = dict[str, Tensor]
Dialect = Callable[[Mapping[str, Tensor]], State]
"""Brings the names of several libraries to one form: the same tensors, in the same order, under other names.

It may also flatten a kernel that another library writes as a matrix.
"""

COUNTER = "num_batches_tracked"
"""What a batch norm counts; files of torch before 0.4.1 lack it, and nothing depends on it."""


class Match(NamedTuple):
    """The tensor of a file that has the name of one of the module's."""

    name: str
    fits: bool  # its shape is equal too


def match_names(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], prefix: str | None = None, dialect: Dialect | None = None
) -> dict[str, Match]:
    """Names of ``wanted`` to those of ``state`` that mean the same tensor; names without a counterpart are left out.

    What all names of a wrapped network begin with (``module.``, ``model.``, ``backbone.body.``) does not count, on
    either side: of all such beginnings those are taken with which the most tensors fit. Neither does it matter whether
    children are joined with a dot or, as in timm's pyramids, with an underscore. A network beside a wrapped copy of it
    (a mean of its weights) is the network.

    Args:
        wanted: the state dict of a module.
        state: that of a file.
        prefix: take only names of ``state`` that begin so, without it; ``None`` finds it out.
        dialect: what both sides are brought to.

    Raises:
        ModelError: two networks in the file, or in the module, fit equally well.
    """
    starts = _beginnings(state) if prefix is None else [prefix]
    there = [(start, _side(state, start, dialect)) for start in starts]
    best, score, origin = dict[str, Match](), (-1, -1), ("", "")
    rival: tuple[str, str] | None = None
    for inside in _beginnings(wanted):
        here = _side(wanted, inside, dialect)
        for around, side in there:
            found = _pairs(here, side)
            fitting = (sum(match.fits for match in found.values()), len(found))
            if fitting > score:  # of equals the first: the shorter beginning
                best, score, origin, rival = found, fitting, (inside, around), None
            elif fitting == score and found != best and _depths(inside, around) == _depths(*origin):
                rival = (inside, around)
    if rival and 2 * score[0] >= len(wanted):
        place = int(rival[1] != origin[1])
        whose = ("the module", "the file")[place]
        raise ModelError(
            f"{whose} holds two such networks, {origin[place]}* and {rival[place]}*: say which one is meant"
        )
    return best


def in_order(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Match]:
    """The k-th tensor of ``wanted`` is the k-th of ``state``, up to the first that differs in kind or shape."""
    found: dict[str, Match] = {}
    ours, theirs = ([(n, x) for n, x in side.items() if not n.endswith(COUNTER)] for side in (wanted, state))
    for (name, here), (other, there) in zip(ours, theirs, strict=False):
        if name.rpartition(".")[2] != other.rpartition(".")[2] or here.shape != there.shape:
            break
        found[name] = Match(other, True)
    return found


def _depths(inside: str, around: str) -> tuple[int, int]:
    return inside.count("."), around.count(".")


class _Named(NamedTuple):
    name: str  # as it stands in the state dict
    tensor: Tensor  # as the dialect writes it


def _beginnings(names: Iterable[str]) -> list[str]:
    """The empty one, and what at least a tenth of the names begin with; a wrapper's name has no number in it."""
    names = list(names)
    counts: Counter[str] = Counter()
    for name in names:
        words = name.split(".")[:-1]
        for depth in range(1, min(len(words), 4) + 1):
            if words[depth - 1].isdigit():
                break
            counts[".".join(words[:depth]) + "."] += 1
    return ["", *sorted((start for start, count in counts.items() if 10 * count >= len(names)), key=len)]


def _side(state: Mapping[str, Tensor], start: str, dialect: Dialect | None) -> dict[str, _Named]:
    inner = {name[len(start) :]: x for name, x in state.items() if name.startswith(start)}
    spoken = dialect(inner) if dialect else inner
    named = {new: _Named(start + old, x) for old, (new, x) in zip(inner, spoken.items(), strict=True)}
    flat = {name.replace(".", "_"): value for name, value in named.items()}
    return flat if len(flat) == len(named) else named


def _pairs(here: Mapping[str, _Named], there: Mapping[str, _Named]) -> dict[str, Match]:
    return {
        mine.name: Match(there[key].name, mine.tensor.shape == there[key].tensor.shape)
        for key, mine in here.items()
        if key in there
    }

"""How often each class comes, in each split, and what to do where some are rare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.data.doctor.findings import Finding, found
from torso.data.index import Index

UNEVEN = 10.0  # times the rarest class that the most frequent one may come without a word
_SHOWN = 5
_WORTH = 1.5  # repeats below which sampling cannot help: the classes come on the same pictures
_MOST = 10.0  # weight at which a rare class stops growing


def balance(indexes: Mapping[str, Index]) -> Iterator[Finding]:
    """Findings on the classes of all splits; the first is the one that is learned."""
    first = True
    for split, index in indexes.items():
        if index.task in ("detect", "classify"):
            yield from _split(index, split, learned=first)
        first = False
    yield from _names(next(iter(indexes.values()), None))


def counts(index: Index) -> NDArray[np.int64]:
    """``[C]`` objects (or pictures) of each class that count."""
    labels = index.labels[~(index.crowd | index.difficult)] if index.image_labels is None else index.image_labels
    return np.bincount(labels[labels >= 0], minlength=len(index.classes)).astype(np.int64)


def remedy(index: Index) -> dict[str, Any]:
    """A repeat-factor threshold, what it does, and weights of the classes for the loss.

    The threshold is the median share of pictures a class is on: a class on fewer is repeated by the square root of
    the ratio (LVIS, arXiv:1908.03195). Weights go with the inverse square root of the counts, their mean being 1.
    """
    number = counts(index)
    owner = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    pairs = np.stack([owner, index.labels], axis=1) if index.image_labels is None else None
    pictures = number if pairs is None else np.bincount(np.unique(pairs, axis=0)[:, 1], minlength=len(number))
    share = pictures / max(len(index), 1)
    present = share[share > 0]
    threshold = float(np.median(present)) if len(present) else 0.0
    rarest = float(present.min()) if len(present) else 1.0
    weights = np.where(number > 0, 1 / np.sqrt(np.maximum(number, 1)), 0)
    mean = weights[number > 0].mean() if (number > 0).any() else 1.0
    return {
        "sampler": {"name": "repeat_factor", "threshold": round(threshold, 6)},
        "largest_repeat": round(max(1.0, math.sqrt(threshold / rarest)), 2),
        "class_weights": [round(float(min(weight / mean, _MOST)), 3) for weight in weights],
    }


def _split(index: Index, split: str, *, learned: bool) -> Iterator[Finding]:
    number = counts(index)
    if not number.any():
        return  # said already: there is nothing at all
    missing = [index.classes[label] for label in np.flatnonzero(number == 0)]
    if missing:
        kind = "class without objects" if learned else "class missing in a split"
        verb = "has no object" if index.image_labels is None else "has no picture"
        text = f"{split} {verb} of {_listed(missing)}"
        yield found(kind, "", text, split=split)
    present = number[number > 0]
    if learned and len(present) > 1 and present.max() >= UNEVEN * present.min():
        most, least = (
            index.classes[int(number.argmax())],
            index.classes[int(np.where(number, number, 1 << 62).argmin())],
        )
        cure = remedy(index)
        times, threshold = cure["largest_repeat"], cure["sampler"]["threshold"]
        hint = f"sample with repeat_factor, threshold {threshold:.3g} (pictures come up to {times:g} times), or "
        hint = f"{hint if times >= _WORTH else ''}weight the classes in the loss"
        text = f"{most} comes {_times(int(present.max()))}, {least} {_times(int(present.min()))}: {hint}"
        yield found("imbalance", "", text, split=split)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def _names(index: Index | None) -> Iterator[Finding]:
    """Classes whose names differ in case, spaces or dashes only."""
    alike: dict[str, list[str]] = {}
    for name in index.classes if index is not None else ():
        key = "".join(letter for letter in name.casefold() if letter.isalnum())
        alike.setdefault(key or name, []).append(name)
    for names in alike.values():
        if len(names) > 1:
            yield found("similar class names", "", f"classes {' and '.join(map(repr, names))} differ in spelling only")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more

"""Many texts in two flat arrays, so that processes which share them by a fork never copy a page.

A list of strings is written to whenever one of them is looked at (Python counts references in the string itself), and
a worker's copy of it grows to its full size within an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np

from torso.data.index import Index


class Texts(Sequence["str | None"]):
    """A read-only sequence of texts, some of which may be missing.

    Args:
        texts: what it holds.
    """

    def __init__(self, texts: Sequence[str | None]) -> None:
        encoded = [(text or "").encode("utf-8", "surrogateescape") for text in texts]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.concatenate([[0], np.cumsum(list(map(len, encoded)))]).astype(np.int64)
        self._missing = np.array([text is None for text in texts], np.bool_)

    def __len__(self) -> int:
        return len(self._missing)

    @overload
    def __getitem__(self, at: int) -> str | None: ...
    @overload
    def __getitem__(self, at: slice) -> list[str | None]: ...
    def __getitem__(self, at: int | slice) -> str | list[str | None] | None:
        """One text, made anew; or a list of some."""
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        if self._missing[at]:
            return None
        return self._bytes[self._ends[at] : self._ends[at + 1]].tobytes().decode("utf-8", "surrogateescape")


def flat(index: Index) -> Index:
    """The same index with the texts that workers read in flat arrays; it equals the other in all but its types."""
    columns: dict[str, Any] = {"paths": Texts(index.paths)}
    if index.segments is not None:
        columns["segments"] = Texts(index.segments)
    return replace(index, **columns)

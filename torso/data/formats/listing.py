"""Which files exist, from one listing a folder: asking for a hundred thousand takes minutes on a network disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


class Listing:
    """Finds files by name in folders, the likeliest of which come first."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = [place.as_posix() for place in places]
        self._files: dict[str, frozenset[str]] = {}  # folder -> names

    def find_all(self, names: Sequence[str]) -> list[str | None]:
        """The path of each name."""
        first, plain = self.places[0], self._list(self.places[0])
        return [f"{first}/{name}" if name in plain else self.find(name) for name in names]

    def find(self, name: str) -> str | None:
        """The path of ``name`` (which may hold folders, or be absolute) in the first place that has it."""
        name = name.replace("\\", "/")
        if "./" in name or "//" in name:
            name = Path(name).as_posix()
        inner, _, last = name.rpartition("/")
        for place in self.places:
            folder = os.path.join(place, inner) if inner or name.startswith("/") else place  # noqa: PTH118 - by the 100,000
            if last in (self._files.get(folder) or self._list(folder)):
                return f"{folder}/{last}"
        return None

    def _list(self, folder: str) -> frozenset[str]:
        if folder not in self._files:
            try:
                with os.scandir(folder or "/") as entries:
                    names = frozenset(entry.name for entry in entries if entry.is_file())
            except OSError:  # no such folder
                names = frozenset()
            self._files[folder] = names
        return self._files[folder]

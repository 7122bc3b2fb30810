"""The ``images`` of a COCO json: which entries can be used, where their files lie, and how large they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.data.builder import Builder
from torso.data.formats.coco_columns import WIDE, found
from torso.data.formats.coco_json import LARGEST
from torso.data.formats.listing import Listing
from torso.data.index import ImageId

MOST = 2**31 - 1  # pixels a side may be said to have

_NEEDED = itemgetter("id", "file_name")
_Row = dict[str, Any]
_Sizes = NDArray[np.int64]


@dataclass(frozen=True)
class Options:
    """What a reader may be asked to do otherwise; ``Coco.read`` explains them."""

    trust_sizes: bool = False
    allow_outside: bool = False
    largest: int = LARGEST


@dataclass(frozen=True)
class Listed:
    """The pictures of an index, found by id."""

    ids: list[ImageId]
    rows: NDArray[np.int64]  # of each id its row of the index; -1 where it is listed but missing or damaged
    sizes: NDArray[np.int64]  # [N, 2] width, height of the rows

    @cached_property
    def row_of(self) -> dict[ImageId, int]:
        """The same as a dict."""
        return dict(zip(self.ids, self.rows.tolist(), strict=True))

    def find(self, ids: NDArray[np.int64], nothing: int) -> NDArray[np.int64]:
        """The rows of ids, ``nothing`` where nobody listed them."""
        small = [type(one) is int and abs(one) < WIDE for one in self.ids]
        whole = self.ids if all(small) else list(compress(self.ids, small))
        return found(np.array(whole, np.int64), self.rows[small], ids, nothing)


class Pictures:
    """Takes the rows of ``images``;  its lists have one entry for each that can be used."""

    def __init__(self, builder: Builder, file: Path) -> None:
        self.builder, self.file = builder, file
        self.ids: list[ImageId] = []
        self.names: list[str] = []
        self.numbers: list[int] = []  # where the json has them
        self.said: list[NDArray[np.int64]] = []  # [n, 2] width, height; 0 where not said

    def chunk(self, text: bytes, start: int) -> int:
        """Wants them decoded: names are no numbers."""
        return 0

    def rows(self, rows: list[Any], start: int) -> None:
        """Takes rows; what cannot be used is noted."""
        numbers: Sequence[int] = range(start, start + len(rows))
        try:
            self._take(rows, numbers)
        except (KeyError, TypeError, ValueError, OverflowError):  # at least one row is odd
            pairs = [(self._checked(row, number), number) for row, number in zip(rows, numbers, strict=True)]
            good = [(row, number) for row, number in pairs if row is not None]
            self._take([row for row, _ in good], [number for _, number in good])

    def _take(self, rows: list[_Row], numbers: Sequence[int]) -> None:
        """Rows that are as they should be; raises before anything is taken where one is not."""
        if not rows:
            return
        ids, names = zip(*map(_NEEDED, rows), strict=True)
        said = np.array([[row.get("width") or 0, row.get("height") or 0] for row in rows])
        whole = said.dtype.kind == "i" or (said.dtype.kind == "f" and np.isfinite(said).all())
        plain = set(map(type, ids)) <= {int, str} and set(map(type, names)) == {str}
        if not plain or not whole or said.min() < 0 or said.max() > MOST or not _usable(names):
            raise ValueError
        self.ids += ids
        self.names += names
        self.numbers += numbers
        self.said.append(said.astype(np.int64))

    def _checked(self, row: Any, number: int) -> _Row | None:
        """One entry with what is unusual put right; None (noted) where it cannot be used."""
        where = f"images[{number}]"
        image = row.get("id") if isinstance(row, dict) else None
        if isinstance(image, float) and image.is_integer():
            image = int(image)
        if isinstance(image, bool) or not isinstance(image, int | str) or not isinstance(row.get("file_name"), str):
            self.builder.report("malformed row", self.file, f"{where}: expected an object with id and file_name")
            return None
        if not _usable([row["file_name"]]):
            message = f"{where}.file_name: expected the name of a file, came {row['file_name']!a}"
            self.builder.report("malformed row", self.file, message)
            return None
        good: _Row = {"id": image, "file_name": row["file_name"]}
        for key in ("width", "height"):
            side = row.get(key) or 0
            if isinstance(side, bool) or not isinstance(side, int | float) or not 0 <= side <= MOST:
                message = f"{where}.{key}: expected a number of pixels, came {_shown(row[key])}"
                self.builder.report("malformed row", self.file, message)
                return None
            good[key] = int(side)
        return good

    def finish(
        self, places: Sequence[Path], options: Options, captions: Mapping[ImageId, list[str]] | None = None
    ) -> Listed:
        """Finds the files, asks them for their sizes, and adds them to the builder.

        Args:
            places: folders where pictures may lie, the likeliest first.
            options: of the reader.
            captions: of each id, where there are any.
        """
        first = self._unrepeated()
        said = np.concatenate([*self.said, np.zeros((0, 2), np.int64)])[first]
        names = [self.names[at] for at in first]
        paths = Listing(places).find_all(names)
        for at, (name, path) in enumerate(zip(names, paths, strict=True)):
            if path is None:
                self.builder.lost(places[0] / name.replace("\\", "/"))
            elif (".." in name or name.startswith(("/", "\\")) or ":" in name[:2]) and not options.allow_outside:
                paths[at] = self._inside(path, places, self.numbers[first[at]])
        sizes = self._sizes(paths, said if options.trust_sizes else np.zeros_like(said), said)
        kept = np.flatnonzero(sizes.min(axis=1, initial=MOST) > 0)
        rows = np.full(len(first), -1)
        rows[kept] = np.arange(len(kept))
        ids = [self.ids[at] for at in first]
        home = self.builder.root.as_posix()
        inside = "" if home == "." else f"{home}/"
        found = (paths[at] or "" for at in kept.tolist())
        shown = [path[len(inside) :] if path.startswith(inside) else os.path.abspath(path) for path in found]  # noqa: PTH100
        good = [ids[at] for at in kept.tolist()]
        self.builder.pictures(shown, sizes[kept], good, [captions.get(image, []) for image in good] if captions else ())
        return Listed(ids, rows, sizes[kept])

    def _inside(self, path: str, places: Sequence[Path], number: int) -> str | None:
        """A path without its "..", or None (noted) where it leads out of the data set."""
        full = os.path.abspath(path)  # noqa: PTH100 - links are not followed: they are their owner's
        if any(Path(full).is_relative_to(place.absolute()) for place in places):
            return path
        message = f"images[{number}].file_name: leaves the data set's folder; the option allow_outside lets it"
        self.builder.report("malformed row", self.file, message)
        return None

    def _sizes(self, paths: Sequence[str | None], known: _Sizes, said: _Sizes) -> _Sizes:
        """``[N, 2]`` upright sizes, 0 where there is none; what ``known`` does not say is read from the files."""
        sizes = known.copy()
        sizes[[path is None for path in paths]] = 0
        asked = [at for at in np.flatnonzero(known.min(axis=1, initial=MOST) == 0).tolist() if paths[at] is not None]
        answers = self.builder.sizes_of([Path(paths[at] or "") for at in asked], said[asked], self.file)
        for at, answer in zip(asked, answers, strict=True):
            sizes[at] = answer or 0
        return sizes

    def _unrepeated(self) -> list[int]:
        """Entries whose id was not met before; the others are noted."""
        if len(set(self.ids)) == len(self.ids):
            return list(range(len(self.ids)))
        first: dict[ImageId, int] = {}
        for at, image in enumerate(self.ids):
            one = first.setdefault(image, at)
            where = f"images[{self.numbers[at]}].id: {image}"
            if one != at and self.names[one] == self.names[at]:
                self.builder.report("duplicate image", self.file, f"{where} is listed again; counted once")
            elif one != at:
                message = f"{where} is the id of another picture, {self.names[one]}"
                self.builder.report("duplicate image id", self.file, message)
        return list(first.values())


def _usable(names: Sequence[str]) -> bool:
    """Whether these can be names of files at all: not empty, no zero letter, no half of a surrogate pair."""
    try:
        return all(names) and b"\0" not in "\n".join(names).encode("utf-8")
    except UnicodeEncodeError:
        return False


def _shown(value: Any) -> str:
    return ascii(value)[:60]

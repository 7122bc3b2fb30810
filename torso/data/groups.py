"""Which pictures belong together: those of one folder, one patient, one video."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from torso.config import DataError
from torso.data.index import Index

_NAMES = ("path", "file", "file_name", "filename", "image", "picture", "name", "id")  # columns that name a picture


def group_of(paths: Sequence[str], group: str) -> list[str]:
    """The group of each picture by what ``split`` calls ``group``.

    Raises:
        DataError: a picture without a group, or an expression or table that cannot be read.
    """
    file, _, column = group.rpartition(":")
    if group == "folder":
        return [PurePosixPath(path).parent.as_posix() for path in paths]
    if file.lower().endswith(".csv"):
        return _from_table(paths, Path(file), column)
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise DataError(f"group: {group!r} is not a regular expression ({error})") from error
    found = []
    for path in paths:
        match = pattern.search(path)
        if match is None:
            raise DataError(f"group: {group!r} finds nothing in {path}; every picture needs a group")
        found.append((match[1] if pattern.groups else match[0]) or "")
    return found


def _from_table(paths: Sequence[str], file: Path, column: str) -> list[str]:
    """The groups that a table says."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            table = csv.DictReader(opened)
            columns = list(table.fieldnames or [])
            key = next((name for name in columns if name.strip().lower() in _NAMES and name != column), None)
            if column not in columns or key is None:
                raise DataError(
                    f"{file}: expected a column {column!r} and one called {' or '.join(_NAMES[:3])}, came {columns}"
                )
            said = {str(row[key]): str(row[column]) for row in table}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as a table ({error})") from error
    rows = found_among(list(said), paths)
    groups = {rows[name]: value for name, value in said.items() if name in rows}
    missing = [path for number, path in enumerate(paths) if number not in groups]
    if missing:
        raise DataError(f"{file}: has no row for {missing[0]} ({len(missing)} of {len(paths)} pictures are missing)")
    return [groups[number] for number in range(len(paths))]


def found_among(names: Sequence[str], paths: Sequence[str]) -> dict[str, int]:
    """The place in ``paths`` of each name that is a path there, or the file name or stem of just one of them."""
    places = {path: number for number, path in enumerate(paths)}
    short: dict[str, set[int]] = {}
    for path, number in places.items():
        for key in {PurePosixPath(path).name, PurePosixPath(path).stem}:
            short.setdefault(key, set()).add(number)
    found = {}
    for name in names:
        near = short.get(name, set())
        place = places.get(name.removeprefix("./"), next(iter(near)) if len(near) == 1 else None)
        if place is not None:
            found[name] = place
    return found


def alike(index: Index) -> list[int]:
    """A number for each picture, the same for pictures that are almost the same; all of them are decoded.

    What cannot be decoded is like no other.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from torso.data.doctor.duplicates import near, same
    from torso.data.doctor.pictures import scan

    looked = scan({"all": index})
    rows = [at for at, one in enumerate(looked.seen) if one.traits and not one.traits.flat]
    pairs = near(looked.codes(), looked.thumbs(), rows)[0]
    pairs += [(group[0], at) for group in same([one.pixels for one in looked.seen]) for at in group]
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    joins = coo_array((np.ones(len(a)), (a, b)), shape=(len(looked), len(looked)))
    number = connected_components(joins, directed=False)[1].tolist()
    of = {place.row: number[at] for at, places in enumerate(looked.places) for place in places}
    return [of[row] for row in range(len(index))]

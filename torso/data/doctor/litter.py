"""What lies in the folders of a data set and is not in the index, or in doubt: hidden folders, caches, equal names.

Only folders that hold pictures or labels of the set are looked at, never the whole tree above them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from torso.data.doctor.findings import Finding, found
from torso.data.formats.places import IMAGE_SUFFIXES, hidden
from torso.data.index import Index

_PAGES = ("Annotations", "annotations")
_DEPTH = 3  # folders below the root in which hidden ones are looked for


def litter(root: Path, format: str, indexes: Mapping[str, Index]) -> Iterator[Finding]:  # noqa: A002
    """Findings on files and folders."""
    home = root if root.is_dir() else root.parent
    yield from _hidden(home, home, _DEPTH)
    files = {index.file(row) for index in indexes.values() if index.store is None for row in range(len(index))}
    if not files:
        return
    yield from _equal(home, format, files)
    if format == "voc":
        yield from _unlabelled(home, files)


def _hidden(home: Path, folder: Path, depth: int) -> Iterator[Finding]:
    for entry in _entries(folder):
        if entry.is_dir() and hidden(entry):
            inside = sum(file.suffix.lower() in IMAGE_SUFFIXES for file in _entries(entry))
            if inside:
                yield found("hidden folder", _shown(entry, home), f"holds {inside} picture{'' if inside == 1 else 's'}")
        elif entry.suffix == ".cache" and entry.is_file():
            yield found("cache of another tool", _shown(entry, home), "labels are read afresh from their files")
        elif depth and entry.is_dir() and not entry.is_symlink():
            yield from _hidden(home, entry, depth - 1)


def _equal(home: Path, format: str, files: set[Path]) -> Iterator[Finding]:  # noqa: A002
    by_name: dict[str, list[Path]] = defaultdict(list)
    by_stem: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for file in sorted(files):
        by_name[file.name].append(file)
        by_stem[file.parent, file.stem].append(file)
    for first, *others in by_name.values() if format != "folder" else ():
        for other in others:
            text = f"has the name of {_shown(first, home)}"
            yield found("equal names", _shown(other, home), text, picture=str(other), twin=str(first))
    for first, *others in by_stem.values() if format == "voc" else ():
        for other in others:
            text = f"shares its label file with {first.name}"
            yield found("shared label file", _shown(other, home), text, picture=str(other), twin=str(first))


def _unlabelled(home: Path, files: set[Path]) -> Iterator[Finding]:
    """Pictures without an annotation, which VOC leaves out; in YOLO they are background, and the reader says so."""
    folders = {file.parent for file in files}
    places = {place for folder in folders for place in (folder, *(folder.parent / name for name in _PAGES))}
    labelled = {file.stem for place in places for file in _entries(place) if file.suffix == ".xml"}
    for folder in sorted(folders):
        for file in _entries(folder):
            if file.suffix.lower() in IMAGE_SUFFIXES and not hidden(file) and file.stem not in labelled:
                yield found("picture without labels", _shown(file, home), "no annotation speaks of it")


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries)
    except OSError:  # a folder that may not be looked into
        return []


def _shown(file: Path, home: Path) -> str:
    return file.relative_to(home).as_posix() if file.is_relative_to(home) else str(file)

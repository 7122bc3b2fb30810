"""Every touch of the disk that a checkpoint or a run folder makes, in one place.

A test sets `probe` to make the n-th touch fail, or to kill the process there: that is how it is shown that no
moment of a save can lose a run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

probe: Callable[[str, Path], None] | None = None
"""Called with (what, path) before each touch."""

CHUNK = 64 << 20
"""Bytes written at once."""


def _touch(what: str, path: Path) -> None:
    if probe is not None:
        probe(what, path)


def make_folder(path: Path) -> None:
    """Make a folder that must not exist yet."""
    _touch("mkdir", path)
    path.mkdir(parents=True)


def write(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk itself, not in the cache of the system."""
    _touch("open", path)
    with path.open("wb") as file:
        for start in range(0, len(data), CHUNK):
            _touch("write", path)
            file.write(memoryview(data)[start : start + CHUNK])
        file.flush()
        _touch("fsync", path)
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names inside a folder are on the disk."""
    _touch("fsync", path)
    if os.name == "nt":  # Windows cannot open a folder, and commits renames by itself
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder its name; a file of that name is replaced in the same instant."""
    _touch("rename", target)
    source.replace(target)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a crash, finds the old one or the new one and nothing between."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside, data)
        rename(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def point(link: Path, target: str) -> None:
    """Make `link` point to its neighbour `target`: a symbolic link, or a text file where links are not to be had."""
    beside = link.with_name(f".{link.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    _touch("symlink", beside)
    try:
        beside.symlink_to(target)
    except (NotImplementedError, PermissionError):  # Windows without developer mode, some network disks
        write(beside, target.encode())
    rename(beside, link)
    sync_folder(link.parent)


def pointed(link: Path) -> Path | None:
    """What `point` made `link` point to, or None."""
    try:
        name = link.readlink().name if link.is_symlink() else link.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return link.parent / name


def remove_folder(path: Path) -> None:
    """Remove a folder and all in it."""
    _touch("rmtree", path)
    shutil.rmtree(path)


def free_space(path: Path) -> int:
    """Bytes that may still be written where `path` is."""
    return shutil.disk_usage(path).free

"""Pictures that are members of tars: read where they lie, never unpacked."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.data.headers import DecodeError

_OPEN = 64  # files a process keeps open
_VERSION = 1  # of what is remembered


class Tars:
    """Members of uncompressed tars; a place is ``[file, offset, size]``.

    Files are opened when they are first read, in each process by itself, and a file that changed since it was listed
    is not read: the places would be wrong.

    Args:
        files: the tars.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self.stamps = tuple(stamp(file) for file in files)
        self._open: OrderedDict[int, _Handle] = OrderedDict()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tars) and (self.files, self.stamps) == (other.files, other.stamps)

    def __hash__(self) -> int:
        return hash((self.files, self.stamps))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def read(self, place: NDArray[np.int64]) -> bytes:
        """The bytes of a member.

        Raises:
            DecodeError: the file is gone, changed, or shorter than it was.
        """
        number, offset, size = (int(value) for value in place)
        return self.part(number, offset, size)

    def part(self, number: int, offset: int, size: int) -> bytes:
        """Some bytes of a file."""
        handle = self._handle(number)
        try:
            found = os.fstat(handle.descriptor)
            data = os.pread(handle.descriptor, size, offset)
        except OSError as error:
            raise DecodeError(str(self.files[number]), f"cannot be read ({error.strerror})") from error
        if (found.st_size, found.st_mtime_ns) != self.stamps[number][:2]:
            raise DecodeError(str(self.files[number]), "changed since its members were listed; start again")
        if len(data) < size:
            raise DecodeError(str(self.files[number]), f"ends before the {size} bytes at {offset}")
        return data

    def _handle(self, number: int) -> _Handle:
        handle = self._open.get(number)
        if handle is None:
            path = self.files[number]
            try:
                handle = _Handle(path)
            except OSError as error:
                raise DecodeError(str(path), f"cannot be read ({error.strerror})") from error
            self._open[number] = handle
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return handle


class _Handle:
    """An open file, closed when nobody uses it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp:
    """Size and times of a file: another stamp, another content. Zeros where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def remembered(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays that `remember` kept for a file, if it is still the same."""
    try:
        with np.load(_note(path), allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
    except Exception:  # missing, or whatever a damaged file makes numpy raise
        return None
    known = arrays.pop("stamp", None)
    return arrays if known is not None and known.tolist() == [_VERSION, *stamp(path)] else None


def remember(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Keeps arrays about a file in the user's cache, never beside the file; where that cannot be written, does not."""
    note = _note(path)
    unfinished = note.with_name(f"{note.stem}.{os.getpid()}.npz")
    known = np.array([_VERSION, *stamp(path)], np.int64)
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        try:
            np.savez(unfinished, stamp=known, **arrays)  # type: ignore[arg-type]
            unfinished.replace(note)
        finally:
            unfinished.unlink(missing_ok=True)


def _note(path: Path) -> Path:
    """Where the arrays of a file are kept; a file that changed takes the place of its older self."""
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "torso" / "shards" / f"{name}.npz"

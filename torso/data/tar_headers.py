"""The members of a tar: names and places, read from its headers alone.

An archive is input like any other: links, devices, names that leave the folder and sizes that leave the file are
named and never followed, and nothing is ever unpacked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from torso.config import DataError

_BLOCK = 512
_MOST = 1 << 20  # bytes of a member that only carries a long name
_FILES = frozenset({b"0", b"\0", b"7"})
_FORBIDDEN = {
    b"1": "a hard link; write the tar with --hard-dereference",
    b"2": "a symbolic link; write the tar with --dereference",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file; write the tar without --sparse",
}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """A file in a tar: its bytes are ``size`` from ``offset`` on."""

    name: str
    offset: int
    size: int


class Fault(NamedTuple):
    """Something wrong with a tar; ``name`` is that of the member, or nothing where it is the archive itself."""

    name: str
    message: str
    fatal: bool = True


def members(path: Path) -> tuple[list[Member], list[Fault]]:
    """What is in a tar, in its order, and what was wrong with it.

    After a damaged header nothing can be found any more: the members before it are what there is.

    Raises:
        DataError: it cannot be read, or is compressed, so that no member has a place of its own.
    """
    try:
        with path.open("rb", buffering=0) as file:
            start = file.read(_BLOCK)
            for sign, kind in _COMPRESSED.items():
                if start.startswith(sign):
                    raise DataError(
                        f"{path}: is compressed ({kind}), and such a tar cannot be read in any order; "
                        "decompress it once (pictures are compressed already)"
                    )
            return _walked(file.fileno())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _walked(descriptor: int) -> tuple[list[Member], list[Fault]]:
    found: list[Member] = []
    faults: list[Fault] = []
    try:
        for one in _headers(descriptor, os.fstat(descriptor).st_size):
            if isinstance(one, Fault):
                faults.append(one)
            else:
                found.append(one)
    except _DamagedError as error:
        faults.append(Fault("", str(error)))
    return found, faults


class _DamagedError(Exception):
    """Nothing after this place can be found."""


def _headers(descriptor: int, length: int) -> Iterator[Member | Fault]:
    """The members one by one, and the faults between them.

    Raises:
        _DamagedError: where it ends before the archive does.
    """
    at = 0
    name, size = "", -1  # what a member before says of the one that follows
    while True:
        block = os.pread(descriptor, _BLOCK, at)
        if at == length and at:
            yield Fault("", "has no mark of its end: it may have been cut off after a member", fatal=False)
            return
        if len(block) < _BLOCK:
            raise _DamagedError(f"ends at byte {length} within a header: it was cut off" if length else "is empty")
        if not block.strip(b"\0"):
            return
        kind, own = block[156:157], _size(block, at)
        start = at + _BLOCK
        if kind in _FILES and size >= 0:
            own = size
        if start + own > length:
            shown = ascii(name or _name(block))[:100]
            raise _DamagedError(f"member {shown} has {own} bytes from {start} on, the file ends at {length}")
        at = start + -(-own // _BLOCK) * _BLOCK
        if kind in (b"L", b"x"):
            data = _small(descriptor, start, own)
            name, size = (_text(data), size) if kind == b"L" else _extended(data, name, size)
            continue
        if kind in (b"K", b"g"):
            continue
        name, given = "", name or _name(block)
        size = -1
        if kind == b"5" or (kind == b"\0" and given.endswith("/")):
            continue
        yield _member(given, kind, start, own)


def _member(name: str, kind: bytes, start: int, size: int) -> Member | Fault:
    if kind in _FORBIDDEN:
        return Fault(name, f"is {_FORBIDDEN[kind]}; it is not read")
    if kind not in _FILES:
        return Fault(name, f"is of an unknown kind ({kind.decode('latin-1')!a}); it is not read")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.name:
        return Fault(name, "has a name that leaves the archive; it is not read")
    return Member(str(path), start, size)


def _size(block: bytes, at: int) -> int:
    """The size a header says, after its checksum was found right."""
    said = _number(block[148:156])
    if said != sum(block) - sum(block[148:156]) + 8 * 32:
        raise _DamagedError(f"has no header at byte {at} (the checksum is wrong): it is damaged, or no tar")
    size = _number(block[124:136])
    if size is None or size < 0:
        raise _DamagedError(f"has a header without a size at byte {at}: it is damaged")
    return size


def _number(field: bytes) -> int | None:
    """Octal digits, or, for what does not fit there, a sign and binary."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else None


def _name(block: bytes) -> str:
    """The name of a header; the newer standard has a first part of it elsewhere."""
    name, first = _text(block[:100]), _text(block[345:500])
    return f"{first}/{name}" if block[257:263] == b"ustar\0" and first else name


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _small(descriptor: int, start: int, size: int) -> bytes:
    if size > _MOST:
        raise _DamagedError(f"has a header of {size} bytes at byte {start}: no name is so long")
    return os.pread(descriptor, size, start)


def _extended(data: bytes, name: str, size: int) -> tuple[str, int]:
    """Name and size out of an extended header: lines of ``length key=value``."""
    at = 0
    while at < len(data):
        digits, _, _ = data[at : at + 20].partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 10 else 0
        if length <= len(digits) + 1:
            raise _DamagedError("has an extended header that cannot be read: it is damaged")
        key, _, value = data[at + len(digits) + 1 : at + length].removesuffix(b"\n").partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif key == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
        elif key.startswith(b"GNU.sparse"):
            raise _DamagedError("holds sparse files, whose bytes have no place of their own; write it without --sparse")
        at += length
    return name, size

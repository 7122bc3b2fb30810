"""The samples of one tar: its members grouped by key, sorted into pictures, labels and what is not read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torso.data import tars
from torso.data.builder import Builder
from torso.data.decode import DecodeError, probe
from torso.data.formats import shard_labels as labels
from torso.data.formats.places import hidden
from torso.data.formats.shard_labels import Key, LabelError
from torso.data.index import Problem
from torso.data.tar_headers import Fault, Member, members
from torso.data.tars import Tars

PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm"})
LABELS = frozenset({"cls", "txt", "json"})
_HEAD = 1 << 18  # bytes in which the header of a picture ends
_RUNS_CODE = frozenset({"pickle", "pkl", "pyd", "pth", "pt", "ckpt", "dill", "joblib", "cloudpickle", "py", "so"})
_OBJECTS = re.compile(rb"'descr':[^,]*O")  # of a numpy header: Python objects, which are a pickle


@dataclass
class Sample:
    """Members with one key."""

    store: Tars
    number: int  # of the tar
    shown: str  # the tar as the index names it
    key: str
    members: dict[str, Member]
    picture: str  # its kind
    header: tuple[int, int, int]  # width, height, frames; zeros where it has not been read

    @property
    def path(self) -> str:
        """What names the picture: the tar, and its name there."""
        return f"{self.shown}/{self.members[self.picture].name}"

    @property
    def place(self) -> tuple[int, int, int]:
        """Where the store finds the picture."""
        member = self.members[self.picture]
        return self.number, member.offset, member.size

    def named(self, kind: str) -> Path:
        """The path of a member, for messages."""
        name = self.members[kind].name if kind in self.members else self.key
        return self.store.files[self.number] / name

    def size(self, builder: Builder) -> tuple[int, int] | None:
        """Width and height, or nothing where it is no picture, which is noted."""
        width, height, frames = self.header
        if not width:
            try:
                width, height, frames = probed(self.store, self.number, self.members[self.picture])
            except DecodeError as error:
                builder.lost(self.named(self.picture), "damaged image", error.reason)
                return None
        if frames > 1:
            builder.report("animated image", self.named(self.picture), f"has {frames} frames; the first one counts")
        return width, height

    def content(self) -> dict[str, Any]:
        """Its json, empty where it has none.

        Raises:
            LabelError: it is none.
        """
        return labels.parsed(self._bytes("json")) if "json" in self.members else {}

    def key_of(self, content: dict[str, Any]) -> tuple[str, Key]:
        """The class of the picture, and the member that says it.

        Raises:
            LabelError: it says none.
        """
        if "cls" in self.members:
            return "cls", labels.class_of(self._bytes("cls"))
        return "json", labels.key_of(content, "label")

    def keys(self) -> tuple[set[Key], bool]:
        """All classes it speaks of, and whether they are COCO's ids; what cannot be understood is met again later."""
        found: set[Key] = set()
        coco = False
        try:
            content = self.content()
            if "cls" in self.members or "label" in content:
                found.add(self.key_of(content)[1])
            for _, row in labels.rows(content) if labels.has_objects(content) else ():
                if isinstance(row, dict):
                    coco |= "label" not in row and "category_id" in row
                    found.add(labels.key_of(row, *labels.OBJECT))
        except LabelError:
            pass
        return found, coco

    def caption(self, builder: Builder) -> str:
        """What ``txt`` says."""
        if "txt" not in self.members:
            return ""
        try:
            return self._bytes("txt").decode("utf-8").strip()
        except (LabelError, UnicodeDecodeError) as error:
            builder.report("malformed caption", self.named("txt"), f"is not UTF-8 text ({error}); left out")
            return ""

    def _bytes(self, kind: str) -> bytes:
        member = self.members[kind]
        if member.size > labels.MAX_BYTES:
            raise LabelError(f"has {member.size} bytes; labels of a picture have at most {labels.MAX_BYTES}")
        try:
            return self.store.part(self.number, member.offset, member.size)
        except DecodeError as error:
            raise LabelError(error.reason) from error


@dataclass
class Shard:
    """One tar."""

    file: Path
    samples: list[Sample]
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def read(cls, store: Tars, number: int, root: Path) -> Shard:
        """Lists what it holds; what was listed before is remembered.

        Raises:
            DataError: it is missing or compressed.
        """
        file = store.files[number]
        shown = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
        found, faults, headers = _listed(store, number)
        shard = cls(file, [])
        for fault in faults:
            shard._fault(fault)
        unused: dict[str, list[str]] = {}
        pairs = zip(found, headers.tolist(), strict=True)
        groups: dict[str, list[tuple[Member, list[int]]]] = {}  # whether or not they lie side by side
        for member, header in pairs:
            key, _ = _parts(member.name)
            if key.rpartition("/")[2][:1] not in ("", "_") or not hidden(Path(member.name)):
                groups.setdefault(key, []).append((member, header))
        for key, group in groups.items():
            shard._add(store, number, shown, key, dict(_kinds(shard, group, unused)))
        for kind, names in unused.items():
            message = f"{len(names)} members of the kind {kind!r} are not read, the first is {names[0]}"
            shard.problems.append(Problem("unused member", str(file), None, message))
        return shard

    def report(self, builder: Builder) -> None:
        """Gives its problems to a builder, named as the builder names files."""
        inside = [Path(one.path).is_relative_to(builder.root) for one in self.problems]
        for one, relative in zip(self.problems, inside, strict=True):
            path = Path(one.path).relative_to(builder.root).as_posix() if relative else one.path
            builder.problems.append(Problem(one.kind, path, None, one.message, one.fatal))

    def _fault(self, fault: Fault) -> None:
        kind = "unsafe member" if fault.name else "malformed file" if fault.fatal else "cut-off file"
        path = self.file / fault.name.lstrip("/") if fault.name else self.file
        self.problems.append(Problem(kind, str(path), None, fault.message, fault.fatal))

    def _add(self, store: Tars, number: int, shown: str, key: str, kinds: dict[str, tuple[Member, list[int]]]) -> None:
        pictures = [kind for kind in kinds if kind in PICTURES]
        if not pictures:
            if kinds:
                message = f"sample {key!r} has no picture ({', '.join(kinds)}); left out"
                self.problems.append(Problem("sample without picture", str(self.file), None, message))
            return
        if len(pictures) > 1:
            message = f"sample {key!r} has several pictures ({', '.join(pictures)}); the first one counts"
            self.problems.append(Problem("several pictures", str(self.file), None, message))
        listed = {kind: member for kind, (member, _) in kinds.items()}
        width, height, frames = kinds[pictures[0]][1]
        self.samples.append(Sample(store, number, shown, key, listed, pictures[0], (width, height, frames)))


def _kinds(
    shard: Shard, group: Sequence[tuple[Member, list[int]]], unused: dict[str, list[str]]
) -> Iterator[tuple[str, tuple[Member, list[int]]]]:
    """The members of a sample that are read, by kind; the others are noted."""
    seen: set[str] = set()
    for member, header in group:
        kind = _parts(member.name)[1]
        if header[0] < 0 or kind.rpartition(".")[2] in _RUNS_CODE:
            message = "could run code when it is opened, so it is refused; write pictures, cls, txt and json only"
            shard.problems.append(Problem("unsafe member", str(shard.file / member.name), None, message, fatal=True))
        elif kind not in PICTURES | LABELS:
            unused.setdefault(kind, []).append(member.name)
        elif kind in seen:
            message = f"sample has a second {kind}; the first one counts"
            shard.problems.append(Problem("duplicate member", str(shard.file / member.name), None, message))
        else:
            seen.add(kind)
            yield kind, (member, header)


def _parts(name: str) -> tuple[str, str]:
    """Key and kind of a member: its folder and its name up to the first dot, and what comes after that."""
    folder, slash, base = name.rpartition("/")
    key, _, kind = base.partition(".")
    return f"{folder}{slash}{key}", kind.lower()


def _listed(store: Tars, number: int) -> tuple[list[Member], list[Fault], NDArray[np.int64]]:
    """Members, faults, and of each member what its header says, ``[M, 3]``: see `_header`."""
    file = store.files[number]
    known = tars.remembered(file)
    if known is not None and {"names", "offsets", "sizes", "headers"} <= set(known):
        names = known["names"].tobytes().decode("utf-8", "surrogateescape").split("\0")
        places = zip(names, known["offsets"].tolist(), known["sizes"].tolist(), strict=False)
        found = [Member(name, offset, size) for name, offset, size in places]
        if len(found) == len(names) and known["headers"].shape == (len(found), 3):
            return found, [], known["headers"]
    found, faults = members(file)
    headers = np.array([_header(store, number, member) for member in found], np.int64).reshape(-1, 3)
    if found and not faults:
        arrays: dict[str, NDArray[Any]] = {
            "names": np.frombuffer("\0".join(one.name for one in found).encode("utf-8", "surrogateescape"), np.uint8),
            "offsets": np.array([one.offset for one in found], np.int64),
            "sizes": np.array([one.size for one in found], np.int64),
            "headers": headers,
        }
        tars.remember(file, arrays)
    return found, faults, headers


def _header(store: Tars, number: int, member: Member) -> tuple[int, int, int]:
    """Width, height and frames of a picture; -1 for an array of objects; zeros for all else and what is damaged."""
    kind = _parts(member.name)[1]
    if kind.rpartition(".")[2] == "npy":
        try:
            start = store.part(number, member.offset, min(member.size, 4096))
        except DecodeError:
            return 0, 0, 0
        return (-1, 0, 0) if _OBJECTS.search(start) else (0, 0, 0)
    if kind not in PICTURES:
        return 0, 0, 0
    try:
        return probed(store, number, member)
    except DecodeError:
        return 0, 0, 0


def probed(store: Tars, number: int, member: Member) -> tuple[int, int, int]:
    """Width, height and frames of a member.

    Raises:
        DecodeError: it is no picture.
    """
    start = store.part(number, member.offset, min(member.size, _HEAD))
    if not start:
        raise DecodeError("", "is empty (0 bytes)")
    try:
        if member.size <= _HEAD or not start.startswith(b"\x89PNG"):  # whose orientation may come last
            found = probe(start)
            return *found.size, found.frames
    except DecodeError:
        if member.size <= _HEAD:
            raise
    found = probe(store.part(number, member.offset, member.size))
    return *found.size, found.frames

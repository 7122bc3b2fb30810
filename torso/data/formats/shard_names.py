"""Which tars make up a data set, and which of its splits each belongs to."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from torso.config import DataError
from torso.data.formats.places import hidden

_KNOWN = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}/]*,[^{}/]*)\}")
_MOST = 1_000_000  # shards of one name


def shards(path: Path) -> dict[str, list[Path]]:
    """The tars of a data set by split; ``path`` is a folder, a tar, or a name with ``{000..127}`` or ``{a,b}``.

    A split is told by a word of the file's name (``imagenet-train-000012.tar``), else by its folder's (``val/0.tar``);
    shards without such a word are a group called by what is left of the name without its numbers.
    """
    found: dict[str, list[Path]] = {}
    for file in _files(path):
        found.setdefault(_split_of(file), []).append(file)
    return found


def is_pattern(path: Path) -> bool:
    """Whether a path names several tars by braces."""
    return path.name.endswith(".tar") and _BRACES.search(str(path)) is not None


def _files(path: Path) -> list[Path]:
    if is_pattern(path):
        return [Path(name) for name in expanded(str(path))]
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    if not path.is_dir():
        return []
    found = [*path.glob("*.tar"), *(file for name in _KNOWN for file in path.glob(f"{name}/*.tar"))]
    return sorted(file for file in found if not hidden(file))


def expanded(pattern: str) -> list[str]:
    """The names that braces stand for, in order.

    Raises:
        DataError: they are too many, or count downwards.

    >>> expanded("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    pieces: list[list[str]] = []
    at, total = 0, 1
    for match in _BRACES.finditer(pattern):
        choices = _choices(pattern, *match.groups())
        total *= len(choices)
        if total > _MOST:
            raise DataError(f"{pattern}: stands for more than {_MOST} files")
        pieces += [[pattern[at : match.start()]], choices]
        at = match.end()
    return ["".join(names) for names in itertools.product(*pieces, [pattern[at:]])]


def _choices(pattern: str, first: str | None, last: str | None, listed: str | None) -> list[str]:
    if first is None or last is None:
        return (listed or "").split(",")
    if len(first) > 9 or len(last) > 9 or int(last) < int(first):
        raise DataError(f"{pattern}: expected {{first..last}} with the smaller number first")
    if int(last) - int(first) >= _MOST:
        raise DataError(f"{pattern}: stands for more than {_MOST} files")
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]


def _split_of(file: Path) -> str:
    words = [word for word in re.split(r"[-_.]", file.stem.lower()) if word and not word.isdigit()]
    for word in [*words, file.parent.name.lower()]:
        if word in _KNOWN:
            return _KNOWN[word]
    return "-".join(words) or "all"

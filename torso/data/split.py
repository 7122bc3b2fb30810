"""Dividing a data set into train, val and whatever else, and the file that keeps the division."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.formats import FORMATS
from torso.data.formats.opening import open_index, recognise
from torso.data.groups import found_among, group_of
from torso.data.index import Index, Problem, joined
from torso.data.stratify import by_chance, by_classes, by_one_class, sizes_of, together

FRACTIONS = {"train": 0.8, "val": 0.2}


@dataclass(frozen=True)
class Splits:
    """Which picture is in which split, and how that was decided."""

    names: dict[str, list[str]]  # split -> paths of pictures, as in ``Index.paths``
    fractions: dict[str, float]
    by: str
    group: str | None
    seed: int
    fingerprint: str  # of the pictures, see ``pictures_of``
    counts: dict[str, dict[str, int]]  # class -> objects (or pictures) in each split

    def save(self, file: Path | str) -> Path:
        """Writes one JSON, or, where the name has no suffix, a folder with a list of paths a split.

        Raises:
            DataError: it exists already, or a list cannot hold a name.
        """
        file = Path(file)
        if file.exists():
            raise DataError(f"{file}: exists already, and a split in use is not to change; name another file")
        if file.suffix:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            return file
        odd = next((name for names in self.names.values() for name in names if "\n" in name or "\r" in name), None)
        if odd is not None:
            raise DataError(f"{odd!r}: a list has one path a line, and this one has a line break; write a .json")
        file.mkdir(parents=True)
        for split, names in self.names.items():
            (file / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        return file

    def as_dict(self) -> dict[str, Any]:
        """All of it, JSON-able: what the file holds."""
        return {
            "by": self.by,
            "group": self.group,
            "seed": self.seed,
            "fractions": self.fractions,
            "fingerprint": self.fingerprint,
            "counts": self.counts,
            "splits": self.names,
        }


def split(
    data: Index | Path | str,
    fractions: Mapping[str, float] | None = None,
    *,
    by: Literal["class", "random", "group"] = "class",
    group: str | None = None,
    groups: Sequence[int] | None = None,
    seed: int = 0,
) -> Splits:
    """Divides the pictures of a data set into splits; the same for the same pictures and seed.

    Args:
        data: an index, or the path of a data set, all of whose pictures are divided anew.
        fractions: the share of each split; 0.8 for train and 0.2 for val when None.
        by: "class" keeps every class's share of each split (pictures with boxes: of its objects); "random" and
            "group" do not look at classes.
        group: pictures that belong together and stay so: "folder" (those of one folder), "FILE.csv:COLUMN" (those
            with one value in a column; another column names the picture), or a regular expression of the path, whose
            first group (or whole match) says it: "(patient[0-9]+)".
        groups: more of those: a number for each picture of the index, for instance of its near duplicates.
        seed: of all that is random.

    Raises:
        DataError: no such data, fractions or groups that cannot be, or a split without a picture.

    Source: torch.utils.data.random_split; On the Stratification of Multi-label Data, 2011.
    """
    index = data if isinstance(data, Index) else whole(data)
    fractions = dict(FRACTIONS if fractions is None else fractions)
    if by == "group" and group is None and groups is None:
        raise DataError("by group: expected what makes a group: a regular expression, folder, or FILE.csv:COLUMN")
    if groups is not None and len(groups) != len(index):
        raise DataError(f"groups: expected a number for each of {len(index)} pictures, came {len(groups)}")
    # By name, so that the order in which files were listed changes nothing.
    order = sorted(range(len(index)), key=lambda row: index.paths[row])
    sizes = sizes_of(len(order), fractions)
    keys: list[Sequence[object]] = [] if group is None else [group_of([index.paths[row] for row in order], group)]
    keys += [] if groups is None else [[int(groups[row]) for row in order]]
    parts = _parts(index, order, sizes, by, together(*keys) if keys else None, np.random.default_rng(seed))
    names = {
        name: [index.paths[row] for row, part in zip(order, parts.tolist(), strict=True) if part == number]
        for number, name in enumerate(fractions)
    }
    empty = [name for name, some in names.items() if not some]
    if empty:
        raise DataError(
            f"{', '.join(empty)}: would get no picture; there are only {int(max(together(*keys))) + 1} groups"
        )
    counts = _counts(index, dict(zip(order, parts.tolist(), strict=True)), list(fractions))
    return Splits(names, fractions, by, group, seed, pictures_of(index), counts)


def _parts(
    index: Index,
    order: list[int],
    sizes: list[int],
    by: str,
    grouped: NDArray[np.int64] | None,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """The number of the split of each picture, in the order given."""
    if by != "class" and grouped is None:
        return by_chance(sizes, random)
    if by == "class" and grouped is None and index.image_labels is not None:
        return by_one_class(index.image_labels[order], sizes, random)
    if by == "class" and index.image_labels is None and not len(index.labels):
        raise DataError(f"{index.root}: by class: there are neither boxes nor classes of pictures; split at random")
    held: list[Counter[int]] = [Counter() for _ in order]
    if by == "class":
        held = [_held(index, row) for row in order]
    units = np.arange(len(order)) if grouped is None else grouped
    count = int(units.max()) + 1
    holds: list[Counter[int]] = [Counter() for _ in range(count)]
    for unit, one in zip(units.tolist(), held, strict=True):
        holds[unit].update(one)
    return by_classes(holds, np.bincount(units).tolist(), sizes, random)[units]


def _held(index: Index, row: int) -> Counter[int]:
    """The classes on a picture and how many objects of each."""
    if index.image_labels is not None:
        return Counter([int(index.image_labels[row])])
    return Counter(index.labels[index.objects(row)].tolist())


def _counts(index: Index, part_of: Mapping[int, int], splits: Sequence[str]) -> dict[str, dict[str, int]]:
    totals: dict[str, Counter[int]] = {name: Counter() for name in splits}
    for row, part in part_of.items():
        totals[splits[part]].update(_held(index, row))
    return {name: {one: totals[one][label] for one in splits} for label, name in enumerate(index.classes)}


def whole(
    path: Path | str,
    *,
    format: str | None = None,  # noqa: A002 - the word of the recipe
    classes: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Index:
    """All pictures of a data set, each once, whichever of its own splits it is in.

    Raises:
        DataError: as ``open_index``.
    """
    path = Path(path)
    name = format or recognise(path)
    if name not in FORMATS:
        return open_index(path, "all", format=name)  # which says what there is
    splits = FORMATS[name].splits(path)
    if "all" in splits:
        return open_index(path, "all", format=name, classes=classes, options=options)
    indexes: list[Index] = []
    seen: set[str] = set()
    # The classes are those of the training split.
    for one in sorted(splits, key=lambda split: (split != "train", split)):
        index = open_index(path, one, format=name, classes=classes, options=options)
        classes = index.classes
        rows = [row for row in range(len(index)) if index.paths[row] not in seen]
        seen.update(index.paths)
        indexes.append(index.select(rows))
    both = joined(indexes)
    return replace(both, problems=tuple(dict.fromkeys(both.problems)))


def pictures_of(index: Index) -> str:
    """A hash of which pictures there are and their sizes; labels may be corrected without changing a split."""
    digest = hashlib.sha256()
    for path, size in sorted(zip(index.paths, index.sizes.tolist(), strict=True)):
        digest.update(f"{path}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def read_split(file: Path | str) -> dict[str, list[str]]:
    """The names of the pictures of each split, from a file or folder that ``Splits.save`` wrote.

    Raises:
        DataError: it cannot be read, or a picture is in it twice.
    """
    file = Path(file)
    names: Any
    try:
        if file.is_dir():
            lists = sorted(file.glob("*.txt"))
            names = {one.stem: [x for x in one.read_text("utf-8-sig").splitlines() if x.strip()] for one in lists}
        else:
            content = json.loads(file.read_bytes())
            names = content.get("splits") if isinstance(content, dict) else None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as splits ({error})") from error
    if not isinstance(names, dict) or not names or not all(map(_are_names, names.values())):
        raise DataError(
            f'{file}: expected {{"splits": {{"train": ["a.jpg", ...], ...}}}}, or a folder of train.txt, ...'
        )
    times = Counter(name for some in names.values() for name in some)
    twice = [name for name, count in times.items() if count > 1]
    if twice:
        raise DataError(f"{file}: {twice[0]} is listed more than once ({len(twice)} pictures are)")
    return names


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def select_split(index: Index, file: Path | str, split: str) -> Index:
    """The pictures of one split of a file, out of all pictures (``whole``).

    Pictures that are in none of the splits are a problem of the result, and not fatal.

    Raises:
        DataError: no such split, or pictures that are not there.
    """
    names = read_split(file)
    if split not in names:
        raise DataError(f"{file}: no split {split!r}; it has {', '.join(names)}")
    places = found_among([name for some in names.values() for name in some], index.paths)
    missing = [name for name in names[split] if name not in places]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(names[split])} pictures of {split} are not in {index.root}: "
            f"{', '.join(missing[:5])}"
        )
    chosen = index.select([places[name] for name in names[split]])
    left = len(index) - len(set(places.values()))
    if not left:
        return chosen
    new = Problem("in no split", str(file), None, f"{left} of {len(index)} pictures are in none of its splits")
    return replace(chosen, problems=(*chosen.problems, new))

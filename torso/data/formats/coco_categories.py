"""The ``categories`` of a COCO json: ids, names, and the keypoints that a category has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torso.config import DataError
from torso.data.builder import Builder
from torso.data.formats.places import mapped

_MOST = 2**62


@dataclass
class Categories:
    """The classes of a file and those of the index; ``labels`` says -1 where the index has no such class."""

    names: dict[int, str]  # in the order of the ids
    labels: dict[int, int]
    rows: list[Any]

    @classmethod
    def of(cls, file: Path, rows: list[Any], builder: Builder, classes: Sequence[str] | None) -> Categories:
        """Reads them and gives the builder its classes.

        Raises:
            DataError: an entry without a whole id or a name, or one of these twice.
        """
        pairs: dict[int, str] = {}
        for number, row in enumerate(rows):
            where = f"{file}: categories[{number}]"
            if not isinstance(row, dict) or not _is_id(row.get("id")) or not _is_name(row.get("name")):
                raise DataError(f"{where}: expected a whole number id and a name")
            identity, name = int(row["id"]), str(row["name"]).strip()
            if identity in pairs or name in pairs.values():
                raise DataError(f"{where}: id {identity} or name {name!r} is used twice")
            pairs[identity] = name
        names = dict(sorted(pairs.items()))
        chosen, label_of = mapped(list(names.values()), classes)
        ids = {name: identity for identity, name in names.items()}
        free = iter(range(max(names, default=0) + 1, 2 * _MOST))
        builder.classes = chosen
        builder.class_ids = tuple(ids[name] if name in ids else next(free) for name in chosen)
        return cls(names, {identity: label_of.get(name, -1) for identity, name in names.items()}, rows)

    def report_unused_parent(self, builder: Builder, file: Path, used: set[int]) -> None:
        """Notes Roboflow's first category, which is the parent of the others and has no objects of its own."""
        for number, row in enumerate(self.rows):
            name = row["name"]
            others = [other.get("supercategory") for other in self.rows if other is not row]
            if int(row["id"]) not in used and others and all(parent == name for parent in others):
                message = (
                    f"categories[{number}]: {name!r} (id {row['id']}) is only the parent of the others and has no "
                    "objects; kept as a class, as the ids count it"
                )
                builder.report("unused parent class", file, message)

    def read_keypoints(self, builder: Builder, file: Path) -> None:
        """Gives the builder the keypoints and the skeleton of the first category that has some."""
        first: dict[str, Any] | None = None
        for number, row in enumerate(self.rows):
            points = row.get("keypoints")
            if not isinstance(points, list) or not points:
                continue
            where = f"categories[{number}].keypoints"
            if not all(isinstance(point, str) for point in points):
                builder.report("malformed row", file, f"{where}: expected a list of names")
            elif first is None:
                first = row
                builder.keypoint_names = tuple(points)
            elif tuple(points) != builder.keypoint_names:
                message = f"{where}: differ from those of {first['name']!r}, which are taken for all"
                builder.report("other keypoints", file, message)
        if first is not None:
            number = self.rows.index(first)
            builder.skeleton = _skeleton(builder, file, f"categories[{number}].skeleton", first.get("skeleton"))


def _skeleton(builder: Builder, file: Path, where: str, value: Any) -> tuple[tuple[int, int], ...]:
    """Pairs counted from 0; COCO counts from 1."""
    pairs = [tuple(pair) for pair in value if isinstance(pair, list)] if isinstance(value, list) else []
    count = len(builder.keypoint_names)
    whole = all(len(pair) == 2 and all(type(end) is int for end in pair) for pair in pairs)
    if whole and all(1 <= end <= count for pair in pairs for end in pair):
        return tuple((one - 1, two - 1) for one, two in pairs)
    if whole and all(0 <= end < count for pair in pairs for end in pair):
        builder.report("skeleton from 0", file, f"{where}: counts from 0, COCO's counts from 1; taken as it is meant")
        return tuple((one, two) for one, two in pairs)
    builder.report("malformed skeleton", file, f"{where}: expected pairs of numbers in 1..{count}; left out")
    return ()


def _is_id(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST and int(value) == value


def _is_name(value: Any) -> bool:
    """Text (or a number) that is not blank and can be written."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        return False
    try:
        str(value).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

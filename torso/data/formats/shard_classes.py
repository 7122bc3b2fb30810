"""The classes of tars: a list beside them, or what the samples say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torso.config import DataError
from torso.data.builder import Builder
from torso.data.formats import shard_labels as labels
from torso.data.formats.coco_categories import Categories
from torso.data.formats.shard_labels import Key

if TYPE_CHECKING:
    from torso.data.formats.shard_samples import Sample

NAME = "classes.json"
_TEXTS = ("classes.txt", "classnames.txt")
_MOST = 100_000  # classes


@dataclass
class Classes:
    """What ids and names mean."""

    of_id: dict[int, int]
    of_name: dict[str, int]

    @classmethod
    def of(cls, root: Path, samples: Sequence[Sample], builder: Builder, classes: Sequence[str] | None) -> Classes:
        """Reads the list, or all samples where there is none, and gives the builder its classes and keypoints.

        Raises:
            DataError: a list that is none, or more classes than can be.
        """
        if builder.task == "unlabeled":
            return cls({}, {})
        file = next((file for name in (NAME, *_TEXTS) if (file := root / name).is_file()), None)
        rows = _occurring(root, samples) if file is None else _listed(file)
        read = Categories.of(file or root, rows, builder, classes)
        read.read_keypoints(builder, file or root)
        if not builder.keypoint_names:
            builder.keypoint_names = _unnamed(samples)
        of_name = {name: label for number, label in read.labels.items() if label >= 0 for name in [read.names[number]]}
        return cls({number: label for number, label in read.labels.items() if label >= 0}, of_name)

    def label(self, key: Key) -> int | None:
        """The label of an id or a name."""
        return self.of_id.get(key) if isinstance(key, int) else self.of_name.get(key)

    def shown(self) -> str:
        """The classes for a message."""
        names = list(self.of_name)
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _listed(file: Path) -> list[Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text) if file.name == NAME else text.split("\n")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: expected a list of classes ({type(error).__name__}: {str(error)[:80]})") from error
    if isinstance(content, dict):
        content = content.get("categories")
    if not isinstance(content, list):
        raise DataError(f"{file}: expected a list of classes")
    if all(isinstance(name, str) for name in content):
        names = [name.strip() for name in content]
        while names and not names[-1]:
            names.pop()
        return [{"id": number, "name": name} for number, name in enumerate(names)]
    return content


def _occurring(root: Path, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The classes that samples name: numbers up to the largest, COCO's ids as they are, or names."""
    keys: set[Key] = set()
    coco = False
    for sample in samples:
        found, category = sample.keys()
        keys |= found
        coco |= category
    numbers = sorted(key for key in keys if isinstance(key, int))
    names = sorted(key for key in keys if isinstance(key, str) and key.strip())
    if not numbers:
        return [{"id": number, "name": name} for number, name in enumerate(dict.fromkeys(map(str.strip, names)))]
    if numbers[0] < 0 or (numbers[-1] >= _MOST and not coco):
        raise DataError(
            f"{root}: expected classes in 0..{_MOST - 1}, came {numbers[0]}..{numbers[-1]}; list them in {NAME}"
        )
    return [{"id": number, "name": str(number)} for number in (numbers if coco else range(numbers[-1] + 1))]


def _unnamed(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Keypoints that no list names are called by their number."""
    for sample in samples:
        try:
            for _, row in labels.rows(sample.content()) if labels.has_objects(sample.content()) else ():
                points = row.get("keypoints") if isinstance(row, dict) else None
                if isinstance(points, list) and points:
                    return tuple(map(str, range(len(points) // 3)))
        except labels.LabelError:
            continue
    return ()

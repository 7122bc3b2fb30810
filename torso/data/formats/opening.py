"""From a path to an index: recognising the format, joining splits, passing a format's own options on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torso.config import DataError, suggestion
from torso.data.formats import FORMATS
from torso.data.formats.shards import Shards
from torso.data.index import Index, joined


def recognise(path: Path) -> str:
    """The name of the format a path holds.

    Raises:
        DataError: nothing there, or nothing known.
    """
    if not path.exists() and not Shards.recognise(path):  # a name with braces stands for several files
        parent = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
        raise DataError(f"{path}: no such file or folder; the nearest folder that exists is {parent}")
    for name, one in FORMATS.items():
        if one.recognise(path):
            return name
    inside = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) if path.is_dir() else path.name
    raise DataError(
        f"{path}: expected VOC (Annotations/*.xml), YOLO (data.yaml), COCO (annotations/instances_*.json), images/ and "
        f"masks/, a table (train.csv), tar shards or class folders; found {inside or 'an empty folder'}. "
        "Name the format with data.format (torso parts format)"
    )


def open_index(
    path: str | Path,
    split: str = "train",
    *,
    format: str | None = None,  # noqa: A002 - the word of the recipe
    classes: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Index:
    """Reads one split of a data set, or several joined by ``+``.

    Args:
        path: the data set's folder, or its ``data.yaml`` or json file.
        split: train, val, test, or any other the data set has; "all" where it has no lists; "train+val" for both.
        format: a name in ``FORMATS``; recognised from the folder when None.
        classes: the classes of the training split; labels are mapped to them by name.
        options: the format's own, by name: ``{"allow_outside": True}``.

    Returns:
        The index. What was wrong is in ``index.problems``; ``index.raise_if_fatal()`` stops on wrong labels.

    Raises:
        DataError: no such path, format, split or option, or nothing readable.
    """
    path = Path(path)
    name = format or recognise(path)
    if name not in FORMATS:
        raise DataError(f"data.format: no format is called {name!r}{suggestion(name, FORMATS)}")
    form = FORMATS[name]
    given = dict(options or {})
    known = [key for key, one in inspect.signature(form.read).parameters.items() if one.kind is one.KEYWORD_ONLY]
    for key in given:
        if key not in known:
            raise DataError(f"data.options.{key}: the format {name} has no such option{suggestion(key, known)}")
    splits = [split] if "+" not in split or split in form.splits(path) else split.split("+")
    found: list[Index] = []
    for one in splits:
        found.append(form.read(path, one, classes, **given))
        classes = classes or found[0].classes
    return joined(found)

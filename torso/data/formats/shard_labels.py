"""What the label members of a sample say: class, caption, and objects in two forms of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from torso.data.builder import Object
from torso.data.formats.coco_masks import mask_of, misfit

MAX_BYTES = 16 << 20  # of a label member
Report = Callable[[str, str], None]
"""Takes the kind of a problem and what it is."""
Key = int | str
"""A class as a label says it: its id, or its name."""
OBJECT = ("label", "category_id", "category")  # where an object says its class
_FLAGS = ("crowd", "difficult", "truncated", "occluded")


class LabelError(ValueError):
    """A label member that cannot be understood, in words."""


def parsed(data: bytes) -> dict[str, Any]:
    """A sample's JSON; a list is its annotations.

    Raises:
        LabelError: it is none.
    """
    try:
        content = json.loads(data)
    except RecursionError as error:
        raise LabelError("is nested too deeply") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise LabelError(f"is not JSON ({str(error)[:80]})") from error
    if isinstance(content, list):
        content = {"annotations": content}
    if not isinstance(content, dict):
        raise LabelError(f"expected an object or a list, came {ascii(content)[:60]}")
    return content


def class_of(data: bytes) -> Key:
    """What a ``cls`` member says: a number, or a name.

    Raises:
        LabelError: it is not one line of text.
    """
    try:
        text = data[:1000].decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise LabelError(f"is not UTF-8 text ({error.reason})") from error
    if not text or "\n" in text or len(data) > 1000:
        raise LabelError(f"expected a class, came {ascii(text)[:60]}")
    return int(text) if text.isascii() and text.lstrip("-").isdigit() and len(text) < 19 else text


def has_objects(content: dict[str, Any]) -> bool:
    """Whether a sample's JSON is about objects."""
    return "boxes" in content or "annotations" in content


def rows(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Where each object of a sample stands, and the object, as COCO has it (but for ``xyxy`` and ``label``).

    Raises:
        LabelError: columns of different lengths.
    """
    if "annotations" in content:
        yield from ((f"annotations[{number}]", row) for number, row in enumerate(_list(content, "annotations")))
        return
    boxes = _list(content, "boxes")
    columns = {key: _list(content, key) for key in _COLUMNS if key == "labels" or content.get(key) is not None}
    for key, column in columns.items():
        if len(column) != len(boxes):
            raise LabelError(f"{key}: expected one for each of {len(boxes)} boxes, came {len(column)}")
    for number, box in enumerate(boxes):
        yield f"boxes[{number}]", {"xyxy": box} | {_COLUMNS[key]: column[number] for key, column in columns.items()}


_COLUMNS = {
    "labels": "label", "areas": "area", "masks": "segmentation", "poses": "pose", "keypoints": "keypoints",
    "crowd": "crowd", "difficult": "difficult", "truncated": "truncated", "occluded": "occluded",
}  # fmt: skip


def key_of(row: dict[str, Any], *names: str) -> Key:
    """The class under the first of ``names`` that is there.

    Raises:
        LabelError: none is, or it is neither a number nor a name.
    """
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62):
        return value
    raise LabelError(f"expected a class (a number or a name), came {ascii(value)[:60]}")


def object_of(row: dict[str, Any], label: int, where: str, size: tuple[int, int], points: int, say: Report) -> Object:
    """One object; what is wrong with its mask or keypoints is said, and the box stays.

    Args:
        row: of `rows`.
        label: its class.
        where: for messages.
        size: width and height of the picture.
        points: keypoints an object has.
        say: takes problems.

    Raises:
        LabelError: the box or a flag is none.
    """
    mask, wrong = mask_of(row.get("segmentation"))
    wrong = wrong or misfit(mask, size)
    if wrong:
        say("malformed mask", f"{where}.segmentation: {wrong}")
        mask = None if isinstance(mask, dict) else mask
    keypoints = row.get("keypoints")
    if keypoints is not None and (not _numbers(keypoints) or len(keypoints) != 3 * points):
        say("malformed keypoints", f"{where}.keypoints: expected {3 * points} numbers; left out, the box stays")
        keypoints = None
    area, pose = row.get("area"), row.get("pose")
    flags = {name: _flag(row, name) for name in _FLAGS}
    flags["crowd"] |= _flag(row, "iscrowd")
    flags["difficult"] |= _flag(row, "ignore")
    return Object(
        _box(row),
        label,
        where=f"{where}: ",
        pose=pose if isinstance(pose, str) else "",
        keypoints=keypoints if keypoints else None,
        area=None if area is None or not _numbers([area]) else float(area),
        mask=mask,
        **flags,
    )


def _box(row: dict[str, Any]) -> tuple[float, float, float, float]:
    key = "xyxy" if "xyxy" in row else "bbox"
    value = row.get(key)
    if value is None or not _numbers(value) or len(value) != 4:
        raise LabelError(f"expected a box of four numbers, came {ascii(value)[:60]}")
    x0, y0, x1, y1 = map(float, value)
    return (x0, y0, x1, y1) if key == "xyxy" else (x0, y0, x0 + x1, y0 + y1)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(number, float) or (type(number) is int and abs(number) < 1 << 62) for number in value
    )


def _flag(row: dict[str, Any], name: str) -> bool:
    value = row.get(name, False)
    if value in (0, 1, None):  # and the booleans, which equal them
        return bool(value)
    raise LabelError(f"{name}: expected true or false, came {ascii(value)[:60]}")


def _list(content: dict[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        raise LabelError(f"{key}: expected a list, came {ascii(value)[:60]}")
    return value

"""Index -> tars: pictures byte for byte, labels as text, nothing that depends on the day or the machine."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from torso.config import DataError
from torso.data.decode import DecodeError
from torso.data.formats.coco_write import categories
from torso.data.formats.places import new_folder
from torso.data.formats.shard_classes import NAME
from torso.data.formats.shard_samples import PICTURES
from torso.data.index import Index
from torso.data.stores import Picture

PER_SHARD = 1000  # samples
_WORD = re.compile(r"[^A-Za-z0-9_-]+")
_FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif", "PPM": "ppm"}


def write_shards(index: Index, folder: Path, split: str, per_shard: int) -> None:
    """Writes the samples of an index, so many a tar.

    Raises:
        DataError: there are shards of this split already, or the index has classes of pixels.
    """
    if index.segments is not None:
        raise DataError(f"{index.root}: tars do not hold classes of pixels; convert to voc_segmentation or mask_folder")
    if per_shard < 1:
        raise DataError(f"per_shard: expected at least 1, came {per_shard}")
    folder = new_folder(index, folder)
    there = next(folder.glob(f"{split}-*.tar"), None)
    if there is not None:
        raise DataError(f"{there}: there are shards of {split!r} already, which would be mixed with these; remove them")
    if index.classes:
        text = json.dumps(categories(index), ensure_ascii=False, indent=1)
        (folder / NAME).write_text(text + "\n", encoding="utf-8")
    keys = _keys(index)
    for first in range(0, len(index), per_shard):
        file = folder / f"{split}-{first // per_shard:06d}.tar"
        with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
            for row in range(first, min(first + per_shard, len(index))):
                for kind, data in _sample(index, row, keys[row]):
                    _add(tar, f"{keys[row]}.{kind}", data)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, no owner
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def _keys(index: Index) -> list[str]:
    """The names of the pictures without their suffix, as plain words, a number added where two are the same."""
    taken: set[str] = set()
    keys = []
    for path in index.paths:
        stem = _WORD.sub("_", PurePosixPath(path).stem)[:80].strip("_") or "picture"
        key, number = stem, 1
        while key.casefold() in taken:
            key, number = f"{stem}_{number}", number + 1
        taken.add(key.casefold())
        keys.append(key)
    return keys


def _sample(index: Index, row: int, key: str) -> list[tuple[str, bytes]]:
    """The members of a sample: kinds and bytes."""
    found = [_picture(index.picture(row), index.paths[row])]
    said = _said(index, row, key)
    captions = [] if index.captions is None else index.captions[row]
    if index.image_labels is not None:
        found.append(("cls", str(index.class_ids[index.image_labels[row]]).encode()))
    if len(captions) == 1 and captions[0].strip() == captions[0] != "":
        found.append(("txt", captions[0].encode("utf-8", "surrogateescape")))
    elif captions:
        said["captions"] = captions
    if said:
        found.append(("json", json.dumps(said, ensure_ascii=True).encode()))
    return found


def _picture(picture: Picture, name: str) -> tuple[str, bytes]:
    """The kind and the bytes; what is no file yet becomes a PNG."""
    if isinstance(picture, np.ndarray):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        return "png", buffer.getvalue()
    try:
        data = picture if isinstance(picture, bytes) else picture.read_bytes()
    except OSError as error:
        raise DecodeError(name, f"cannot be read ({error.strerror})") from error
    kind = PurePosixPath(name).suffix.lower().removeprefix(".")
    if kind in PICTURES:
        return kind, data
    with Image.open(io.BytesIO(data)) as image:
        return _FORMATS.get(image.format or "", "png"), data


def _said(index: Index, row: int, key: str) -> dict[str, Any]:
    """What the json of a sample says; columns that say nothing are left out."""
    said: dict[str, Any] = {}
    name = PurePosixPath(index.paths[row]).name
    if index.image_ids[row] != key:
        said["image_id"] = index.image_ids[row]
    if PurePosixPath(name).stem != key:
        said["file_name"] = name
    if index.task != "detect":
        return said
    at = index.objects(row)
    boxes = index.boxes[at]
    said["boxes"] = boxes.tolist()
    said["labels"] = [index.class_ids[label] for label in index.labels[at]]
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    if not np.array_equal(own, index.area[at]):
        said["areas"] = index.area[at].tolist()
    for flag in ("crowd", "difficult", "truncated", "occluded"):
        column = getattr(index, flag)
        if column is not None and column[at].any():
            said[flag] = column[at].tolist()
    if index.keypoints is not None and index.keypoints[at].any():
        said["keypoints"] = index.keypoints[at].reshape(len(boxes), -1).tolist()
    for column, key_ in ((index.masks, "masks"), (index.poses, "poses")):
        values = [] if column is None else column[at]
        if any(values):
            said[key_] = values
    return said

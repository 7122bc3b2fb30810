"""Any map-style data set of torch as an index: pictures are asked for when they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.decode import DecodeError, Pixels
from torso.data.index import Index


class MapStyle(Protocol):
    """What ``torch.utils.data.Dataset`` promises: a length, and items by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Any: ...


class Items:
    """The pictures of a data set, read by asking it; a place is ``[item]``."""

    def __init__(self, dataset: MapStyle, sizes: Mapping[int, tuple[int, int]]) -> None:
        self.dataset = dataset
        self.sizes = sizes

    def read(self, place: NDArray[np.int64]) -> Pixels:
        """The pixels of one item.

        Raises:
            DecodeError: the data set fails, or gives a picture of another size than when the index was made.
        """
        row = int(place[0])
        try:
            pixels = pixels_of(self.dataset[row][0])
        except Exception as error:  # somebody else's code raises whatever it raises
            raise DecodeError(_name(self.dataset, row), f"{type(error).__name__}: {error}") from error
        size = (pixels.shape[1], pixels.shape[0])
        if size != self.sizes[row]:
            was, now = ("x".join(map(str, side)) for side in (self.sizes[row], size))
            raise DecodeError(
                _name(self.dataset, row), f"was {was} and is {now} now; give transforms to torso, not to the data set"
            )
        return pixels


def custom(
    dataset: MapStyle,
    classes: Sequence[str],
    task: Literal["detect", "classify", "unlabeled"] = "detect",
    first_label: int = 0,
) -> Index:
    """An index of any data set with ``__len__`` and ``__getitem__``, for `Loader` and everything after it.

    Each item is asked for once now, for its size and target, and again whenever its pixels are needed.

    Args:
        dataset: items are ``(picture, target)``. Pictures: PIL, arrays ``[H, W]`` or ``[H, W, 3]`` uint8 RGB, tensors
            ``[C, H, W]`` uint8 or float in 0..1. Targets: a class number, or a dict with ``boxes [n, 4]`` xyxy pixels,
            ``labels [n]`` and, if there are any, ``masks [n, H, W]``, ``iscrowd [n]``, ``area [n]``, ``image_id``.
        classes: their names.
        task: what the targets are.
        first_label: the number of the first class: 1 where 0 means the background, as in torchvision's references.

    Raises:
        DataError: an item that cannot be used, named by its number; a task with other targets.

    Source: torch.utils.data.Dataset; targets as torchvision's detection references have them, 2019.
    """
    if task not in ("detect", "classify", "unlabeled"):
        raise DataError(f"custom: task: expected detect, classify or unlabeled, came {task!r}")
    builder = Builder(Path(type(dataset).__name__), tuple(classes) if task != "unlabeled" else (), task=task)
    builder.class_ids = tuple(range(first_label, first_label + len(builder.classes)))
    sizes: dict[int, tuple[int, int]] = {}
    for row in range(len(dataset)):
        name = _name(dataset, row)
        try:
            item = dataset[row]
            picture, target = item if task != "unlabeled" or isinstance(item, tuple) else (item, None)
            pixels = pixels_of(picture)
        except Exception as error:  # somebody else's code raises whatever it raises
            raise DataError(f"{name}: expected (picture, target), came {type(error).__name__}: {error}") from error
        size = (pixels.shape[1], pixels.shape[0])
        label = _label(name, target, first_label, len(classes)) if task == "classify" else None
        builder.image(builder.root / f"{row:06d}.png", size, row, label)
        sizes[row] = size
        if task == "detect":
            builder.objects(_objects(name, target, first_label, size), builder.root / f"{row:06d}")
    index = builder.finish()
    places = np.array(list(sizes), np.int64)[:, None]
    return replace(index, store=Items(dataset, sizes), places=places, fingerprint="")


def pixels_of(picture: Any) -> Pixels:
    """A picture in any usual form as ``[H, W, 3]`` uint8 RGB.

    Raises:
        DataError: a form, a shape or a range that means nothing for sure.
    """
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    planes = hasattr(picture, "detach")  # a tensor: channels first
    values = np.asarray(picture.detach().cpu().numpy() if planes else picture)
    if planes and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    if values.dtype.kind == "f" and planes:
        if not (values.size and values.min() >= 0 and values.max() <= 1):
            raise DataError("expected floats in 0..1; leave normalising to the model")
        values = np.rint(values * 255).astype(np.uint8)
    if values.dtype != np.uint8 or not values.size:
        raise DataError(f"expected a picture of 8-bit values, came {values.dtype} {list(values.shape)}")
    if values.ndim == 2 or values.shape[2:] == (1,):
        values = np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
    if values.ndim != 3 or values.shape[2] != 3:
        raise DataError(f"expected a picture of 1 or 3 channels, came {list(values.shape)}")
    return np.ascontiguousarray(values)


def _name(dataset: MapStyle, row: int) -> str:
    return f"{type(dataset).__name__}[{row}]"


def _label(name: str, target: Any, first: int, count: int) -> int:
    try:
        label = int(target) - first
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected a class number, came {type(target).__name__}") from error
    if not 0 <= label < count:
        raise DataError(f"{name}: expected a class in {first}..{first + count - 1}, came {label + first}")
    return label


def _objects(name: str, target: Any, first: int, size: tuple[int, int]) -> list[Object]:
    if not isinstance(target, Mapping) or "boxes" not in target or "labels" not in target:
        raise DataError(f"{name}: expected a dict with boxes and labels, came {type(target).__name__}")
    form = getattr(target["boxes"], "format", None)
    if form is not None and getattr(form, "name", "XYXY") != "XYXY":
        raise DataError(f"{name}: expected boxes as XYXY, came {form.name}")
    boxes = _array(target["boxes"], np.float64).reshape(-1, 4)
    columns = {
        key: None if target.get(key) is None else _array(target[key], kind)
        for key, kind in (("labels", np.int64), ("iscrowd", np.int64), ("area", np.float64), ("masks", np.bool_))
    }
    for key, column in columns.items():
        if column is not None and len(column) != len(boxes):
            raise DataError(f"{name}: {len(boxes)} boxes, but {len(column)} {key}")
    labels, crowd, area, masks = columns.values()
    if masks is not None and masks.shape[1:] != size[::-1]:
        raise DataError(f"{name}: masks: expected {len(boxes)}x{size[1]}x{size[0]}, came {list(masks.shape)}")
    return [
        Object(
            (box[0], box[1], box[2], box[3]),
            int(labels[at]) - first if labels is not None else -1,
            where=f"object {at}: ",
            crowd=crowd is not None and bool(crowd[at]),
            area=None if area is None else float(area[at]),
            mask=None if masks is None else _encoded(masks[at]),
        )
        for at, box in enumerate(boxes.tolist())
    ]


def _array(value: Any, kind: Any) -> NDArray[Any]:
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value).astype(kind)


def _encoded(bitmap: NDArray[np.bool_]) -> dict[str, Any]:
    from torso.data.masks import encoded

    return encoded(bitmap)

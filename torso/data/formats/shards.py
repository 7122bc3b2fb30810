"""Tars of samples, in the form that WebDataset made usual: for data larger than one disk, read in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.formats import shard_labels as labels
from torso.data.formats.places import held_out, no_split
from torso.data.formats.shard_classes import Classes
from torso.data.formats.shard_names import is_pattern, shards
from torso.data.formats.shard_samples import Sample, Shard
from torso.data.formats.shard_write import PER_SHARD, write_shards
from torso.data.index import ImageId, Index, Task
from torso.data.tars import Tars

_UNSPLIT = ("train", "val", "all")


class Shards:
    """``train-000000.tar``, ``train-000001.tar``, ...: members with one key are a sample.

    The key is a member's name up to the first dot. A sample is a picture (jpg jpeg png webp bmp gif tif tiff ppm pgm)
    and what is said of it: ``cls`` (a number or a name), ``txt`` (a caption), ``json`` (``{"boxes": [[x0, y0, x1, y1],
    ...], "labels": [...]}``, in pixels, or COCO's annotations as a list or under ``annotations``). Classes are those of
    ``classes.json`` (COCO's categories), ``classes.txt`` or ``classnames.txt`` beside the tars, else the numbers or
    names that occur. Members that could run code when they are opened (pickles and their kin) are errors; other members
    are named and left alone. Links, devices, pipes and compressed tars are refused. Where no file or folder is called
    after a split, a fifth of the samples, chosen by a fixed seed from their keys, is "val", the rest "train".

    A path may be a folder, one tar, or a name with braces, ``train-{000000..000127}.tar``.

    Source: High Performance I/O For Large Scale Deep Learning (WebDataset), 2020, arXiv:2001.01858.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there are tars, here or in a split's folder."""
        return is_pattern(path) or (path.suffix == ".tar" and path.is_file()) or (path.is_dir() and bool(shards(path)))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        found = shards(path)
        return sorted(found) if _named(found) else list(_UNSPLIT)

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split. What the tars hold is remembered in the user's cache, by size and times.

        Raises:
            DataError: no such split, no tar, a tar that is compressed or missing, or nothing readable.
        """
        found = shards(path)
        if not found:
            raise DataError(
                f"{path}: expected tars (train-000000.tar, ...), a tar, or a name such as a-{{000..127}}.tar"
            )
        if split not in (found if _named(found) else _UNSPLIT):
            raise no_split(path, split, Shards.splits(path))
        return _Reading(path, found, split, classes).index()

    @staticmethod
    def write(index: Index, folder: Path, split: str, per_shard: int = PER_SHARD) -> None:
        """Writes ``{split}-000000.tar`` and so on, and ``classes.json``; the same bytes for the same index.

        Raises:
            DataError: there are shards of this split already, or classes of pixels, which tars do not hold.
        """
        write_shards(index, folder, split, per_shard)


def _named(found: dict[str, list[Path]]) -> bool:
    """Whether the tars say which split they are of."""
    return len(found) > 1 or not set(found).isdisjoint(("train", "val", "test"))


@dataclass
class _Reading:
    """One split while it is read."""

    path: Path
    found: dict[str, list[Path]]
    split: str
    classes: Sequence[str] | None
    places: list[tuple[int, int, int]] = field(default_factory=list)
    done: set[ImageId] = field(default_factory=set)

    def index(self) -> Index:
        """The index."""
        whole = sorted(file for files in self.found.values() for file in files)
        store = Tars(whole)  # of all splits, so that two can be joined
        chosen = set(self.found.get(self.split, whole))
        root = self.path if self.path.is_dir() else whole[0].parent
        builder = Builder(root, ())
        contents = [Shard.read(store, number, root) for number, file in enumerate(whole) if file in chosen]
        for shard in contents:
            shard.report(builder)
        samples = [sample for shard in contents for sample in shard.samples]
        if not _named(self.found):
            kept = held_out({sample.key for sample in samples}, self.split)
            samples = [sample for sample in samples if sample.key in kept]
        builder.task = _task(samples)
        known = Classes.of(root, samples, builder, self.classes)
        ids = _ids(samples)
        for sample in samples:
            self._add(builder, sample, known, ids)
        index = builder.finish()
        return replace(index, store=store, places=np.array(self.places, np.int64).reshape(-1, 3), fingerprint="")

    def _add(self, builder: Builder, sample: Sample, known: Classes, ids: dict[str, ImageId]) -> None:
        """One sample, or what was wrong with it."""
        size = sample.size(builder)
        if size is None:
            return
        try:
            content = sample.content()
            label = _label(builder, sample, known, content) if builder.task == "classify" else None
            objects = _objects(builder, sample, known, content, size) if builder.task == "detect" else []
        except labels.LabelError as error:
            builder.report("malformed file", sample.named("json" if "json" in sample.members else "cls"), str(error))
            return
        if builder.task == "classify" and label is None:
            return
        said = content.get("image_id")
        own = said if isinstance(said, int | str) and not isinstance(said, bool) else ids[sample.path]
        if own in self.done:
            message = f"image_id: {ascii(own)[:60]} is the id of another sample; left out"
            builder.report("duplicate image id", sample.named("json"), message)
            return
        self.done.add(own)
        captions = [text for text in [sample.caption(builder)] if text] or _captions(content)
        builder.image(sample.named(sample.picture), size, own, label, captions=captions)
        builder.objects(objects, sample.named("json"))
        self.places.append(sample.place)


def _task(samples: Sequence[Sample]) -> Task:
    """What the labels are about: told by the first json that has objects or a class, else by the other members."""
    for sample in samples:
        try:
            content = sample.content()
        except labels.LabelError:
            continue
        if labels.has_objects(content):
            return "detect"
        if "label" in content:
            return "classify"
    return "classify" if any("cls" in sample.members for sample in samples) else "unlabeled"


def _ids(samples: Sequence[Sample]) -> dict[str, ImageId]:
    """Keys, or paths where shards count anew."""
    counts = Counter(sample.key for sample in samples)
    unique = len(counts) == len(samples)
    return {sample.path: sample.key if unique else sample.path for sample in samples}


def _label(builder: Builder, sample: Sample, known: Classes, content: dict[str, Any]) -> int | None:
    """The class of a picture."""
    if "cls" not in sample.members and "label" not in content:
        builder.report("malformed row", sample.named(sample.picture), "has no class (cls); left out")
        return None
    kind, key = sample.key_of(content)
    label = known.label(key)
    if label is None:
        builder.report("unknown class", sample.named(kind), f"{key!r} is not one of the classes {known.shown()}")
    return label


def _objects(
    builder: Builder, sample: Sample, known: Classes, content: dict[str, Any], size: tuple[int, int]
) -> list[Object]:
    found = []
    file = sample.named("json")
    for where, row in labels.rows(content) if labels.has_objects(content) else ():
        try:
            if not isinstance(row, dict):
                raise labels.LabelError(f"expected an object, came {ascii(row)[:60]}")
            key = labels.key_of(row, *labels.OBJECT)
            label = known.label(key)
            if label is None:
                builder.report("unknown class", file, f"{where}: {key!r} is not one of the classes {known.shown()}")
                continue
            points = len(builder.keypoint_names)
            found.append(
                labels.object_of(row, label, where, size, points, lambda kind, text: builder.report(kind, file, text))
            )
        except labels.LabelError as error:
            builder.report("malformed row", file, f"{where}: {error}")
    return found


def _captions(content: dict[str, Any]) -> list[str]:
    said = content.get("captions")
    return [text for text in said if isinstance(text, str)] if isinstance(said, list) else []

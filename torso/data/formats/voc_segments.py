"""PASCAL VOC's segmentation: a PNG of classes a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.formats.places import copied, mapped, new_folder
from torso.data.formats.voc import located, object_of, picture_folders, picture_of, stems_of, write_pages, years_of
from torso.data.formats.voc_instances import Runs, read_objects, write_objects
from torso.data.formats.voc_lists import image_sets, lines_of, text_of, voc_classes
from torso.data.formats.voc_xml import read_page
from torso.data.index import Index
from torso.data.masks import box_of, rasterise
from torso.data.palette import BORDER, IGNORED, UNKNOWN, Color, Legend, check_all, voc_colormap, write_numbers

_MAP = "labelmap.txt"


class VocSegmentation:
    """SegmentationClass of a VOCdevkit year folder: the numbers of a palette PNG are classes, 255 counts neither way.

    Classes are those of ``labelmap.txt`` (``name:red,green,blue::``) where it exists, the lines of ``labels.txt``
    after "background", or VOC's 21. Coloured PNG are read through the colours of the label map, else VOC's. Where
    SegmentationObject has the picture too, its objects are read with their masks, and with the box and the flags of
    their XML if there is one.

    Splits are the lists of ``ImageSets/Segmentation``; in the parent of several years ``2012_train`` and so on.

    Source: The PASCAL Visual Object Classes (VOC) Challenge, 2010.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there is a SegmentationClass."""
        return path.is_dir() and any(
            (place / "SegmentationClass").is_dir() for place in (path, *years_of(path).values())
        )

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        years = years_of(path)
        if len(years) > 1:
            return [f"{year}_{split}" for year, root in years.items() for split in _lists(root)]
        root = next(iter(years.values()), path)
        return _lists(root) or ["train", "val", "all"]

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split."""
        root, split = located(path, split)
        name = f"Segmentation/{split}"
        files = {file.stem: file for file in sorted((root / "SegmentationClass").glob("*.png"))}
        if not files:
            raise DataError(f"{root}: expected SegmentationClass/*.png, found none")
        own, legend = legend_of(root)
        chosen, label_of = mapped(own, classes)
        builder = Builder(root, chosen, task="segment", legend=translated(legend, own, label_of))
        places = picture_folders(root, root / "SegmentationClass")
        listed = []
        for stem in stems_of(root, name if name in image_sets(root) else split, files):
            picture = picture_of(root / f"{stem}.xml", "", places)
            size = builder.size_of(picture)
            if size is not None:
                listed.append((picture, files.get(stem, root / "SegmentationClass" / f"{stem}.png"), size))
        add_checked(builder, listed, label_of)
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes a year folder with ``labelmap.txt``; 255 stays 255.

        Raises:
            DataError: the index does not say the class of every pixel.
        """
        if index.segments is None:
            raise DataError(
                f"{index.root}: SegmentationClass says the class of every pixel, and these pictures come without; "
                "to write objects with their masks, convert to voc"
            )
        rows = [row for row in range(len(index)) if index.segments[row] is not None]
        index = index.select(rows)
        folder = new_folder(index, folder)
        names = copied(index, folder / "JPEGImages")
        for kind in ("SegmentationClass", "ImageSets/Segmentation"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        if len(index.labels):
            write_pages(index, names, folder / "Annotations", write_objects(index, names, folder, split))
        for row, name in enumerate(names):
            labels = index.segment(row)
            if labels is not None:
                write_numbers(labels, folder / "SegmentationClass" / f"{Path(name).stem}.png")
        stems = "".join(f"{Path(name).stem}\n" for name in names)
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(stems, encoding="utf-8")
        lines = [f"{name}:{','.join(map(str, voc_colormap()[n]))}::\n" for n, name in enumerate(index.classes)]
        (folder / _MAP).write_text("# label:color_rgb:parts:actions\n" + "".join(lines), encoding="utf-8")


def legend_of(root: Path) -> tuple[list[str], Legend]:
    """The classes of a year folder and how its PNG are read."""
    if (root / _MAP).is_file():
        names, colors = read_label_map(root / _MAP)
        kept = [name for name, color in zip(names, colors, strict=True) if color != BORDER]
        labels = tuple(kept.index(name) if name in kept else IGNORED for name in names)
        return kept, Legend(tuple(colors), () if kept == names else labels)
    if (root / "labels.txt").is_file():
        names = lines_of(root / "labels.txt")
        return names if names[:1] == ["background"] else ["background", *names], Legend()
    return list(voc_classes(background=True)), Legend()


def read_label_map(file: Path) -> tuple[list[str], list[Color]]:
    """Names and colours of ``name:red,green,blue:parts:actions`` lines.

    Raises:
        DataError: a line that is none.
    """
    names, colors = [], []
    for number, line in enumerate(text_of(file).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        values = rest.partition(":")[0].split(",")
        if len(values) != 3 or not all(value.strip().isdecimal() and int(value) < 256 for value in values):
            raise DataError(f"{file}:{number}: expected name:red,green,blue::, came {line[:60]!r}")
        names.append(name.strip())
        colors.append((int(values[0]), int(values[1]), int(values[2])))
    return names, colors


def translated(legend: Legend, own: Sequence[str], label_of: dict[str, int]) -> Legend:
    """The legend when labels are those of the training split; classes it does not have must not occur."""
    wanted = [label_of.get(name, UNKNOWN) for name in own]
    if wanted == list(range(len(own))):
        return legend
    numbers = legend.labels or tuple(range(len(own)))
    labels = tuple(label if label in (IGNORED, UNKNOWN) else wanted[label] for label in numbers)
    return Legend(legend.colors, labels)


def add_checked(
    builder: Builder, listed: Sequence[tuple[Path, Path, tuple[int, int]]], label_of: dict[str, int] | None = None
) -> None:
    """Adds pictures with their PNG of classes: every one is looked into, and what is wrong with it is noted.

    Args:
        builder: what they are added to.
        listed: picture, PNG, and size of the picture.
        label_of: the labels of VOC's objects, where they are read as well.
    """
    checks = check_all(builder.legend, [(file, size) for _, file, size in listed], len(builder.classes))
    for (picture, file, size), (kind, message) in zip(listed, checks, strict=True):
        if message:
            builder.report(kind, file, message)
            if kind != "class out of range":
                continue
        name = file.stem if label_of is not None else picture.relative_to(builder.root).as_posix()
        builder.image(picture, size, name, segments=file)
        if label_of is not None and not message:
            _add_objects(builder, file, size, label_of)


def _add_objects(builder: Builder, file: Path, size: tuple[int, int], label_of: dict[str, int]) -> None:
    """The objects of SegmentationObject, joined to those of the XML by their number."""
    masks = read_objects(builder, file.stem, size)
    if not masks:
        return
    labels = builder.legend.read(file)
    page = builder.root / "Annotations" / f"{file.stem}.xml"
    items = read_page(page).objects if page.is_file() else ()
    rows: list[Object | None] = []
    for number, mask in masks.items():
        if number <= len(items) and items[number - 1].name in label_of:
            rows.append(object_of(builder, page, items[number - 1], label_of, 1, mask=mask))
        else:
            rows.append(_seen(mask, labels, size))
    builder.objects([row for row in rows if row is not None], file)


def _seen(mask: Runs, labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], size: tuple[int, int]) -> Object | None:
    """An object as the two PNG show it: its class is the one that most of its pixels have."""
    covers = rasterise(mask, size)
    counts = np.bincount(labels[covers], minlength=256)[:IGNORED]
    if not counts.any():
        return None
    return Object(box_of(covers), int(counts.argmax()), mask=mask, area=float(covers.sum()))


def _lists(root: Path) -> list[str]:
    return sorted(name.partition("/")[2] for name in image_sets(root) if name.startswith("Segmentation/"))

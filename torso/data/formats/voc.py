"""PASCAL VOC: one XML a picture."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.formats.places import copied, held_out, hidden, mapped, new_folder, no_split
from torso.data.formats.voc_instances import Runs, read_objects, write_objects
from torso.data.formats.voc_lists import (
    MAX_NAME,
    PROTOCOLS,
    VOC_CLASSES,
    image_sets,
    is_flagged,
    lines_of,
    one_class,
    stem_of,
    voc_protocol,
)
from torso.data.formats.voc_xml import SIDES, VocObject, VocPage, box_of, read_page, sides_of, write_page
from torso.data.index import Index, joined

_PICTURES = ("JPEGImages", "images", "Images", "imgs")
_SUFFIXES = (".jpg", ".png", ".jpeg", ".JPG", ".JPEG", ".PNG", ".bmp", ".webp")
_YEAR = re.compile(r"(20\d\d)_(.+)")


class Voc:
    """A VOCdevkit year folder (or its parent), or XML files beside their pictures.

    VOC counts pixels from 1 and includes the last one: ``(xmin, ymin, xmax, ymax)`` becomes
    ``(xmin - 1, ymin - 1, xmax, ymax)``; the option ``offset`` is 0 for files that count from 0. Classes are the
    lines of ``labels.txt`` where that exists, VOC's 20 where there are lists for each of them, else the sorted names
    of all annotations. Objects marked ``difficult`` count neither way. Boxes of parts are not kept.

    Splits are the lists of ``ImageSets``: ``train``, ``Segmentation/train`` (with the masks of SegmentationObject),
    ``Layout/train``, ``Action/train``, and ``cat_train``, which reads a classification of cat or not. In the parent
    of several years they are ``2007_train`` and so on, and the protocols ``07+12`` and ``07++12``. Without lists a
    fifth of the names is "val", the rest "train".

    Source: The PASCAL Visual Object Classes (VOC) Challenge, 2010.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there are VOC annotations."""
        if not path.is_dir():
            return False
        return any(_annotations(place) is not None for place in (path, *years_of(path).values()))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        years = {} if _annotations(path) is not None else years_of(path)
        if len(years) > 1:
            found = [f"{year}_{split}" for year, root in years.items() for split in _ordinary(root)]
            return found + [name for name, (train, _) in PROTOCOLS.items() if {*train.split("+")} <= {*found}]
        return _ordinary(year_of(path)) or ["train", "val", "all"]

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None, *, offset: float = 1) -> Index:
        """The index of one split; ``offset`` is what the numbers of the first pixel are: 1 for VOC, 0 for others."""
        if split in PROTOCOLS and years_of(path):
            parts: list[Index] = []
            for one in voc_protocol(split)[0].split("+"):
                parts.append(Voc.read(path, one, classes, offset=offset))
                classes = parts[0].classes
            return joined(parts)
        root, split = located(path, split)
        folder = _annotations(root)
        if folder is None:
            raise DataError(f"{root}: expected Annotations/*.xml or *.xml beside pictures, found none")
        lists = image_sets(root)
        single = one_class(split, lists)
        if single is not None and split in lists and is_flagged(lists[split]):
            return _classified(root, single[0], lists[split], picture_folders(root, folder))
        files = {file.stem: file for file in sorted(folder.glob("*.xml")) if not hidden(file)}
        known = _known_classes(root, lists)
        # Where no list says which classes there are, all pages together do, whatever the split.
        pages = {} if known else {stem: read_page(file) for stem, file in files.items()}
        own = known or sorted({item.name for page in pages.values() for item in page.objects} - {""})
        chosen, label_of = mapped(own, classes)
        builder = Builder(root, chosen)
        stems = stems_of(root, split, files)
        if stems and not any(stem in files for stem in stems):
            raise DataError(
                f"{root}: {split} names {len(stems)} pictures, and none of them has an annotation in {folder.name}; "
                "labels of VOC's test pictures of 2008 and later were never published"
            )
        listed = (pages.get(stem) or _page(builder, files, folder, stem, split) for stem in stems)
        _add_all(builder, (page for page in listed if page is not None), label_of, offset, split)
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes a year folder; masks go into SegmentationObject and SegmentationClass where every object has one.

        There a pixel has one object: where masks overlap, the later one wins. Crowds are written as difficult.
        """
        folder = new_folder(index, folder)
        names = copied(index, folder / "JPEGImages")
        lists = folder / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        write_pages(index, names, folder / "Annotations", write_objects(index, names, folder, split))
        stems = "".join(f"{Path(name).stem}\n" for name in names)
        (lists / f"{split}.txt").write_text(stems, encoding="utf-8")
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in index.classes), encoding="utf-8")


def write_pages(index: Index, names: list[str], folder: Path, segmented: set[int]) -> None:
    """Writes the XML of all pictures, which are called ``names``; ``segmented`` are rows that have masks as well."""
    folder.mkdir(exist_ok=True)
    for row, name in enumerate(names):
        size = (int(index.sizes[row, 0]), int(index.sizes[row, 1]))
        page = VocPage(folder, name, size, row in segmented, tuple(_objects(index, row)))
        (folder / f"{Path(name).stem}.xml").write_text(write_page(page), encoding="utf-8")


def years_of(path: Path) -> dict[str, Path]:
    """The year folders in a VOCdevkit, or in the folder that holds it: "2007" to VOC2007."""
    labelled = ("Annotations", "SegmentationClass")
    kit = path / "VOCdevkit" if (path / "VOCdevkit").is_dir() else path
    found = sorted(year for year in kit.glob("VOC20[0-9][0-9]") if any((year / name).is_dir() for name in labelled))
    return {year.name[3:]: year for year in found}


def year_of(path: Path) -> Path:
    """The year folder, when its parent was given and holds only one."""
    if _annotations(path) is None:
        years = years_of(path)
        if len(years) > 1:
            names = ", ".join(f"VOC{year}" for year in years)
            raise DataError(f"{path}: holds {names}; give one of these folders, or a split such as {min(years)}_train")
        if years:
            return next(iter(years.values()))
    return path


def located(path: Path, split: str) -> tuple[Path, str]:
    """Year folder and split: of a VOCdevkit, ``2007_train`` is the list ``train`` of VOC2007."""
    named = _YEAR.fullmatch(split)
    if named is None:
        return year_of(path), split
    year, rest = named.groups()
    root = path if path.name == f"VOC{year}" else years_of(path).get(year)
    if root is not None and split not in image_sets(root):
        return root, rest
    return year_of(path), split


def stems_of(root: Path, split: str, known: Collection[str]) -> list[str]:
    """The names in a split, each once: those of its list, or a side of a seeded split where there are no lists."""
    lists = image_sets(root)
    if split in lists:
        return list(dict.fromkeys(stem_of(line, known) for line in lines_of(lists[split])))
    if split != "all" and (lists or split not in ("train", "val")):
        raise no_split(root, split, _ordinary(root) or ["train", "val", "all"])
    chosen = held_out(known, split)
    return [stem for stem in known if stem in chosen]


def _ordinary(root: Path) -> list[str]:
    """The lists of pictures in Main; those of one class and of other competitions can be read as well."""
    lists = image_sets(root)
    main = sorted(name for name in lists if "/" not in name)
    return [name for name in main if one_class(name, main) is None or not is_flagged(lists[name])]


def _known_classes(root: Path, lists: dict[str, Path]) -> list[str]:
    listed = root / "labels.txt"
    if listed.is_file():
        return lines_of(listed)
    singles = {single[0] for name in lists if (single := one_class(name, lists)) is not None}
    return list(VOC_CLASSES) if singles >= {*VOC_CLASSES} else []


def _annotations(path: Path) -> Path | None:
    for folder in (path / "Annotations", path / "annotations", path):
        if folder.is_dir() and next(folder.glob("*.xml"), None) is not None:
            return folder
    return None


def picture_folders(root: Path, folder: Path) -> list[Path]:
    """Where pictures are looked for; ``folder`` has the labels."""
    near = [root / name for name in _PICTURES] + [folder] + [folder.parent / name for name in _PICTURES] + [root]
    return [place for place in dict.fromkeys(near) if place.is_dir()]


def _page(builder: Builder, files: dict[str, Path], folder: Path, stem: str, split: str) -> VocPage | None:
    if stem in files:
        return read_page(files[stem])
    builder.report("missing label file", folder / f"{stem}.xml", f"listed in {split}, but there is no such file")
    return None


def _add_all(builder: Builder, pages: Iterable[VocPage], label_of: dict[str, int], offset: float, split: str) -> None:
    """Adds the pictures of the pages and their objects."""
    places: list[Path] = []
    parts, where = 0, builder.root
    for page in pages:
        if page.wrong:
            builder.report("malformed file", page.file, page.wrong, page.wrong_line)
            continue
        places = places or picture_folders(builder.root, page.file.parent)
        picture = picture_of(page.file, page.filename, places)
        size = builder.size_of(picture, page.size, page.file)
        if size is None:
            continue
        builder.image(picture, size, page.file.stem)
        masks = read_objects(builder, page.file.stem, size) if split.startswith("Segmentation/") else {}
        rows = (
            object_of(builder, page.file, item, label_of, offset, mask=masks.get(number))
            for number, item in enumerate(page.objects, 1)
        )
        builder.objects([row for row in rows if row is not None], page.file)
        if any(item.parts for item in page.objects):
            parts, where = parts + sum(item.parts for item in page.objects), page.file
    if parts:
        builder.report("ignored", where, f"boxes of parts (head, hand, foot) are not read; {parts} in all files")


def object_of(
    builder: Builder,
    file: Path,
    item: VocObject,
    label_of: dict[str, int],
    offset: float,
    *,
    mask: Runs | None = None,
) -> Object | None:
    """One object; None (noted) where it cannot be used."""
    if item.name not in label_of:
        builder.report("unknown class", file, f"class {item.name!r} is not one of {', '.join(label_of)}", item.line)
        return None
    try:
        box = box_of(item.sides, offset)
    except ValueError:
        builder.report("malformed row", file, f"expected numbers {', '.join(SIDES)} in <bndbox>", item.line)
        return None
    return Object(
        box,
        label_of[item.name],
        item.line,
        difficult=item.difficult,
        truncated=item.truncated,
        occluded=item.occluded,
        pose=item.pose,
        mask=mask,
        area=None if mask is None else float(sum(mask["counts"][1::2])),
    )


def _classified(root: Path, name: str, file: Path, places: list[Path]) -> Index:
    """A list of one class: pictures that show it or not; where it is only hard to see, they are left out."""
    builder = Builder(root, (f"no {name}", name), task="classify")
    hard = 0
    for line in lines_of(file):
        stem, flag = line.rsplit(maxsplit=1)
        picture = picture_of(root / f"{stem}.xml", "", places)
        size = builder.size_of(picture) if flag != "0" else None
        if size is not None:
            builder.image(picture, size, stem, int(flag == "1"))
        hard += flag == "0"
    if hard:
        builder.report("ignored", file, f"{hard} pictures on which {name} is difficult (0) are left out")
    return builder.finish()


def picture_of(file: Path, filename: str, places: list[Path]) -> Path:
    """The picture of an annotation: by the name inside, else by the file's own stem; labels move without their text."""
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    if not name.isprintable() or len(name.encode("utf-8", "replace")) > MAX_NAME:
        name = ""
    tried = chain(
        (place / name for place in places if name and Path(name).stem == file.stem),
        (place / f"{file.stem}{suffix}" for place in places for suffix in _SUFFIXES),
        (place / name for place in places if name),
    )
    found = next((path for path in tried if path.is_file()), None)
    return found or places[0] / (name or f"{file.stem}.jpg")


def _objects(index: Index, row: int) -> Iterable[VocObject]:
    """The objects of one picture as a file says them."""
    objects = index.objects(row)
    for at in range(objects.start, objects.stop):
        x0, y0, x1, y1 = index.boxes[at].tolist()
        yield VocObject(
            index.classes[index.labels[at]],
            sides_of((x0, y0, x1, y1), 1),
            pose="" if index.poses is None else index.poses[at],
            truncated=bool(index.truncated[at]),
            difficult=bool(index.difficult[at] or index.crowd[at]),
            occluded=index.occluded is not None and bool(index.occluded[at]),
        )

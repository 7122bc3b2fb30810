"""PASCAL VOC: one XML a picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.formats.places import copied, held_out, hidden, mapped, new_folder, no_split
from torso.data.index import Index

MAX_XML = 16 << 20  # bytes
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_PICTURES = ("JPEGImages", "images", "Images", "imgs")


class Voc:
    """A VOCdevkit year folder (or its parent), or XML files beside their pictures.

    VOC counts pixels from 1 and includes the last one: ``(xmin, ymin, xmax, ymax)`` becomes
    ``(xmin - 1, ymin - 1, xmax, ymax)``. Classes are the lines of ``labels.txt`` where that exists, else the sorted
    names of all annotations. Objects marked ``difficult`` count neither way. Pose and part boxes are not kept.
    Splits are ``ImageSets/Main/*.txt`` or ``*.txt`` lists of names beside the folders; without any, a fifth of the
    names is "val", the rest "train".

    Source: The PASCAL Visual Object Classes (VOC) Challenge, 2010.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there are VOC annotations."""
        if not path.is_dir():
            return False
        return bool(_years(path)) or _annotations(path) is not None

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        root = _root(path)
        return sorted(_lists(root)) or ["train", "val", "all"]

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split."""
        root = _root(path)
        folder = _annotations(root)
        if folder is None:
            raise DataError(f"{root}: expected Annotations/*.xml or *.xml beside pictures, found none")
        # All of them, whatever the split: together they say which classes there are.
        pages = {file.stem: _parse(file) for file in sorted(folder.glob("*.xml")) if not hidden(file)}
        chosen, label_of = mapped(_class_names(root, pages.values()), classes)
        builder = Builder(root, chosen)
        places = _picture_folders(root, folder)
        for stem in _stems(root, split, list(pages)):
            page = pages.get(stem)
            if page is None:
                message = f"listed in {split}, but there is no such file"
                builder.report("missing label file", folder / f"{stem}.xml", message)
            elif page.wrong:
                builder.report("malformed file", page.file, page.wrong, page.wrong_line)
            else:
                _add(builder, page, places, label_of)
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes a year folder; masks have no place in it and are left out."""
        folder = new_folder(index, folder)
        names = copied(index, folder / "JPEGImages")
        labels = folder / "Annotations"
        lists = folder / "ImageSets" / "Main"
        labels.mkdir(exist_ok=True)
        lists.mkdir(parents=True, exist_ok=True)
        for row, name in enumerate(names):
            tree = _tree(index, row, name)
            ET.indent(tree)
            ET.ElementTree(tree).write(labels / f"{Path(name).stem}.xml", encoding="utf-8")
        stems = "".join(f"{Path(name).stem}\n" for name in names)
        (lists / f"{split}.txt").write_text(stems, encoding="utf-8")
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in index.classes), encoding="utf-8")


def _years(path: Path) -> list[Path]:
    return sorted(year for year in path.glob("VOC20[0-9][0-9]") if (year / "Annotations").is_dir())


def _root(path: Path) -> Path:
    """The year folder, when the parent was given."""
    if _annotations(path) is None:
        years = _years(path)
        if len(years) > 1:
            raise DataError(f"{path}: holds {', '.join(year.name for year in years)}; give one of these folders")
        if years:
            return years[0]
    return path


def _annotations(path: Path) -> Path | None:
    for folder in (path / "Annotations", path / "annotations", path):
        if folder.is_dir() and next(folder.glob("*.xml"), None) is not None:
            return folder
    return None


def _picture_folders(root: Path, folder: Path) -> list[Path]:
    near = [root / name for name in _PICTURES] + [folder] + [folder.parent / name for name in _PICTURES] + [root]
    return [place for place in dict.fromkeys(near) if place.is_dir()]


def _lists(root: Path) -> dict[str, Path]:
    """The files that list a split. ``cat_train.txt`` and the like list one class each and are left out."""
    main = root / "ImageSets" / "Main"
    if main.is_dir():
        files = {file.stem: file for file in main.glob("*.txt")}
        return {name: file for name, file in files.items() if not any(name.endswith(f"_{other}") for other in files)}
    known = ("train", "val", "trainval", "test", "valid")
    return {name: root / f"{name}.txt" for name in known if (root / f"{name}.txt").is_file()}


def _stems(root: Path, split: str, known: list[str]) -> list[str]:
    lists = _lists(root)
    if split in lists:
        lines = lists[split].read_text(encoding="utf-8-sig").splitlines()
        return [_stem(line.strip(), known) for line in lines if line.strip()]
    if split != "all" and (lists or split not in ("train", "val")):
        raise no_split(root, split, Voc.splits(root))
    chosen = held_out(known, split)
    return [stem for stem in known if stem in chosen]


def _stem(line: str, known: Collection[str]) -> str:
    """The stem a line means: a name with or without a suffix, or followed by a flag."""
    for stem in (line, Path(line).stem, line.split(maxsplit=1)[0]):
        if stem in known:
            return stem
    return line


@dataclass(frozen=True)
class _Page:
    """A parsed file, or what is wrong with it."""

    file: Path
    root: ET.Element
    text: bytes = b""
    wrong: str = ""
    wrong_line: int | None = None

    def lines(self) -> list[int]:
        """The line where each object starts; the parser does not keep it, so it is looked up."""
        line, found = 1, []
        for token in re.finditer(rb"\n|<object(?=[\s>])", self.text):
            if token[0] == b"\n":
                line += 1
            else:
                found.append(line)
        return found


def _parse(file: Path) -> _Page:
    empty = ET.Element("annotation")
    if file.stat().st_size > MAX_XML:
        return _Page(file, empty, wrong=f"is larger than {MAX_XML >> 20} MiB, no VOC annotation is")
    data = file.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return _Page(file, empty, wrong="has a DOCTYPE; VOC files have none, and entities are not read")
    if b"\0" in data:  # an encoding in which the line above would see nothing
        return _Page(file, empty, wrong="expected UTF-8 text")
    try:
        return _Page(file, ET.fromstring(data), data)
    except ET.ParseError as error:
        return _Page(file, empty, wrong=f"is not XML ({error})", wrong_line=error.position[0])
    except (ValueError, LookupError) as error:
        return _Page(file, empty, wrong=f"is not XML ({error})")


def _class_names(root: Path, pages: Iterable[_Page]) -> list[str]:
    listed = root / "labels.txt"
    if listed.is_file():
        return [line.strip() for line in listed.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    names = {_text(item, "name") for page in pages for item in page.root.iter("object")}
    return sorted(names - {""})


def _text(element: ET.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _add(builder: Builder, page: _Page, places: list[Path], label_of: dict[str, int]) -> None:
    """Adds the picture of one file and its objects."""
    picture = _picture(page.file, _text(page.root, "filename"), places)
    width, height = (page.root.findtext(f"size/{side}") or "" for side in ("width", "height"))
    stated = (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None
    size = builder.size_of(picture, stated, page.file)
    if size is None:
        return
    builder.image(picture, size, page.file.stem)
    items = list(page.root.iter("object"))
    lines = page.lines()
    if len(lines) != len(items):  # one of them in a comment
        lines = [1] * len(items)
    rows = (_object(builder, page.file, item, line, label_of) for item, line in zip(items, lines, strict=True))
    builder.objects([row for row in rows if row is not None], page.file)


def _object(builder: Builder, file: Path, item: ET.Element, line: int, label_of: dict[str, int]) -> Object | None:
    """One object; None (noted) where it cannot be used."""
    name = _text(item, "name")
    if name not in label_of:
        builder.report("unknown class", file, f"class {name!r} is not one of {', '.join(label_of)}", line)
        return None
    try:
        xmin, ymin, xmax, ymax = (float(_text(item, f"bndbox/{tag}")) for tag in _SIDES)
    except ValueError:
        builder.report("malformed row", file, f"expected numbers {', '.join(_SIDES)} in <bndbox>", line)
        return None
    if xmax <= xmin or ymax <= ymin:  # before the shift: a point in the file stays a point
        message = f"box ({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}) has no area; dropped"
        builder.report("degenerate box", file, message, line)
        return None
    difficult, truncated = (_text(item, flag).lower() not in ("", "0", "false") for flag in ("difficult", "truncated"))
    box = (xmin - 1, ymin - 1, xmax, ymax)
    return Object(box, label_of[name], line, difficult=difficult, truncated=truncated)


def _picture(file: Path, filename: str, places: list[Path]) -> Path:
    """The picture of an annotation: by the name inside, else by the file's own stem; labels move without their text."""
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    for place in places:
        if name and (place / name).is_file() and Path(name).stem == file.stem:
            return place / name
    for place in places:
        for suffix in (".jpg", ".png", ".jpeg", ".JPG", ".JPEG", ".PNG", ".bmp", ".webp"):
            if (place / f"{file.stem}{suffix}").is_file():
                return place / f"{file.stem}{suffix}"
    for place in places:
        if name and (place / name).is_file():
            return place / name
    return places[0] / (name or f"{file.stem}.jpg")


def _tree(index: Index, row: int, name: str) -> ET.Element:
    """One picture as a VOC element."""
    root = ET.Element("annotation")
    ET.SubElement(root, "folder").text = "JPEGImages"
    ET.SubElement(root, "filename").text = name
    size = ET.SubElement(root, "size")
    for tag, value in zip(("width", "height", "depth"), (*index.sizes[row].tolist(), 3), strict=True):
        ET.SubElement(size, tag).text = str(value)
    ET.SubElement(root, "segmented").text = "0"
    objects = index.objects(row)
    for at in range(objects.start, objects.stop):
        item = ET.SubElement(root, "object")
        ET.SubElement(item, "name").text = index.classes[index.labels[at]]
        ET.SubElement(item, "pose").text = "Unspecified"
        ET.SubElement(item, "truncated").text = str(int(index.truncated[at]))
        ET.SubElement(item, "difficult").text = str(int(index.difficult[at] or index.crowd[at]))
        box = ET.SubElement(item, "bndbox")
        x0, y0, x1, y1 = index.boxes[at].tolist()
        for tag, value in zip(_SIDES, (x0 + 1, y0 + 1, x1, y1), strict=True):
            ET.SubElement(box, tag).text = f"{value:.10g}"
    return root

"""PASCAL VOC: one XML a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.formats.places import copied, held_out, hidden, mapped, new_folder, no_split
from torso.data.index import Index

MAX_XML = 16 << 20  # bytes
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
        files = {file.stem: file for file in sorted(folder.glob("*.xml")) if not hidden(file)}
        trees = {stem: _parse(file) for stem, file in files.items()}
        own = _class_names(root, trees)
        chosen, label_of = mapped(own, classes)
        builder = Builder(root, chosen)
        places = _picture_folders(root, folder)
        for stem in _stems(root, split, list(files)):
            tree = trees.get(stem)
            if tree is None:
                builder.report(
                    "missing label file", folder / f"{stem}.xml", f"listed in {split}, but there is no such file"
                )
            elif isinstance(tree, str):
                builder.report("malformed file", files[stem], tree)
            else:
                _add(builder, files[stem], tree, places, label_of)
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


def _stems(root: Path, split: str, all_stems: list[str]) -> list[str]:
    lists = _lists(root)
    if split in lists:
        lines = lists[split].read_text(encoding="utf-8-sig").splitlines()
        return [line.split()[0] for line in lines if line.strip()]
    if split != "all" and (lists or split not in ("train", "val")):
        raise no_split(root, split, Voc.splits(root))
    chosen = held_out(all_stems, split)
    return [stem for stem in all_stems if stem in chosen]


def _parse(file: Path) -> ET.Element | str:
    """The root element, or what is wrong with the file."""
    if file.stat().st_size > MAX_XML:
        return f"is larger than {MAX_XML >> 20} MiB, no VOC annotation is"
    data = file.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return "has a DOCTYPE; VOC files have none, and entities are not read"
    try:
        return ET.fromstring(data)  # noqa: S314
    except (ET.ParseError, ValueError, LookupError) as error:
        return f"is not XML ({error})"


def _class_names(root: Path, trees: dict[str, ET.Element | str]) -> list[str]:
    listed = root / "labels.txt"
    if listed.is_file():
        return [line.strip() for line in listed.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    parsed = [tree for tree in trees.values() if not isinstance(tree, str)]
    names = {_text(item, "name") for tree in parsed for item in tree.iter("object")}
    return sorted(names - {""})


def _text(element: ET.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _add(builder: Builder, file: Path, tree: ET.Element, places: list[Path], label_of: dict[str, int]) -> None:
    """Adds the picture of one file and its objects."""
    picture = _picture(file, _text(tree, "filename"), places)
    said = tree.find("size")
    stated = None
    if said is not None:
        width, height = _text(said, "width"), _text(said, "height")
        stated = (int(width), int(height)) if width.isdigit() and height.isdigit() else None
    size = builder.size_of(picture, stated, file)
    if size is None:
        return
    builder.image(picture, size, file.stem)
    rows = []
    for number, item in enumerate(tree.iter("object")):
        where = f"object {number + 1}: "
        name = _text(item, "name")
        if name not in label_of:
            builder.report("unknown class", file, f"{where}class {name!r} is not one of {', '.join(label_of)}")
            continue
        try:
            xmin, ymin, xmax, ymax = (
                float(item.findtext(f"bndbox/{tag}") or "") for tag in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            builder.report("malformed row", file, f"{where}expected numbers xmin, ymin, xmax, ymax in <bndbox>")
            continue
        if xmax <= xmin or ymax <= ymin:  # before the shift: a point in the file stays a point
            message = f"{where}box ({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}) has no area; dropped"
            builder.report("degenerate box", file, message)
            continue
        flags = {flag: _text(item, flag) not in ("", "0", "false", "False") for flag in ("difficult", "truncated")}
        rows.append(Object((xmin - 1, ymin - 1, xmax, ymax), label_of[name], where=where, **flags))
    builder.objects(rows, file)


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
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), (x0 + 1, y0 + 1, x1, y1), strict=True):
            ET.SubElement(box, tag).text = f"{value:.10g}"
    return root

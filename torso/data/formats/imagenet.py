"""ImageNet as it is handed out: class folders of synsets, and a flat heap of validation pictures with a list."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torso.config import DataError
from torso.data.builder import Builder
from torso.data.formats.folder import Folder, add_classes, class_folders
from torso.data.formats.matlab import read_table
from torso.data.formats.places import images_under, inside, is_file, mapped, no_split
from torso.data.index import Index

WNID = re.compile(r"n\d{8}")
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_INSIDE = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
_SPLITS = {
    "train": ("train", "ILSVRC2012_img_train"),
    "val": ("val", "ILSVRC2012_img_val", "valid"),
    "test": ("test", "ILSVRC2012_img_test"),
}
_SYNSETS = ("LOC_synset_mapping.txt", "synset_words.txt", "synsets.txt")
_KITS = ("ILSVRC2012_devkit_t12/data", "ILSVRC/devkit/data", "devkit/data", "data", ".")


class Imagenet:
    """``train/n01440764/*.JPEG`` and ``val/*.JPEG``, flat or in class folders too.

    Classes are WordNet ids in sorted order, all of ``LOC_synset_mapping.txt``, ``synset_words.txt`` or
    ``synsets.txt`` where one is there, else those of the training folders; `words` has them in English. The truth of
    flat pictures is taken from ``{split}.txt`` (``name number``, counted from 0 in that order), Kaggle's
    ``LOC_val_solution.csv``, or the development kit, whose numbers count from 1 in an order of their own
    (``meta.mat`` or ``map_clsloc.txt`` says which).

    Source: ImageNet: A Large-Scale Hierarchical Image Database, 2009; layouts as torchvision ImageNet.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there are synsets."""
        if not path.is_dir():
            return False
        if any((path / name).is_file() for name in _SYNSETS):
            return bool(Imagenet.splits(path))
        train = _folder(path, "train")
        return train is not None and any(WNID.fullmatch(folder.name) for folder in class_folders(train))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        listed = [split for split in _SPLITS if _listing(path, split) is not None]
        return [split for split in _SPLITS if split in listed or _folder(path, split) is not None]

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split."""
        split = "val" if split == "valid" else split
        listing, folder = _listing(path, split), _folder(path, split)
        if split not in _SPLITS or (listing is None and folder is None):
            raise no_split(path, split, Imagenet.splits(path))
        own = _classes(path, folder)
        chosen, label_of = mapped(own, classes)
        builder = Builder(path, chosen, task="classify")
        if listing is not None:
            rows = _listed(builder, path, listing, folder, own)
        elif folder is not None and class_folders(folder):
            add_classes(builder, folder, label_of)
            return builder.finish()
        else:
            rows = _flat(builder, path, split, folder or path)
        for row in rows:
            if row.wnid not in label_of:
                builder.report("unknown class", row.file, f"class {row.wnid!r} is not one of the classes", row.line)
                continue
            size = builder.size_of(row.picture)
            if size is not None:
                shown = row.picture.relative_to(path).as_posix()
                builder.image(row.picture, size, shown, label_of[row.wnid])
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes one folder a class, and ``synsets.txt`` with all classes."""
        Folder.write(index, folder, split)
        (folder / "synsets.txt").write_text("".join(f"{name}\n" for name in index.classes), encoding="utf-8")


@dataclass(frozen=True)
class _Row:
    """A picture and the synset a line of a file gives it."""

    picture: Path
    wnid: str
    file: Path
    line: int


def words(path: Path) -> dict[str, str]:
    """What the classes are called in English: ``{"n01440764": "tench, Tinca tinca"}``; empty where nothing says it."""
    for name in (*_SYNSETS, *(f"{kit}/map_clsloc.txt" for kit in _KITS)):
        if (path / name).is_file():
            pairs = (line.split(maxsplit=1) for _, line in _lines(path / name))
            if name.endswith("map_clsloc.txt"):
                return {pair[0]: pair[1].partition(" ")[2].replace("_", " ") for pair in pairs if len(pair) == 2}
            return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    kit = _kit(path, "meta.mat")
    return {wnid: text for _, wnid, text in _meta(kit)} if kit is not None else {}


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Lines that say something, with their numbers."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: is not text that can be read ({error})") from error
    for line, row in enumerate(text.splitlines(), 1):
        if row.strip():
            yield line, row.strip()


def _folder(path: Path, split: str) -> Path | None:
    names = _SPLITS.get(split, ())
    return next((path / top / name for top in _INSIDE for name in names if (path / top / name).is_dir()), None)


def _listing(path: Path, split: str) -> Path | None:
    """``{split}.txt`` of names and numbers; it means something only with a list of synsets."""
    if not any((path / name).is_file() for name in _SYNSETS):
        return None
    return next((path / name for name in (f"{split}.txt",) if (path / name).is_file()), None)


def _classes(path: Path, folder: Path | None) -> list[str]:
    for name in _SYNSETS:
        if (path / name).is_file():
            found = [line.split(maxsplit=1)[0] for _, line in _lines(path / name)]
            if not found or len(set(found)) != len(found):
                raise DataError(f"{path / name}: expected a synset a line, none twice")
            return found
    train = _folder(path, "train")
    if train is not None:
        return [one.name for one in class_folders(train)]
    kit = _kit(path, TRUTH)
    if kit is not None:
        return sorted(_numbers(kit).values())
    return [one.name for one in class_folders(folder)] if folder is not None else []


# ---------------------------------------------------------------- where the truth of flat pictures is


def _listed(builder: Builder, path: Path, listing: Path, folder: Path | None, own: Sequence[str]) -> Iterator[_Row]:
    """``name number`` a line; names are relative to the split's folder, to ``images/``, or to the data set."""
    places = [place for place in (folder, path / "images", path) if place is not None and place.is_dir()]
    for line, row in _lines(listing):
        name, _, number = row.rpartition(" ")
        if not (number.isascii() and number.isdigit() and len(number) < 10) or not name:
            builder.report("malformed row", listing, f"expected a name and a number, came {row[:60]!r}", line)
            continue
        if int(number) >= len(own):
            message = f"expected a class in 0..{len(own) - 1}, came {number}"
            builder.report("class out of range", listing, message, line)
            continue
        picture = next((place / name for place in places if is_file(place / name)), places[0] / name)
        if not inside(picture, path):
            builder.report("malformed row", listing, f"{name[:60]!r} leaves the data set's folder", line)
            continue
        yield _Row(picture, own[int(number)], listing, line)


def _flat(builder: Builder, path: Path, split: str, folder: Path) -> Iterator[_Row]:
    """The pictures of a folder, each with the synset that Kaggle's table or the development kit gives it."""
    truth = _kaggle(path, split) if split != "test" else None
    kit = _kit(path, TRUTH) if split == "val" else None
    if truth is None and kit is None:
        names = f"LOC_{split}_solution.csv, {TRUTH}, or {split}.txt and synsets.txt"
        raise DataError(f"{folder}: pictures without class folders; expected {names} in {path}")
    if truth is None and kit is not None:
        truth = _ground_truth(kit)
    for picture in images_under(folder):
        row = (truth or {}).get(picture.stem)
        if row is None:
            builder.report("picture of no class", picture, "no line says what it shows; left out")
        else:
            yield _Row(picture, row[0], row[1], row[2])


def _kaggle(path: Path, split: str) -> dict[str, tuple[str, Path, int]] | None:
    """``ImageId,PredictionString``: the class is the first word of the second column."""
    file = path / f"LOC_{split}_solution.csv"
    if not file.is_file():
        return None
    rows = ((line, row.partition(",")) for line, row in _lines(file))
    return {stem: (rest.split()[0], file, line) for line, (stem, _, rest) in rows if rest.split()}


def _kit(path: Path, name: str) -> Path | None:
    """The folder of the development kit that has a file."""
    return next((path / kit for kit in _KITS if (path / kit / name).is_file()), None)


def _ground_truth(kit: Path) -> dict[str, tuple[str, Path, int]]:
    """Line ``n`` is about the picture whose name ends in ``n``."""
    file = kit / TRUTH
    wnids = _numbers(kit)
    found = {}
    for line, row in _lines(file):
        if not row.isdigit() or int(row) not in wnids:
            raise DataError(f"{file}:{line}: expected a number of a class in 1..{len(wnids)}, came {row[:40]!r}")
        found[f"ILSVRC2012_val_{line:08d}"] = (wnids[int(row)], file, line)
    return found


def _numbers(kit: Path) -> dict[int, str]:
    """The synset of each number of the development kit."""
    if (kit / "map_clsloc.txt").is_file():
        rows = [row.split() for _, row in _lines(kit / "map_clsloc.txt")]
        return {int(row[1]): row[0] for row in rows if len(row) > 1 and row[1].isdigit()}
    if (kit / "meta.mat").is_file():
        return {number: wnid for number, wnid, _ in _meta(kit)}
    raise DataError(f"{kit}: expected meta.mat or map_clsloc.txt beside {TRUTH}: they say what its numbers mean")


def _meta(kit: Path) -> list[tuple[int, str, str]]:
    """(number, synset, words) of the leaves in ``meta.mat``."""
    file = kit / "meta.mat"
    try:
        rows = read_table(file.read_bytes(), "synsets")
    except (OSError, DataError) as error:
        raise DataError(f"{file}: is not the meta.mat of the development kit ({error})") from error
    leaves = []
    for row in rows:
        number, wnid, text = row.get("ILSVRC2012_ID"), row.get("WNID"), row.get("words")
        if not (isinstance(number, int | float) and isinstance(wnid, str) and isinstance(text, str)):
            raise DataError(f"{file}: expected ILSVRC2012_ID, WNID and words of each synset")
        if row.get("num_children") == 0 and math.isfinite(number):
            leaves.append((int(number), wnid, text))
    return leaves

"""Folders of pictures beside folders of masks, whose pixels are classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torso.config import DataError
from torso.data.builder import Builder
from torso.data.formats.mask_legends import classes_and_legend
from torso.data.formats.places import copied, held_out, hidden, images_under, mapped, new_folder, no_split
from torso.data.formats.voc_lists import lines_of
from torso.data.formats.voc_segments import add_checked, translated
from torso.data.index import Index
from torso.data.palette import write_numbers

_IMAGES = ("images", "image", "imgs", "img", "JPEGImages", "leftImg8bit")
_MASKS = ("masks", "mask", "labels", "annotations", "semantic", "segmentation", "gt", "gtFine")
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif")
# What the names of a picture and its mask may have around the part they share.
_BEFORE = ("image_", "img_", "gt_", "mask_", "label_")
_AFTER = (
    "_leftImg8bit", "_image", "_img", "_gtFine_labelTrainIds", "_gtFine_labelIds", "_mask", "_masks", "_label",
    "_labels", "_gt", "_seg", "_segmentation", "_L",
)  # fmt: skip
_OTHER = ("_instanceIds", "_color", "_polygons", "_instance")  # Cityscapes' files that are no classes


class _Place(NamedTuple):
    """Folders of one split; ``names`` where a list says which of their pictures belong to it."""

    pictures: Path
    masks: Path
    names: frozenset[str] | None = None


class MaskFolder:
    """``images/`` and ``masks/`` with equal names (also ``labels``, ``annotations``, ``semantic``, ...).

    Either may have folders ``train``, ``val`` and ``test`` in it, or lie in such folders, or lists ``train.txt`` name
    the pictures; CamVid's ``train`` and ``trainannot`` and Cityscapes' ``leftImg8bit`` and ``gtFine`` are known too.
    Without any of it a fifth of the names is "val", the rest "train". Masks are grey or palette PNG read as numbers,
    255 counts neither way; coloured ones need a ``label_colors.txt`` or ``labelmap.txt``. The names of the classes
    stand in ``classes.txt``, the first is 0. Every mask is looked into: numbers that are no class, sizes that are
    not the picture's and names without a partner are reported file by file.

    Source: Segmentation and Recognition Using Structure from Motion Point Clouds (CamVid), 2008.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there are folders of pictures and of masks, and no boxes described beside them."""
        boxes = any(next(path.glob(told), None) is not None for told in ("*.yaml", "*.yml", "annotations/*.json"))
        return path.is_dir() and not boxes and bool(_places(path))

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        return [name for name in _places(path) if name] or ["train", "val", "all"]

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None) -> Index:
        """The index of one split."""
        places = _places(path)
        if not places:
            raise DataError(f"{path}: expected images/ and masks/ with PNG of equal names, found no such pair")
        if split not in (places if "" not in places else ("train", "val", "all")):
            raise no_split(path, split, MaskFolder.splits(path))
        place = places.get(split) or places[""]
        pictures, masks = _pictures(place, split if "" in places else ""), _masks(place.masks)
        own, legend = classes_and_legend(path, list(masks.values()))
        chosen, label_of = mapped(own, classes)
        builder = Builder(path, chosen, task="segment", legend=translated(legend, own, label_of))
        listed = []
        used = set()
        for picture in pictures:
            key = next((key for key in _keys(picture, place.pictures) if key in masks), None)
            if key is None:
                message = f"no mask belongs to it; looked for {place.masks / picture.stem}.png"
                builder.report("missing label file", picture, message)
                continue
            used.add(masks[key])
            size = builder.size_of(picture)
            if size is not None:
                listed.append((picture, masks[key], size))
        if place.names is None and "" not in places:
            for mask in sorted({*masks.values()} - used):
                builder.report("missing image", mask, "no picture belongs to this mask")
        add_checked(builder, listed)
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes ``images/{split}``, ``masks/{split}`` (palette PNG, 255 kept) and ``classes.txt``.

        Raises:
            DataError: the index does not say the class of every pixel.
        """
        if index.segments is None:
            raise DataError(
                f"{index.root}: mask folders say the class of every pixel, and these pictures come without; "
                "convert objects to voc or coco"
            )
        index = index.select([row for row in range(len(index)) if index.segments[row] is not None])
        folder = new_folder(index, folder)
        names = copied(index, folder / "images" / split)
        masks = folder / "masks" / split
        masks.mkdir(parents=True, exist_ok=True)
        for row, name in enumerate(names):
            labels = index.segment(row)
            if labels is not None:
                write_numbers(labels, masks / f"{Path(name).stem}.png")
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in index.classes), encoding="utf-8")


def _places(path: Path) -> dict[str, _Place]:
    """The folders of each split; under "" where there are no splits."""
    pairs = [(path / one, path / other) for one in _IMAGES for other in _MASKS if (path / one).is_dir()]
    pair = next((pair for pair in pairs if _holds(pair[1])), None)
    if pair is not None:
        found = {
            split: _Place(pair[0] / name, pair[1] / name)
            for split, names in _SPLITS.items()
            for name in names
            if (pair[0] / name).is_dir() and (pair[1] / name).is_dir()
        }
        return found or _listed(path, *pair)
    found = {}
    for split, names in _SPLITS.items():
        for name in names:
            inside = [(path / name / one, path / name / other) for one in _IMAGES for other in _MASKS]
            beside = [(path / name, path / f"{name}{after}") for after in ("annot", "_labels", "_masks")]
            for pictures, masks in inside + beside:
                if pictures.is_dir() and _holds(masks):
                    found.setdefault(split, _Place(pictures, masks))
    return found


def _listed(path: Path, pictures: Path, masks: Path) -> dict[str, _Place]:
    found = {}
    for split in ("train", "val", "test", "trainval"):
        if (path / f"{split}.txt").is_file():
            names = (line.split()[0] for line in lines_of(path / f"{split}.txt"))
            found[split] = _Place(pictures, masks, frozenset(Path(name).stem for name in names))
    return found or {"": _Place(pictures, masks)}


def _holds(folder: Path) -> bool:
    """Whether there is a file that could be a mask, here or one or two folders below (a split, a city)."""
    if not folder.is_dir():
        return False
    return any(next(folder.glob(f"{deep}*.png"), None) is not None for deep in ("", "*/", "*/*/"))


def _pictures(place: _Place, side: str) -> list[Path]:
    found = images_under(place.pictures, deep=True)
    if place.names is not None:
        return [picture for picture in found if picture.stem in place.names]
    kept = held_out([picture.name for picture in found], side) if side else None
    return [picture for picture in found if kept is None or picture.name in kept]


def _masks(folder: Path) -> dict[tuple[str, str], Path]:
    """The masks of a folder by the names they may be looked up with; the exact name wins."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _LOSSLESS and not hidden(file))
    files = [file for file in files if not file.stem.endswith(_OTHER)]
    if any(file.stem.endswith("_labelTrainIds") for file in files):
        files = [file for file in files if file.stem.endswith("_labelTrainIds")]
    found: dict[tuple[str, str], Path] = {}
    for rank in (0, 1):
        for file in files:
            found.setdefault(_keys(file, folder)[rank], file)
    return found


def _keys(file: Path, folder: Path) -> tuple[tuple[str, str], tuple[str, str]]:
    """Where a file lies in its folder, and its name: as it is, and without what may stand around the shared part."""
    inside = file.parent.relative_to(folder).as_posix()
    bare = file.stem
    for before in _BEFORE:
        bare = bare.removeprefix(before)
    for after in _AFTER:
        bare = bare.removesuffix(after)
    return (inside, file.stem), (inside, bare)

"""Where COCO's json files and their pictures lie."""

from __future__ import annotations

from pathlib import Path

from torso.data.formats.places import no_split

_ROBOFLOW = "_annotations.coco.json"


def files(path: Path, start: str, *, alone: bool = False, roboflow: bool = False) -> dict[str, Path]:
    """The json files by split.

    Args:
        path: a data set's folder, or one json.
        start: how the names begin: ``instances_`` for ``instances_val2017.json``.
        alone: take a json of any name when it is given itself.
        roboflow: take ``{split}/_annotations.coco.json`` too.
    """
    if path.is_file():
        fits = path.suffix == ".json" and (alone or path.name.startswith(start))
        return dict.fromkeys(("train", "val", "test", "all", split_of(path, start)), path) if fits else {}
    found: dict[str, Path] = {}
    if not path.is_dir():
        return found
    for folder in (path / "annotations", path / "coco", path):
        for file in sorted(folder.glob(f"{start}*.json")) if folder.is_dir() else []:
            found.setdefault(split_of(file, start), file)
    for file in sorted(path.glob(f"*/{_ROBOFLOW}")) if roboflow else []:
        found.setdefault("val" if file.parent.name == "valid" else file.parent.name, file)
    return found


def file_of(path: Path, split: str, found: dict[str, Path]) -> Path:
    """The json of a split.

    Raises:
        DataError: there is none.
    """
    file = found.get(split) or found.get("val" if split == "valid" else split)
    if file is None:
        raise no_split(path, split, sorted(found))
    return file


def split_of(file: Path, start: str) -> str:
    """``instances_val2017.json`` is "val"."""
    name = file.stem.removeprefix(start)
    return name[:-4] if name[-4:].isdigit() and len(name) > 4 else name


def places(root: Path, file: Path, split: str, start: str) -> list[Path]:
    """Folders where the pictures may lie, the likeliest first."""
    stem = file.stem.removeprefix(start)
    names = (split, stem, "images", f"images/{split}", f"images/{stem}", "JPEGImages", "")
    found = (base / name for base in (root, file.parent, file.parent.parent) for name in names)
    return [place for place in dict.fromkeys(found) if place.is_dir()]

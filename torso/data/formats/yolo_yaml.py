"""What a YOLO data set says about itself: ``data.yaml``, Darknet's ``obj.data``, or names beside folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torso.config import DataError
from torso.data.formats.places import exists, held_out, images_under, inside, is_folder, no_split

MAX_YAML = 1 << 20  # bytes; PyYAML takes seconds for it
MAX_DEPTH = 20
YAMLS = ("data.yaml", "dataset.yaml", "data.yml")
NAMES = ("obj.names", "classes.txt")
PICTURES = ("images", "Images")
LABELS = ("labels", "Labels", "Annotations")
_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class Description:
    """The classes, the places of the splits, and what else counts. All paths are relative to ``home``."""

    file: Path  # for messages
    home: Path  # nothing may leave it
    names: list[str]
    splits: dict[str, list[str]]  # folders, or text files of paths, as they are written
    path: str = ""  # what the key ``path`` puts between ``home`` and the entries
    darknet: bool = False  # a leading ``data/`` is ``home`` itself
    ignored: tuple[str, ...] = ()  # keys that are never followed
    keypoint_names: tuple[str, ...] = ()
    keypoint_values: int = 3  # a keypoint is x y, or x y visibility

    def split_names(self) -> list[str]:
        """The splits that exist; where there is but one heap of pictures, a fifth of it is "val"."""
        return ["train", "val", "all"] if set(self.splits) == {"all"} else list(self.splits)


def description_file(path: Path) -> Path | None:
    """The file that describes the data set, or the folder itself where names lie beside folders."""
    if path.is_file():
        return path if path.suffix in (".yaml", ".yml", ".data") else None
    for name in (*YAMLS, "obj.data"):
        if (path / name).is_file():
            return path / name
    named = any((path / name).is_file() for name in NAMES)
    return path if named and any((path / name).is_dir() for name in LABELS) else None


def described(path: Path) -> Description:
    """Reads the description.

    Raises:
        DataError: none there, or one without sense.
    """
    file = description_file(path)
    if file is None:
        raise DataError(f"{path}: expected a data.yaml, found none")
    if file.is_dir():
        return _beside_folders(file)
    return _darknet(file) if file.suffix == ".data" else _yaml(file)


def text_tree(file: Path) -> Any:
    """YAML as lists, dicts and text: every scalar stays text, so a class called ``no`` or ``1e3`` keeps its name.

    Raises:
        DataError: no YAML, or what could surprise: aliases, tags, a key twice.
    """
    import yaml

    try:
        data = file.read_bytes()
        if len(data) > MAX_YAML:
            raise DataError(f"{file}: is larger than {MAX_YAML} bytes; a description of a data set is not")
        text = data.decode("utf-8-sig")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise DataError(f"{file}: anchors and aliases are not read; write the values out")
            tag = getattr(event, "tag", None)
            if tag is not None:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise DataError(f"{file}:{line}: tags ({tag}) are not read; write plain values")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise DataError(f"{file}: is nested more than {MAX_DEPTH} deep")
        return _plain(file, yaml.compose(text, Loader=yaml.BaseLoader))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, OverflowError, IndexError) as error:  # its scanner lets Python's own through
        raise DataError(f"{file}: is not YAML ({' '.join(str(error).split())})") from error


def _plain(file: Path, node: Any) -> Any:
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return [_plain(file, item) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        return None if node is None else str(node.value)
    found: dict[str, Any] = {}
    for key, value in node.value:
        where = f"{file}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise DataError(f"{where}: a key must be a word or a number")
        if key.value in found:
            raise DataError(f"{where}: the key {key.value!r} is there already; remove one")
        found[key.value] = _plain(file, value)
    return found


def _yaml(file: Path) -> Description:
    content = text_tree(file)
    if not isinstance(content, dict) or "names" not in content:
        raise DataError(f"{file}: expected keys train, val and names")
    names = _names(file, content["names"])
    if str(content.get("nc", len(names))) != str(len(names)):
        raise DataError(f"{file}: nc is {content['nc']}, but names lists {len(names)} classes")
    splits = {}
    for split, keys in _SPLITS.items():
        value = next((content[key] for key in keys if content.get(key)), None)
        if value is not None:
            splits[split] = [str(entry) for entry in (value if isinstance(value, list) else [value])]
    points, values = _keypoints(file, content)
    return Description(
        file=file,
        home=file.parent,
        names=names,
        splits=splits,
        path=str(content.get("path") or ""),
        ignored=tuple(key for key in ("download",) if content.get(key)),
        keypoint_names=points,
        keypoint_values=values,
    )


def _names(file: Path, names: Any) -> list[str]:
    if isinstance(names, dict) and all(key.isascii() and key.isdigit() and len(key) < 10 for key in names):
        ids = sorted(map(int, names))
        if ids != list(range(len(ids))):
            listed = ", ".join(map(str, ids[:8]))
            raise DataError(f"{file}: names must be numbered 0..{len(ids) - 1} without gaps, came {listed}")
        names = [names.get(str(number)) for number in ids]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f"{file}: names: expected a list, or numbers from 0 with a name each")
    return _once(file, names)


def _once(file: Path, names: list[str]) -> list[str]:
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise DataError(f"{file}: names: {twice[0]!r} is there twice; classes are told apart by their names")
    return names


def _keypoints(file: Path, content: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    shape = content.get("kpt_shape")
    if shape is None:
        return (), 3
    count, values = shape if isinstance(shape, list) and len(shape) == 2 else ("", "")
    if not (str(count).isdecimal() and 0 < int(count) < 1000 and values in ("2", "3")):
        raise DataError(f"{file}: kpt_shape: expected [number of keypoints, 2 or 3], came {shape}")
    names = content.get("kpt_names")
    if not isinstance(names, list) or len(names) != int(count):
        names = [str(number) for number in range(int(count))]
    return tuple(map(str, names)), int(values)


def _lines(file: Path) -> list[str]:
    """The lines of a text file that say something.

    Raises:
        DataError: it is not there or no text.
    """
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error.reason})") from error


def _darknet(file: Path) -> Description:
    """``key = value`` lines; what Darknet calls ``data/`` is the folder of the file."""
    pairs = dict(line.partition("=")[::2] for line in _lines(file) if not line.startswith("#"))
    content = {key.strip(): value.strip() for key, value in pairs.items()}
    named = content.get("names")
    if not named:
        raise DataError(f"{file}: expected a line names = FILE")
    names = _once(file, _lines(_first(_tried(file.parent, named, darknet=True))))
    keys = {split: next((content[key] for key in also if content.get(key)), "") for split, also in _SPLITS.items()}
    splits = {split: [entry] for split, entry in keys.items() if entry}
    return Description(file, file.parent, names, splits, darknet=True)


def _beside_folders(folder: Path) -> Description:
    """``obj.names`` or ``classes.txt`` beside ``images/`` and ``labels/``."""
    listing = next(folder / name for name in NAMES if (folder / name).is_file())
    names = _once(listing, _lines(listing))
    place = next((folder / name for name in PICTURES if (folder / name).is_dir()), None)
    if place is None or not names:
        raise DataError(f"{folder}: expected pictures in images/ and classes in {listing.name}; found no data.yaml")
    found = sorted(entry.name for entry in place.iterdir() if entry.is_dir() and images_under(entry, deep=True))
    splits = {split: [f"{place.name}/{name}"] for split, also in _SPLITS.items() for name in also if name in found}
    return Description(folder, folder, names, splits or {"all": [place.name]})


# ---------------------------------------------------------------- pictures of a split


def pictures(description: Description, split: str, *, allow_outside: bool) -> list[Path]:
    """All pictures of a split: of a folder, of a text file of paths, or of several of either.

    Raises:
        DataError: no such split or place, or one outside of the data set.
    """
    key = next((name for name, also in _SPLITS.items() if split in also), split)
    if key not in description.splits and split not in description.split_names():
        raise no_split(description.file, split, description.split_names())
    found: list[Path] = []
    for entry in description.splits.get(key) or description.splits["all"]:
        place = _place(description, split, entry, allow_outside)
        if is_folder(place):
            found += images_under(place, deep=True)
        else:
            found += [_listed(description, place, line, allow_outside) for line in _lines(place)]
    if key not in description.splits:
        kept = held_out((path.as_posix() for path in found), split)
        found = [path for path in found if path.as_posix() in kept]
    return list(dict.fromkeys(found))


def _tried(root: Path, entry: str, *, darknet: bool) -> list[Path]:
    """The places an entry may mean."""
    inner = [root / entry.removeprefix("data/")] if darknet and entry.startswith("data/") else []
    return [root / entry, *inner]


def _first(places: list[Path]) -> Path:
    return next((place for place in places if exists(place)), places[0])


def _place(description: Description, split: str, entry: str, allow_outside: bool) -> Path:
    """The folder or list a key names, refused where it leaves the data set or does not exist."""
    tried = _tried(description.home / description.path, entry, darknet=description.darknet)
    place = _first(tried)
    kept = [part for part in Path(entry).parts if part not in ("..", "/")]
    nearer = Path(*kept) if kept else Path()
    meant = f"; {nearer.as_posix()!r} exists, is it meant?" if kept and exists(description.home / nearer) else ""
    if not allow_outside and not inside(place, description.home):
        path = f" (under path: {description.path})" if description.path else ""
        raise DataError(f"{description.file}: {split}: {entry!r}{path} leaves the data set's folder{meant}")
    if not exists(place):
        near = next(parent for parent in place.absolute().parents if exists(parent))
        listed = " or ".join(map(str, tried))
        raise DataError(
            f"{description.file}: {split}: no such folder or list: {listed} (the nearest that exists is {near}){meant}"
        )
    return place


def _listed(description: Description, listing: Path, line: str, allow_outside: bool) -> Path:
    root = listing.parent if line.startswith("./") else description.home / description.path
    place = _first(_tried(root, line, darknet=description.darknet))
    if not allow_outside and not inside(place, description.home):
        raise DataError(f"{listing}: {line!r} leaves the data set's folder")
    return place

"""YOLO text labels: one line an object, ``class cx cy w h`` as fractions of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torso.config import DataError
from torso.data.builder import Builder, Object
from torso.data.formats.places import copied, images_under, mapped, new_folder, no_split
from torso.data.index import Index

_KEYS = {"val": ("val", "valid", "validation"), "valid": ("valid", "val")}


class Yolo:
    """A ``data.yaml`` with ``images/`` and ``labels/`` beside it.

    Paths are relative to the yaml and nothing else, and may not leave its folder. ``download`` is never followed.
    Classes count from 0. A line of ``class x y x y x y ...`` is a polygon; its box is the one around it. A picture
    without a label file, or with an empty one, shows nothing.

    Source: the label format of Darknet (YOLOv3), 2018, as extended with ``data.yaml`` by YOLOv5, 2020.
    """

    @staticmethod
    def recognise(path: Path) -> bool:
        """Whether there is a ``data.yaml``."""
        return _yaml(path) is not None

    @staticmethod
    def splits(path: Path) -> list[str]:
        """The splits that exist."""
        description = _described(path, None)
        return [name for name in ("train", "val", "test", "valid") if description.content.get(name)]

    @staticmethod
    def read(path: Path, split: str, classes: Sequence[str] | None = None, *, allow_outside: bool = False) -> Index:
        """The index of one split; ``allow_outside`` lets the yaml point out of its own folder."""
        description = _described(path, split)
        chosen, label_of = mapped(description.names, classes)
        builder = Builder(description.file.parent, chosen)
        if "download" in description.content:
            builder.report("ignored", description.file, "key 'download' is ignored; torso never downloads on its own")
        pictures = _pictures(description, split, allow_outside)
        used: set[int] = set()
        for picture in pictures:
            size = builder.size_of(picture)
            if size is None:
                continue
            builder.image(picture, size, picture.stem)
            labels = _label_file(picture)
            if labels is not None:
                rows = _rows(builder, labels, size, description.names)
                used.update(row.label for row in rows)
                builder.objects(_renamed(builder, labels, rows, description.names, label_of), labels)
        if pictures and not any(map(_label_file, pictures)):
            message = f"no picture of {split} has labels; looked for {_label_path(pictures[0])} and so on"
            builder.report("malformed file", description.file, message)
        if used and used == set(range(1, len(description.names))):
            message = "every class but 0 is used: do these ids start at 1? YOLO's start at 0; nothing was changed"
            builder.report("class ids from 1", description.file, message)
        return builder.finish()

    @staticmethod
    def write(index: Index, folder: Path, split: str) -> None:
        """Writes pictures, labels and ``data.yaml``; crowd and difficult objects are left out, masks become boxes."""
        import yaml

        folder = new_folder(index, folder)
        names = copied(index, folder / "images" / split)
        labels = folder / "labels" / split
        labels.mkdir(parents=True, exist_ok=True)
        for row, name in enumerate(names):
            (labels / f"{Path(name).stem}.txt").write_text(_lines(index, row), encoding="utf-8")
        described = folder / "data.yaml"
        content = (
            yaml.BaseLoader(described.read_text(encoding="utf-8")).get_single_data() if described.is_file() else {}
        )
        content |= {"path": ".", split: f"images/{split}", "names": dict(enumerate(index.classes))}
        described.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


@dataclass(frozen=True)
class _Description:
    file: Path
    content: dict[str, Any]
    names: list[str]

    @property
    def root(self) -> Path:
        return self.file.parent / str(self.content.get("path") or ".")


def _yaml(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix in (".yaml", ".yml") else None
    return next((path / name for name in ("data.yaml", "dataset.yaml", "data.yml") if (path / name).is_file()), None)


def _described(path: Path, split: str | None) -> _Description:
    """Reads ``data.yaml``. Every scalar stays text, so that a class called ``no`` or ``1e3`` keeps its name."""
    import yaml

    file = _yaml(path)
    if file is None:
        raise DataError(f"{path}: expected a data.yaml, found none")
    try:
        text = file.read_text(encoding="utf-8-sig")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise DataError(f"{file}: anchors and aliases are not read; write the values out")
        content = yaml.BaseLoader(text).get_single_data()  # text, lists and dicts only
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{file}: is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or "names" not in content:
        raise DataError(f"{file}: expected keys train, val and names")
    names = _names(file, content["names"])
    if str(content.get("nc", len(names))) != str(len(names)):
        raise DataError(f"{file}: nc is {content['nc']}, but names lists {len(names)} classes")
    return _Description(file, content, names)


def _names(file: Path, names: Any) -> list[str]:
    if isinstance(names, list):
        return [str(name) for name in names]
    if isinstance(names, dict) and all(key.isdigit() for key in names):
        ids = sorted(map(int, names))
        if ids == list(range(len(ids))):
            return [str(names[str(number)]) for number in ids]
        raise DataError(
            f"{file}: names must be numbered 0..{len(ids) - 1} without gaps, came {', '.join(map(str, ids[:8]))}"
        )
    raise DataError(f"{file}: names: expected a list, or numbers from 0 with a name each")


def _pictures(description: _Description, split: str, allow_outside: bool) -> list[Path]:
    """All pictures of a split: a folder, a text file of paths, or a list of either."""
    keys = _KEYS.get(split, (split,))
    value = next((description.content[key] for key in keys if description.content.get(key)), None)
    if value is None:
        raise no_split(description.file, split, Yolo.splits(description.file))
    found: list[Path] = []
    for entry in value if isinstance(value, list) else [value]:
        place = _inside(description, split, str(entry), allow_outside)
        if place.is_dir():
            found += images_under(place, deep=True)
        else:
            lines = place.read_text(encoding="utf-8-sig").splitlines()
            found += [_listed(description, place, line.strip(), allow_outside) for line in lines if line.strip()]
    return list(dict.fromkeys(found))


def _inside(description: _Description, split: str, entry: str, allow_outside: bool) -> Path:
    """The folder or list a key names, refused where it leaves the data set or does not exist."""
    place = description.root / entry
    home = description.file.parent.resolve()
    if not allow_outside and not place.resolve().is_relative_to(home):
        kept = [part for part in Path(entry).parts if part not in ("..", "/")]
        nearer = Path(*kept) if kept else Path()
        hint = f"; {nearer.as_posix()!r} exists, is it meant?" if kept and (home / nearer).exists() else ""
        raise DataError(f"{description.file}: {split}: {entry!r} leaves the data set's folder{hint}")
    if not place.exists():
        near = next(parent for parent in place.absolute().parents if parent.exists())
        raise DataError(
            f"{description.file}: {split}: no such folder or list: {place} (the nearest that exists is {near})"
        )
    return place


def _listed(description: _Description, listing: Path, line: str, allow_outside: bool) -> Path:
    place = (listing.parent if line.startswith("./") else description.root) / line
    if not allow_outside and not place.resolve().is_relative_to(description.file.parent.resolve()):
        raise DataError(f"{listing}: {line!r} leaves the data set's folder")
    return place


def _label_path(picture: Path) -> Path:
    """The last folder called ``images`` becomes ``labels``; without one the labels lie beside the pictures."""
    parts = list(picture.parent.parts)
    at = max((i for i, part in enumerate(parts) if part == "images"), default=None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts) / f"{picture.stem}.txt"


def _label_file(picture: Path) -> Path | None:
    return next((path for path in (_label_path(picture), picture.with_suffix(".txt")) if path.is_file()), None)


def _rows(builder: Builder, file: Path, size: tuple[int, int], names: list[str]) -> list[Object]:
    """The rows of one file; what is malformed is noted and left out."""
    rows = []
    for line, text in enumerate(file.read_bytes().decode("utf-8-sig", "replace").splitlines(), 1):
        if not text.strip():
            continue
        try:
            values = [float(column) for column in text.split()]
        except ValueError:
            builder.report("malformed row", file, f"expected numbers, came {text.strip()[:60]!r}", line)
            continue
        wrong = _wrong(values)
        if wrong:
            builder.report("malformed row", file, wrong, line)
        elif not 0 <= values[0] < len(names):
            hint = " (do these ids start at 1?)" if values[0] == len(names) else ""
            message = f"expected a class in 0..{len(names) - 1}, came {values[0]:g}{hint}"
            builder.report("class out of range", file, message, line)
        else:
            rows.append(_object(int(values[0]), values[1:], size, line))
    return rows


def _wrong(values: list[float]) -> str:
    """What is wrong with the shape of a row, if anything."""
    if not values[0].is_integer():
        return f"expected a whole class number, came {values[0]:g}"
    if len(values) == 6:
        return "6 columns: the last looks like a confidence; labels have 5 (class cx cy w h)"
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        return f"expected 5 columns (class cx cy w h) or a polygon (class x y x y x y ...), came {len(values)}"
    return ""


def _renamed(
    builder: Builder, file: Path, rows: list[Object], names: list[str], label_of: dict[str, int]
) -> list[Object]:
    """The rows with the labels their names have in the training split; names it does not have are noted."""
    kept = []
    for row in rows:
        name = names[row.label]
        if name in label_of:
            kept.append(replace(row, label=label_of[name]))
        else:
            builder.report("unknown class", file, f"class {name!r} is not one of {', '.join(label_of)}", row.line)
    return kept


def _object(label: int, values: list[float], size: tuple[int, int], line: int) -> Object:
    width, height = size
    if len(values) == 4:
        cx, cy, w, h = values
        box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
        return Object(box, label, line)
    xs, ys = [x * width for x in values[0::2]], [y * height for y in values[1::2]]
    polygon = [value for point in zip(xs, ys, strict=True) for value in point]
    return Object((min(xs), min(ys), max(xs), max(ys)), label, line, mask=[polygon])


def _lines(index: Index, row: int) -> str:
    width, height = index.sizes[row].tolist()
    objects = index.objects(row)
    lines = []
    for at in range(objects.start, objects.stop):
        if index.crowd[at] or index.difficult[at]:
            continue
        x0, y0, x1, y1 = index.boxes[at].tolist()
        values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
        lines.append(
            " ".join([str(index.labels[at]), *(f"{value:.10f}".rstrip("0").rstrip(".") for value in values)]) + "\n"
        )
    return "".join(lines)

"""From one format to another, with an account of what the other cannot hold, read back from what was written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from torso.config import DataError, suggestion
from torso.data.compare import Difference, compare
from torso.data.formats import FORMATS
from torso.data.formats.opening import open_index, recognise
from torso.data.formats.places import LINKING
from torso.data.index import Index, Problem, first_problems
from torso.data.recast import suited, told_apart

TOGETHER = frozenset({"voc", "voc_segmentation"})  # formats that keep the pictures of all splits in one folder
# What is said of a loss; all others are "lose it".
_SAID = {
    "objects": "leaves out {count} of {of} objects",
    "objects that are difficult": "of the objects left out {count} are difficult",
    "objects that are crowd": "of the objects left out {count} are crowds",
    "pictures": "leaves out {count} of {of} pictures",
    "classes": "leaves out {count} of {of} classes ({note})",
    "new objects": "shows {count} objects that were not there",
    "boxes": "moves {count} of {of} boxes, by at most {pixels:.2g} px",
    "order of classes": "orders {count} of {of} classes otherwise; names tell them apart",
    "class ids": "cannot hold these `class ids`: {count} of {of} change ({note})",
    "image ids": "cannot hold these `image ids`: {count} of {of} pictures get another",
    "area": "cannot hold `area`: {count} objects get that of their box or mask",
    "masks": "cannot hold every mask: {count} of {of} objects lose theirs",
    "pixels of masks": "changes pixels of {count} of {of} masks",
    "task": "holds another task",
    "split": "cannot read this split back: {note}",
    "recognised": "is not what this folder looks like: {note}",
    "names": "keeps pictures in one folder: {count} of {of} are renamed, because two had the same name",
    "boxes to classes": "holds one class a picture: {count} objects lose their box",
    "boxes to pictures": "holds one class a picture: {count} objects become pictures of their own",
    "crowds to classes": "holds one class a picture: {count} crowd regions are left out",
    "covered": "split {note} holds only pictures of other splits; it is left out",
}


@dataclass(frozen=True)
class Loss:
    """Something the new format could not hold."""

    what: str
    count: int
    message: str


@dataclass(frozen=True)
class Report:
    """What was converted, and what became of it."""

    source: str
    format: str
    destination: str
    to: str
    splits: dict[str, dict[str, int]]  # pictures and objects
    losses: list[Loss]
    max_difference: float  # pixels, of a coordinate of a box
    problems: list[dict[str, Any]]  # what was wrong with the source; such rows were never read
    notes: list[str]  # what else to know

    def as_dict(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The same for a person."""
        for split, counts in self.splits.items():
            yield f"{split}: {counts['pictures']} pictures, {counts['objects']} objects"
        if any(counts["objects"] for counts in self.splits.values()):
            yield f"boxes differ by at most {self.max_difference:.2g} px"
        yield from (loss.message for loss in self.losses)
        if not self.losses:
            yield "nothing is lost"
        yield from self.notes
        if self.problems:
            count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
            yield f"{count} of the source, see `torso data check {self.source}`"


def convert(
    source: Path | str,
    destination: Path | str,
    to: str,
    *,
    format: str | None = None,  # noqa: A002 - the word of the recipe
    splits: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    link: bool = False,
    crop: bool = False,
) -> Report:
    """Writes a data set in another format, reads it back, and says what was lost.

    Nothing is said to be lost by knowledge of formats: what was written is read again and compared column by column.
    The report is kept beside the data as ``conversion.json``. The destination appears when it is whole.

    Args:
        source: a data set's folder or file; never written to.
        destination: a folder that is new or empty, outside of the source.
        to: the name of a format.
        format: that of the source; recognised when None.
        splits: those to convert; all when None, except those that hold nothing but pictures of others.
        classes: these alone, in this order; all that any split has when None.
        link: pictures become hard links where the disk can: no room is needed, but who changes one changes both.
        crop: of pictures with boxes, for a format with one class a picture: every object becomes a picture.

    Raises:
        DataError: no such data or format, a destination that is in use, or data the format has no form for.

    Source: own design; the formats' own papers are named by them.
    """
    source, destination = Path(source), Path(destination)
    name = format or recognise(source)
    for given in (name, to):
        if given not in FORMATS:
            raise DataError(f"no format is called {given!r}{suggestion(given, FORMATS)}")
    _check_places(source, destination)
    total = Difference()
    indexes = _read(source, name, splits, classes, total)
    unfinished = destination.with_name(f"{destination.name}.unfinished-{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        written = _write(indexes, unfinished, to, link, crop, total)
        report = Report(
            source=str(source),
            format=name,
            destination=str(destination),
            to=to,
            splits={split: {"pictures": len(one), "objects": len(one.labels)} for split, one in written.items()},
            losses=_losses(total, to),
            max_difference=total.max_pixels,
            notes=[note for what, note in total.notes.items() if what.startswith("masks of ")],
            problems=[{"split": split, **asdict(one)} for split, index in indexes.items() for one in index.problems],
        )
        text = json.dumps(report.as_dict(), indent=1, ensure_ascii=False)
        (unfinished / "conversion.json").write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
        unfinished.replace(destination)  # an empty folder of that name may be there
    except DataError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise DataError(str(error).replace(str(unfinished), str(destination))) from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return report


def _check_places(source: Path, destination: Path) -> None:
    if source.is_dir() and destination.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{destination}: lies in {source}, where torso never writes; name a folder outside of it")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise DataError(f"{destination}: expected a new or an empty folder, and this one holds something")


# ---------------------------------------------------------------- reading


def _read(
    source: Path, name: str, splits: Sequence[str] | None, classes: Sequence[str] | None, total: Difference
) -> dict[str, Index]:
    """The splits by name, with one list of classes."""
    known = FORMATS[name].splits(source)
    asked = list(splits or sorted(known, key=_first_own))
    if splits is None and len(asked) > 1:
        asked = [split for split in asked if split != "all"]
    found: dict[str, Index] = {}
    seen: set[str] = set()
    for split in asked:
        index = open_index(source, split, format=name, classes=classes)
        files = {str(index.file(row)) for row in range(len(index))}
        if splits is None and files <= seen:
            total.count("covered", 1, 1)
            total.notes["covered"] = ", ".join(filter(None, [total.notes.get("covered"), split]))
            continue
        seen |= files
        found[split] = index
    if classes is None and len({(one.classes, one.class_ids) for one in found.values()}) > 1:
        ids: dict[str, int] = {}
        for index in found.values():
            for called, number in zip(index.classes, index.class_ids, strict=True):
                ids.setdefault(called, number if number not in ids.values() else max(ids.values()) + 1)
        ids = dict(sorted(ids.items(), key=lambda pair: pair[1]))
        for split in found:
            again = open_index(source, split, format=name, classes=list(ids))
            found[split] = replace(again, class_ids=tuple(ids.values()), fingerprint="")
    # VOC's Segmentation/train becomes train.
    short = [split.rpartition("/")[2] for split in found]
    names = short if len(set(short)) == len(short) else [split.replace("/", "_") for split in found]
    return dict(zip(names, found.values(), strict=True))


def _first_own(split: str) -> tuple[bool, bool, str]:
    """train, val and test first, so that others are those that only repeat their pictures."""
    return split != "train", split not in ("val", "test", "valid"), split


# ---------------------------------------------------------------- writing


def _write(
    indexes: dict[str, Index], folder: Path, to: str, link: bool, crop: bool, total: Difference
) -> dict[str, Index]:
    """Writes and compares all splits; returns what was written, as it is read back."""
    form = FORMATS[to]
    taken: dict[str, str] = {}
    ready: dict[str, Index] = {}
    for split, index in indexes.items():
        if to not in TOGETHER:
            taken = {}
        ready[split] = told_apart(suited(index, to, crop, total), taken, total)
    token = LINKING.set(link)
    try:
        for split, index in ready.items():
            form.write(index, folder, split)
    finally:
        LINKING.reset(token)
    if recognise(folder) != to:
        total.count("recognised", 1, 1)
        total.notes["recognised"] = f"say format={to}, or it is taken for {recognise(folder)}"
    written = {}
    for split, index in ready.items():
        try:
            written[split] = form.read(folder, split)
        except DataError as error:
            total.count("split", 1, 1)
            total.notes["split"] = str(error)
            continue
        difference = compare(index, written[split])
        if to == "voc" and index.masks is not None:
            _masks_of_voc(difference, index, folder, split)
        total.add(difference)
    return written


def _masks_of_voc(difference: Difference, index: Index, folder: Path, split: str) -> None:
    """Corrects what is said of masks: VOC keeps them in a split of their own, of the pictures that have them all."""
    if not (folder / "ImageSets" / "Segmentation" / f"{split}.txt").is_file():
        return
    masked = FORMATS["voc"].read(folder, f"Segmentation/{split}")
    stems = {PurePath(path).stem for path in masked.paths}
    part = index.select([row for row, path in enumerate(index.paths) if PurePath(path).stem in stems])
    found = compare(part, masked)
    kept = found.of["masks"] - found.lost["masks"]
    difference.lost["masks"] = difference.of["masks"] - kept
    difference.lost["pixels of masks"], difference.of["pixels of masks"] = found.lost["pixels of masks"], kept
    difference.notes[f"masks of {split}"] = f"masks are read with the split Segmentation/{split}"


# ---------------------------------------------------------------- telling


def _losses(total: Difference, to: str) -> list[Loss]:
    found = []
    for what, count in sorted((+total.lost).items()):
        text = _SAID.get(what)
        if text is None and what.startswith("not "):
            text = f"{count} objects become `{what.removeprefix('not ')}`"
        elif text is None and what.startswith("problem: "):
            text = f"is read back with {count} of {what.removeprefix('problem: ')!r}"
        elif text is None:
            text = "cannot hold `{what}`: {count} objects lose it"
        note = total.notes.get(what, "")
        said = text.format(what=what, count=count, of=total.of[what], note=note, pixels=total.max_pixels)
        verb = said.split(maxsplit=1)[0].endswith("s") or said.startswith("cannot")
        found.append(Loss(what, count, f"{to} {said}" if verb else f"{to}: {said}"))
    return found


def raise_if_fatal(report: Report) -> None:
    """Ends a command with the code for data where rows of the source were wrong, after the rest was converted.

    Raises:
        DataError: what was wrong, the first of it with file and line.
    """
    fatal = [Problem(**{k: v for k, v in one.items() if k != "split"}) for one in report.problems if one["fatal"]]
    if fatal:
        count = "1 error" if len(fatal) == 1 else f"{len(fatal)} errors"
        raise DataError(
            f"{report.source}: {count} in the labels; what they say is missing in {report.destination}\n"
            f"{first_problems(fatal)}"
        )

"""The verbs of ``torso data``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torso.cli.tell import Asked, table, tell

SHOWN = 20  # problems of a split


def verbs(verb: Callable[..., Any], among: Any) -> None:
    """Adds the verbs to the parser of ``torso data``."""
    add = verb("data make", _make, "Write the built-in data set.", among)
    add("what", choices=["digits"], help="handwritten digits on photographs")
    add("folder", metavar="DIR", help="where to; made when it is missing")
    add("--format", default="voc", choices=["voc", "coco", "yolo", "folder"])
    add("--count", type=int, default=400, help="pictures in all (%(default)s)")
    add("--size", type=int, default=256, help="side of a picture in pixels (%(default)s)")
    add("--seed", type=int, default=0)
    add = verb("data check", _check, "Say what a data set is, and what is wrong with it.", among)
    add("folder", metavar="DIR", help="VOC, COCO, YOLO or class folders; which is found out")
    add("--split", help="only this split")
    add("--format", choices=["voc", "coco", "yolo", "folder"], help="where it is not recognised")


def _make(asked: Asked) -> None:
    from torso.data import digits

    folder = digits.make(asked.folder, format=asked.format, count=asked.count, size=asked.size, seed=asked.seed)
    result = {"path": str(folder), "format": asked.format, "count": asked.count}
    tell(asked, result, [f"{asked.count} pictures in {asked.format} form: {folder}"])


def _check(asked: Asked) -> None:
    from pathlib import Path

    from torso.data import open_index, recognise
    from torso.data.formats import FORMATS

    folder = Path(asked.folder)
    name = asked.format or recognise(folder)
    splits = [asked.split] if asked.split else FORMATS[name].splits(folder)
    indexes = {split: open_index(folder, split, format=name) for split in splits}
    reports = {split: index.report() for split, index in indexes.items()}
    result = {"path": str(folder), "format": name, "splits": reports}
    tell(asked, result, _checked(result))
    for index in indexes.values():
        index.raise_if_fatal()


def _checked(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"{result['path']}: {result['format']}"
    for split, report in result["splits"].items():
        objects = f", {report['objects']} objects" if report["task"] == "detect" else ""
        yield f"\n{split}: {report['images']} pictures{objects}"
        yield from table([{"class": name, "count": count} for name, count in report["classes"].items()])
        problems = report["problems"]
        for problem in problems[:SHOWN]:
            at = f"{problem['path']}:{problem['line']}" if problem["line"] else problem["path"]
            yield f"  {'WRONG ' if problem['fatal'] else ''}{at}: {problem['message']}"
        if len(problems) > SHOWN:
            yield f"  and {len(problems) - SHOWN} more: --json has all"

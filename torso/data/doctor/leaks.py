"""Pictures that come more than once, within a split and across splits, and whether their labels agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torso.data.doctor.duplicates import near, same
from torso.data.doctor.findings import Finding, found
from torso.data.doctor.pictures import Scan
from torso.data.index import Index


def leaks(indexes: Mapping[str, Index], scan: Scan, *, near_too: bool) -> Iterator[Finding]:
    """Findings on pictures that are the same or almost."""
    for at, places in enumerate(scan.places):
        splits = scan.splits(at)
        if len(splits) > 1:
            yield _pair("same picture in two splits", scan, at, at, f"is listed in {' and '.join(splits)}")
        elif len(places) > 1:
            yield _pair("same picture twice", scan, at, at, f"is listed {len(places)} times")
    copies: set[int] = set()
    # A file that is the same is the same picture too; only the words differ.
    by_file = {at for group in same([one.content for one in scan.seen]) for at in group}
    for group in same([one.pixels for one in scan.seen]):
        copies |= set(group[1:])
        for at in group[1:]:
            first = next((other for other in group if other < at and _crosses(scan, other, at)), group[0])
            word = "is the same file as" if {at, first} <= by_file else "has the pixels of"
            kind = "same picture in two splits" if _crosses(scan, first, at) else "same picture twice"
            yield _pair(kind, scan, at, first, f"{word} {_named(scan, first)}")
            if _says(indexes, scan, at) != _says(indexes, scan, group[0]):
                text = f"is labelled otherwise than {_named(scan, group[0])}"
                yield _pair("same picture, other labels", scan, at, group[0], text)
    if near_too:
        yield from _near(scan, copies)


def _near(scan: Scan, copies: set[int]) -> Iterator[Finding]:
    rows = [at for at, one in enumerate(scan.seen) if one.traits and not one.traits.flat and at not in copies]
    pairs, whole = near(scan.codes(), scan.thumbs(), rows)
    told: set[tuple[int, str]] = set()
    for first, at in sorted(pairs, key=lambda pair: (pair[1], not _crosses(scan, *pair), pair[0])):
        kind = "near duplicate in two splits" if _crosses(scan, first, at) else "near duplicates"
        if (at, kind) not in told:  # one of a long sequence need not be named with each of the others
            told.add((at, kind))
            yield _pair(kind, scan, at, first, f"is almost {_named(scan, first)}")
    if not whole:
        yield found("search cut short", "", "too many pictures look alike to compare all of them")


def _crosses(scan: Scan, a: int, b: int) -> bool:
    return scan.splits(a) != scan.splits(b)


def _named(scan: Scan, at: int) -> str:
    return f"{scan.names[at]} ({', '.join(scan.splits(at))})"


def _pair(kind: str, scan: Scan, at: int, twin: int, text: str) -> Finding:
    split = scan.splits(at)[-1]
    said = text if at == twin else f"({split}) {text}"
    return found(kind, scan.names[at], said, split=split, picture=scan.files[at], twin=scan.files[twin])


def _says(indexes: Mapping[str, Index], scan: Scan, at: int) -> Any:
    """The classes on a picture, to compare."""
    split, row = scan.places[at][0]
    index = indexes[split]
    if index.image_labels is not None:
        return int(index.image_labels[row])
    return sorted(index.labels[index.objects(row)].tolist())

"""What the doctor says in the end: for a terminal, as JSON, and for the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torso.data.doctor.balance import counts, remedy
from torso.data.doctor.findings import SEVERITIES, Finding, Group, grouped
from torso.data.doctor.pictures import Scan
from torso.data.index import Index

_SHOWN = 3  # places of a kind a terminal shows; the page and the JSON have all
_CLASSES = 20
_BAR = 24


@dataclass(frozen=True)
class Diagnosis:
    """What a data set is, and everything that was found.

    ``splits`` are the indexes that could be read; ``left_out`` names splits that only repeat others (VOC's trainval).
    """

    path: Path
    format: str
    size: int
    splits: Mapping[str, Index]
    left_out: tuple[str, ...]
    scan: Scan
    findings: tuple[Finding, ...]

    @property
    def fatal(self) -> bool:
        """Training would go wrong or not start."""
        return any(one.severity == "error" for one in self.findings)

    @property
    def groups(self) -> list[Group]:
        """Findings by kind, errors first."""
        return list(grouped(self.findings))

    @property
    def numbers(self) -> dict[str, int]:
        """How many findings there are of each severity."""
        met = Counter(one.severity for one in self.findings)
        return {severity: met[severity] for severity in SEVERITIES}

    @property
    def verdict(self) -> str:
        """One sentence: is it fit for training?"""
        if self.fatal:
            return f"Not fit for training: {self.reason}."
        return f"Fit for training; {self.reason}." if self.reason else "Fit for training."

    @property
    def reason(self) -> str:
        """What the verdict rests on."""
        if self.fatal:
            return f"{_count(self.kinds('error'), 'thing')} to correct first"
        return f"{_count(self.kinds('warning'), 'thing')} to look at" if self.numbers["warning"] else ""

    def kinds(self, severity: str) -> int:
        """How many kinds of findings of a severity there are."""
        return sum(group.severity == severity for group in self.groups)

    def first_steps(self) -> list[str]:
        """What to do first, at most three sentences."""
        steps = []
        for group in [group for group in self.groups if group.severity != "note"][:3]:
            first = group.findings[0]
            times = f" ({len(group.findings)} times)" if len(group.findings) > 1 else ""
            steps.append(f"{group.kind}{times}, first in {first.where}: {group.advice}.")
        return steps

    def table(self) -> list[dict[str, Any]]:
        """Objects (or pictures) of each class in each split."""
        if all(index.task in ("segment", "unlabeled") for index in self.splits.values()):
            return []  # what shows in pixels is not counted
        columns = {split: counts(index).tolist() for split, index in self.splits.items()}
        classes = max((index.classes for index in self.splits.values()), key=len, default=())
        return [
            {"class": name} | {split: column[at] if at < len(column) else 0 for split, column in columns.items()}
            for at, name in enumerate(classes)
        ]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with every place of every finding."""
        first = next(iter(self.splits.values()), None)
        learnable = first is not None and first.task in ("detect", "classify") and bool(first.classes)
        return {
            "path": str(self.path),
            "format": self.format,
            "fatal": self.fatal,
            "verdict": self.verdict,
            "pictures": len(self.scan),
            "numbers": self.numbers,
            "findings": [group.as_dict() for group in self.groups],
            "remedy": remedy(first) if learnable and first is not None else None,
            "splits": {split: index.report() for split, index in self.splits.items()},
            "left_out": list(self.left_out),
        }

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"{self.path}: {self.format}, {_count(len(self.scan), 'picture')}"
        for split, index in self.splits.items():
            objects = f", {_count(len(index.labels), 'object')}" if index.task == "detect" else ""
            yield f"  {split}: {_count(len(index), 'picture')}{objects}"
        for split in self.left_out:
            yield f"  {split}: the pictures of other splits, not looked at again"
        yield from self._classes()
        for group in self.groups:
            yield ""
            yield f"{group.severity.upper():8}{group.kind} ({len(group.findings)})"
            yield f"        in training: {group.training}; what to do: {group.advice}"
            for one in group.findings[:_SHOWN]:
                yield f"        {one.where}: {one.message}"
            if len(group.findings) > _SHOWN:
                yield f"        and {len(group.findings) - _SHOWN} more: --json and --html have all"
        yield ""
        yield self.verdict

    def _classes(self) -> Iterator[str]:
        rows = self.table()
        if not rows:
            return
        splits = list(self.splits)
        width = min(max(len(row["class"]) for row in rows), 40)
        most = max(max(row[split] for split in splits) for row in rows) or 1
        yield ""
        yield f"  {'class':{width}}" + "".join(f"{split:>10}" for split in splits)
        for row in rows[:_CLASSES]:
            bar = "#" * round(_BAR * row[splits[0]] / most)
            yield (
                f"  {row['class'][:width]:{width}}" + "".join(f"{row[one]:>10}" for one in splits) + f"  {bar}"
            ).rstrip()
        if len(rows) > _CLASSES:
            yield f"  and {len(rows) - _CLASSES} more classes"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s".replace(",", " ")


def in_order(names: Sequence[str]) -> list[str]:
    """Splits, the one that is learned from first."""
    return sorted(names, key=lambda name: ("train" not in name, "val" not in name.removeprefix("train"), name))

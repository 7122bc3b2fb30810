"""What the doctor can find: how bad it is, what training does about it, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torso.data.index import Problem, Task

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Kind(NamedTuple):
    """A failure class: its row in the table of reliability, what happens in training, and what to do."""

    row: int
    severity: Severity
    training: str
    advice: str


_OUT = "the picture is left out"
_ROW_OUT = "the row is left out"
_STOPS = "training does not start"
_AS_IS = "trained on as it is"

# Errors mean that training would go wrong or not start; warnings that something is left out, changed or suspicious;
# notes say what is true and harmless. What a reader reports and is not listed is a warning, or an error where fatal.
KINDS: dict[str, Kind] = {
    # pictures
    "damaged image": Kind(1, "warning", "replaced by another; evaluation leaves it out", "replace the file"),
    "too many damaged images": Kind(1, "error", "training stops", "replace the files, or write a copy without them"),
    "no end marker": Kind(3, "note", "decoded whole; the file is left as it is", "nothing"),
    "rotated by EXIF": Kind(4, "note", "turned upright when it is read", "make sure labels were drawn upright"),
    "unrotated size": Kind(4, "warning", "boxes are taken as drawn on the upright picture", "look at these boxes"),
    "wrong size": Kind(4, "warning", "the size of the picture itself counts", "look whether the boxes fit"),
    "grey": Kind(5, "note", "grey becomes three equal channels", "nothing"),
    "alpha": Kind(5, "note", "alpha is dropped, not composited", "flatten the pictures if what is hidden matters"),
    "CMYK": Kind(5, "note", "converted to RGB without a colour profile", "nothing, or convert with the profile"),
    "16 bits": Kind(6, "note", "values are divided by 257", "nothing"),
    "16 bits, dark": Kind(6, "warning", "divided by 257 it is almost black", "scale the values to the whole range"),
    "floating point": Kind(6, "note", "0..1 is multiplied by 255", "nothing"),
    "not a picture": Kind(7, "warning", _OUT, "fetch the real file"),
    "wrong suffix": Kind(7, "note", "read by its content", "nothing, or rename it for other tools"),
    "picture too large": Kind(8, "warning", _OUT, "tile it or make it smaller"),
    "animated image": Kind(9, "note", "the first frame counts", "save the frames you need as pictures"),
    "extreme shape": Kind(10, "warning", "after the letterbox little of it is left", "crop, tile or remove it"),
    "one colour": Kind(10, "note", _AS_IS, "look whether the picture is empty"),
    "missing image": Kind(12, "warning", _OUT, "add the file or remove its labels"),
    "missing label file": Kind(12, "warning", _OUT, "add the file or remove it from the list"),
    "label without picture": Kind(12, "warning", "the labels are left out", "add the picture or remove the labels"),
    "picture without labels": Kind(12, "note", "not used", "label it, or add an empty label file for background"),
    "equal names": Kind(12, "note", "told apart by their folders", "nothing"),
    "shared label file": Kind(12, "warning", "both pictures get the same labels", "give each a name of its own"),
    "in no split": Kind(12, "note", "not used", "nothing, if that is meant"),
    "unsafe member": Kind(2, "error", _STOPS, "write the archive without it"),
    "cut-off file": Kind(1, "warning", "what comes after the cut is left out", "fetch the archive again"),
    "unused member": Kind(12, "note", "not read", "nothing"),
    "duplicate member": Kind(12, "warning", "the first one counts", "give each sample a name of its own"),
    "several pictures": Kind(12, "warning", "the first one counts", "give each picture a sample of its own"),
    "sample without picture": Kind(12, "warning", "the sample is left out", "add the picture"),
    "shared labels": Kind(12, "warning", "the pictures get the same labels", "give each a name of its own"),
    # labels
    "pictures without objects": Kind(13, "note", "trained on as background", "nothing, if they show nothing"),
    "mostly background": Kind(13, "warning", "most steps see few objects", "check for lost labels"),
    "nothing to learn": Kind(13, "error", "there is nothing to learn", "check where the labels lie"),
    "degenerate box": Kind(14, "warning", _ROW_OUT, "draw the box again or remove it"),
    "not a number": Kind(14, "error", _STOPS, "correct the row, or write a repaired copy"),
    "box outside": Kind(15, "warning", _ROW_OUT, "draw the box again; was the picture resized after labelling?"),
    "box mostly outside": Kind(15, "warning", "clipped to the picture", "draw the box again"),
    "box clipped": Kind(15, "note", "clipped to the picture", "nothing, or write a repaired copy"),
    "duplicate row": Kind(16, "note", "counted once", "nothing, or write a repaired copy"),
    "class out of range": Kind(17, "error", _STOPS, "correct the class or the list of classes"),
    "class ids from 1": Kind(17, "warning", "ids are taken as they are", "if they start at 1, subtract 1"),
    "malformed row": Kind(18, "error", _STOPS, "correct the row"),
    "malformed file": Kind(18, "error", _STOPS, "correct the file"),
    "cache of another tool": Kind(19, "note", "not read", "nothing"),
    "ignored": Kind(21, "note", "not followed", "nothing"),
    "split that cannot be read": Kind(21, "error", _STOPS, "do what the message says"),
    "unused parent class": Kind(23, "note", "kept, as the ids count it", "nothing"),
    "unnamed classes": Kind(23, "note", "numbers are their names", "name them"),
    "unnamed keypoints": Kind(23, "note", "numbers are their names", "name them"),
    "empty class": Kind(29, "warning", "it cannot be learned", "add pictures, or remove the folder"),
    "picture of no class": Kind(12, "warning", _OUT, "move it into the folder of its class"),
    "class ids with gaps": Kind(22, "note", "labels follow the order of the ids, which come back on export", "nothing"),
    "unknown class": Kind(23, "error", _STOPS, "correct the name or the list of classes"),
    "class missing in a split": Kind(23, "warning", "its score is n/a there", "move some of its pictures there"),
    "similar class names": Kind(23, "warning", "they are different classes", "use one spelling"),
    "hidden folder": Kind(23, "note", "left out", "nothing"),
    "crowd or difficult": Kind(24, "note", "counts neither way", "nothing"),
    "duplicate image": Kind(25, "note", "counted once", "remove the second entry"),
    "duplicate image id": Kind(25, "error", _STOPS, "give each picture an id of its own"),
    "duplicate annotation id": Kind(25, "note", "both are used", "nothing"),
    "annotation without image": Kind(25, "warning", _ROW_OUT, "add the picture or remove the annotations"),
    "malformed mask": Kind(25, "warning", "the mask is left out, the box stays", "draw the mask again"),
    "counted from 0": Kind(26, "note", "one pixel is clipped", "VOC counts from 1; convert if these count from 0"),
    "malformed keypoints": Kind(25, "warning", "the keypoints are left out, the box stays", "correct them"),
    "wrong num_keypoints": Kind(25, "note", "they are counted anew", "nothing"),
    "other keypoints": Kind(25, "warning", "those of the first category are taken for all", "split the categories"),
    "malformed skeleton": Kind(25, "note", "left out", "nothing, or correct it"),
    "skeleton from 0": Kind(25, "note", "taken as it is meant", "nothing"),
    "missing field": Kind(25, "note", "the message says what is taken instead", "nothing"),
    "malformed caption": Kind(25, "warning", "the caption is left out", "correct it"),
    "unlisted segment": Kind(25, "warning", "these pixels belong to nothing", "list the segment, or make them 0"),
    "wrong area": Kind(25, "note", "the pixels are counted", "nothing"),
    "mask value": Kind(27, "error", _STOPS, "correct the values, or the list of classes"),
    "mask size": Kind(27, "warning", _OUT, "save the mask in the size of its picture"),
    # the whole
    "same picture in two splits": Kind(28, "warning", "evaluation sees what was learned", "keep it in one split"),
    "near duplicate in two splits": Kind(28, "warning", "evaluation sees what was learned", "keep both in one split"),
    "same picture twice": Kind(28, "note", "it counts more than others", "keep one"),
    "near duplicates": Kind(28, "note", "they count more than others", "keep one, or all in one split"),
    "same picture, other labels": Kind(28, "warning", "the labels contradict each other", "decide for one"),
    "search cut short": Kind(28, "note", "near duplicates may be missing here", "look at the pictures that are alike"),
    "imbalance": Kind(29, "warning", "rare classes are seldom seen", "balance the sampling or the loss"),
    "class without objects": Kind(29, "warning", "it cannot be learned", "label some, or remove the class"),
    "tiny box": Kind(14, "warning", "after resizing nothing of it is left", "train at a larger size or on tiles"),
    "small boxes": Kind(14, "note", "hard to find at this size", "train at a larger size or on tiles"),
    "many objects": Kind(35, "note", "costs memory; COCO counts 100 a picture", "tile these pictures"),
    "anchor misfit": Kind(14, "warning", "these boxes get few or no anchors", "torso data stats --anchors"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing found: ``line`` counts from 1; ``picture`` and ``twin`` are files that show it, where there are."""

    kind: str
    row: int | None
    severity: Severity
    path: str
    message: str
    line: int | None = None
    split: str = ""
    picture: str = ""
    twin: str = ""

    @property
    def where(self) -> str:
        """The place a person goes to."""
        place = self.path or self.split
        return place if self.line is None else f"{place}:{self.line}"


def found(
    kind: str, path: str, message: str, *, line: int | None = None, split: str = "", picture: str = "", twin: str = ""
) -> Finding:
    """A finding of a known kind."""
    known = KINDS[kind]
    return Finding(kind, known.row, known.severity, path, message, line, split, picture, twin)


# Readers of masks have the words of boxes.
_OF_MASKS = {"class out of range": "mask value", "wrong size": "mask size"}


def of_problem(problem: Problem, split: str, task: Task) -> Finding:
    """What a reader reported, as a finding."""
    kind = _kind_of(problem)
    if task == "segment":
        kind = _OF_MASKS.get(problem.kind, kind)
    known = KINDS.get(kind)
    severity: Severity = known.severity if known else "warning"
    if problem.fatal:  # the reader's word: training would stop
        severity = "error"
    row = known.row if known else None
    return Finding(kind, row, severity, problem.path, problem.message, problem.line, split)


def _kind_of(problem: Problem) -> str:
    """Readers have one word for pictures that cannot be read; the cure depends on why."""
    if problem.kind == "damaged image":
        return kind_of_reason(problem.message)
    if problem.kind == "wrong size" and "EXIF" in problem.message:
        return "unrotated size"
    if problem.kind == "box clipped" and "box (-1, " in problem.message.replace("(0, -1", "(-1, "):
        return "counted from 0"
    return problem.kind


def kind_of_reason(reason: str) -> str:
    """The kind of a picture that cannot be decoded."""
    if reason.startswith(("is not a picture", "is a git-LFS pointer", "is empty")):
        return "not a picture"
    if "pixels; tile it" in reason or reason.startswith("too large"):
        return "picture too large"
    return "damaged image"


@dataclass(frozen=True)
class Group:
    """All findings of one kind."""

    kind: str
    severity: Severity
    findings: tuple[Finding, ...]

    @property
    def training(self) -> str:
        """What training does."""
        if self.kind in KINDS:
            return KINDS[self.kind].training
        return _STOPS if self.severity == "error" else "see the message"

    @property
    def advice(self) -> str:
        """What to do."""
        return KINDS[self.kind].advice if self.kind in KINDS else "do what the message says"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with every place."""
        places = [
            {"split": one.split, "path": one.path, "line": one.line, "message": one.message} for one in self.findings
        ]
        return {
            "kind": self.kind,
            "row": self.findings[0].row,
            "severity": self.severity,
            "count": len(self.findings),
            "training": self.training,
            "advice": self.advice,
            "places": places,
        }


def grouped(findings: Iterable[Finding]) -> Iterator[Group]:
    """Findings by kind: errors first, then by row."""
    by_kind: dict[tuple[Severity, str], list[Finding]] = {}
    for one in findings:
        by_kind.setdefault((one.severity, one.kind), []).append(one)
    order = sorted(by_kind, key=lambda key: (SEVERITIES.index(key[0]), by_kind[key][0].row or 99, key[1]))
    for severity, kind in order:
        yield Group(kind, severity, tuple(by_kind[severity, kind]))

"""The XML of PASCAL VOC, one file a picture: read and written side by side."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from torso.config import DataError

MAX_XML = 16 << 20  # bytes
SIDES = ("xmin", "ymin", "xmax", "ymax")
_OBJECT = re.compile(rb"<object(?=[\s>])")
_NO = ("", "0", "false", "unspecified")

Sides = tuple[str, str, str, str]


class VocObject(NamedTuple):
    """One ``<object>``, its numbers still text."""

    name: str
    sides: Sides  # xmin, ymin, xmax, ymax as the file says
    pose: str = ""  # Left, Right, Frontal, Rear, ...; "" is Unspecified
    truncated: bool = False
    difficult: bool = False
    occluded: bool = False
    parts: int = 0  # boxes of head, hands and feet, counted and not kept
    line: int = 1


class VocPage(NamedTuple):
    """One file, or what is wrong with it."""

    file: Path
    filename: str = ""
    size: tuple[int, int] | None = None  # width, height as the file says
    segmented: bool = False
    objects: tuple[VocObject, ...] = ()
    wrong: str = ""
    wrong_line: int | None = None


def read_page(file: Path) -> VocPage:
    """Reads VOC's XML: filename, size, segmented; of each object name, box, pose, truncated, difficult, occluded.

    A file with a DOCTYPE, one larger than 16 MiB or one that is not XML comes back with ``wrong`` saying so. Boxes
    of parts are counted and not kept.

    Source: The PASCAL Visual Object Classes (VOC) Challenge, 2010.
    """
    data, wrong = _content(file)
    if wrong:
        return VocPage(file, wrong=wrong)
    try:
        root = ET.fromstring(data)
    except ET.ParseError as error:
        return VocPage(file, wrong=f"is not XML ({error})", wrong_line=error.position[0])
    except (ValueError, LookupError) as error:
        return VocPage(file, wrong=f"is not XML ({error})")
    items = list(root.iter("object"))
    lines = _lines(data, len(items))
    width, height = (_text(root, f"size/{side}") for side in ("width", "height"))
    return VocPage(
        file,
        filename=_text(root, "filename"),
        size=(int(width), int(height)) if width.isdecimal() and height.isdecimal() else None,
        segmented=_flag(_text(root, "segmented")),
        objects=tuple(_object(item, line) for item, line in zip(items, lines, strict=True)),
    )


def write_page(page: VocPage) -> str:
    """The text of a VOC file; ``read_page`` gives the same page.

    Raises:
        DataError: a name that XML cannot hold.
    """
    width, height = page.size or (0, 0)
    lines = [
        "<annotation>",
        "  <folder>JPEGImages</folder>",
        f"  <filename>{_escaped(page, page.filename)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        f"  <segmented>{int(page.segmented)}</segmented>",
    ]
    for item in page.objects:
        box = "".join(f"<{tag}>{side}</{tag}>" for tag, side in zip(SIDES, item.sides, strict=True))
        lines += [
            "  <object>",
            f"    <name>{_escaped(page, item.name)}</name>",
            f"    <pose>{_escaped(page, item.pose) or 'Unspecified'}</pose>",
            f"    <truncated>{int(item.truncated)}</truncated>",
            f"    <occluded>{int(item.occluded)}</occluded>",
            f"    <difficult>{int(item.difficult)}</difficult>",
            f"    <bndbox>{box}</bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def box_of(sides: Sides, offset: float) -> tuple[float, float, float, float]:
    """The continuous box from 0 that a file's numbers mean: ``xmin`` and ``ymin`` lose ``offset``, the others stay.

    ``offset`` is 1 for VOC, which counts pixels from 1 and includes the last one, and 0 for tools that write
    continuous numbers from 0. A box whose end is not behind its beginning has no area, whatever the offset:
    annotators' slips look like that. Only with decimals it is one narrower than a pixel, as other formats have them.

    Raises:
        ValueError: not numbers.
    """
    xmin, ymin, xmax, ymax = map(float, sides)
    axes = ((xmin, xmax, sides[0] + sides[2]), (ymin, ymax, sides[1] + sides[3]))
    if any(high <= low and "." not in texts for low, high, texts in axes):
        return (xmin, ymin, xmax, ymax)
    return (xmin - offset, ymin - offset, xmax, ymax)


def sides_of(box: tuple[float, float, float, float], offset: float) -> Sides:
    """What ``box_of`` turns into the box again."""
    x0, y0, x1, y1 = box
    (xmin, xmax), (ymin, ymax) = _side(x0 + offset, x1), _side(y0 + offset, y1)
    return (xmin, ymin, xmax, ymax)


def _side(low: float, high: float) -> tuple[str, str]:
    first, last = (f"{value:.12g}" for value in (low, high))
    if float(last) <= float(first) and "." not in first + last:
        first += ".0"
    return first, last


def _content(file: Path) -> tuple[bytes, str]:
    """The bytes of a file, and why they are not parsed."""
    try:
        if file.stat().st_size > MAX_XML:
            return b"", f"is larger than {MAX_XML >> 20} MiB, no VOC annotation is"
        data = file.read_bytes()
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return b"", "has a DOCTYPE; VOC files have none, and entities are not read"
    # Two bytes a letter: an encoding in which the line above would see nothing.
    return data, "expected UTF-8 text" if b"\0" in data else ""


def _lines(data: bytes, count: int) -> list[int]:
    """The line where each object starts; the parser does not keep it, so it is looked up."""
    line, before, found = 1, 0, []
    for match in _OBJECT.finditer(data):
        line += data.count(b"\n", before, match.start())
        before = match.start()
        found.append(line)
    return found if len(found) == count else [1] * count  # one of them in a comment


def _object(item: ET.Element, line: int) -> VocObject:
    fields = {child.tag: child for child in reversed(item)}
    texts = {tag: (child.text or "").strip() for tag, child in fields.items()}
    box = {} if "bndbox" not in fields else {side.tag: (side.text or "").strip() for side in fields["bndbox"]}
    pose = texts.get("pose", "")
    return VocObject(
        texts.get("name", ""),
        (box.get("xmin", ""), box.get("ymin", ""), box.get("xmax", ""), box.get("ymax", "")),
        pose="" if pose.lower() == "unspecified" else pose,
        truncated=_flag(texts.get("truncated", "")),
        difficult=_flag(texts.get("difficult", "")),
        occluded=_flag(texts.get("occluded", "")),
        parts=sum(child.tag == "part" for child in item),
        line=line,
    )


def _flag(text: str) -> bool:
    return text.lower() not in _NO


def _text(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _escaped(page: VocPage, text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise DataError(f"{page.filename!r}: the name {text!r} has characters that XML does not keep; rename it")
    return escape(text)

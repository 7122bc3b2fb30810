"""The diagnosis as one page of HTML that needs nothing else, opens anywhere and runs no script."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torso.config import DataError
from torso.data.decode import DecodeError, decode
from torso.data.doctor.diagnosis import Diagnosis
from torso.data.doctor.findings import Finding, Group
from torso.data.doctor.labels import sides
from torso.data.doctor.pictures import Place
from torso.data.doctor.plots import histogram, size_map

PLACES = 12  # of a kind that the page lists; the JSON has all
FLAGGED = 6  # pictures of a kind
FLAGGED_IN_ALL = 90
_SIDE = 200  # pixels of a thumbnail's long side
_INK = (47, 126, 216)
_COMPARED = 28  # the row of findings where pictures are compared, so nothing is drawn on them


class Thumb(NamedTuple):
    """A small picture as a data URI."""

    uri: str
    width: int
    height: int
    name: str


class Shown(NamedTuple):
    """A group of findings as the page shows it."""

    group: Group
    places: tuple[Finding, ...]
    more: int
    pictures: list[tuple[list[Thumb], str]]  # one, or two that are alike; and what is said of them


def page(diagnosis: Diagnosis, file: str | Path) -> Path:
    """Writes the page and returns its path.

    Args:
        diagnosis: what `examine` said.
        file: where to; its folder has to exist.

    Raises:
        DataError: the folder does not exist.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    file = Path(file)
    if not file.absolute().parent.is_dir():
        raise DataError(f"{file}: there is no folder {file.absolute().parent}; make it first")
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters.update(count=_count)
    text = jinja.get_template("page.html.j2").render(
        diagnosis=diagnosis,
        name=diagnosis.path.resolve().name or str(diagnosis.path),
        shown=_shown(diagnosis),
        rows=_class_rows(diagnosis),
        reports={split: index.report() for split, index in diagnosis.splits.items()},
        plots=[(Markup(svg), caption) for svg, caption in _plots(diagnosis)],  # numbers and fixed words only
    )
    # A name that is no text (bytes of another encoding) must not keep the page from being written.
    file.write_text(text, encoding="utf-8", errors="backslashreplace")
    return file


def _shown(diagnosis: Diagnosis) -> list[Shown]:
    pictures = _Album(diagnosis)
    result = []
    for group in diagnosis.groups:
        gallery = [one for finding in group.findings if (one := pictures.of(finding)) is not None]
        more = len(group.findings) - PLACES
        result.append(Shown(group, group.findings[:PLACES], max(more, 0), gallery))
    return result


class _Album:
    """Thumbnails of findings, until there are enough."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self.diagnosis = diagnosis
        self.left = FLAGGED_IN_ALL
        self._shown: dict[str, set[str]] = {}
        scan = diagnosis.scan
        self._places = {file: places[0] for file, places in zip(scan.files, scan.places, strict=True) if file}
        # Readers name the file of the labels; its picture has the same stem.
        self._files = {Path(file).stem: file for file in self._places}
        self._files |= {name: file for name, file in zip(scan.names, scan.files, strict=True) if file}

    def of(self, finding: Finding) -> tuple[list[Thumb], str] | None:
        """One picture or a pair, None where there is nothing to see or enough has been shown."""
        met = self._shown.setdefault(finding.kind, set())
        if self.left <= 0 or len(met) >= FLAGGED:
            return None
        stem = Path(finding.path).stem if finding.path.endswith((".xml", ".txt")) else ""
        file = finding.picture or self._files.get(finding.path) or self._files.get(stem)
        draw = finding.row != _COMPARED
        if not file or (file in met and not finding.twin):
            return None
        files = [file, finding.twin] if finding.twin and finding.twin != file else [file]
        thumbs = [thumb for one in files if (thumb := self._thumb(one, draw=draw)) is not None]
        if not thumbs:
            return None
        self.left -= len(thumbs)
        met.add(file)
        return thumbs, f"{finding.where}: {finding.message}"

    def _thumb(self, file: str, *, draw: bool) -> Thumb | None:
        import cv2
        import simplejpeg

        try:
            pixels = decode(Path(file), 8 if Path(file).stat().st_size > 1 << 20 else 1)
        except (DecodeError, OSError):
            return None
        scale = min(_SIDE / max(pixels.shape[:2]), 4.0)
        height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        small = np.ascontiguousarray(cv2.resize(pixels, (width, height), interpolation=way), np.uint8)
        place = self._places.get(file)
        if draw and place is not None:
            self._draw(small, place)
        data = base64.b64encode(simplejpeg.encode_jpeg(small, quality=80, colorspace="RGB")).decode()
        return Thumb(f"data:image/jpeg;base64,{data}", width, height, Path(file).name)

    def _draw(self, small: NDArray[np.uint8], place: Place) -> None:
        import cv2

        index = self.diagnosis.splits[place.split]
        scale = np.array(small.shape[1::-1]) / np.maximum(index.sizes[place.row], 1)
        for x0, y0, x1, y1 in (index.boxes[index.objects(place.row)] * np.tile(scale, 2)).round().astype(int).tolist():
            cv2.rectangle(small, (x0, y0), (x1, y1), _INK, 1, cv2.LINE_AA)


def _class_rows(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """The table of classes, each number with the width of its bar in per cent of the column's largest."""
    table = diagnosis.table()
    most = {split: max((row[split] for row in table), default=0) or 1 for split in diagnosis.splits}
    return [
        {"name": row["class"], "cells": [(row[split], 100 * row[split] / most[split]) for split in diagnosis.splits]}
        for row in table
    ]


def _plots(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    boxed = [index for index in diagnosis.splits.values() if len(index.labels)]
    if not boxed:
        return []
    wide = np.concatenate([sides(index, diagnosis.size) for index in boxed])
    many = np.concatenate([np.diff(index.offsets) for index in boxed])
    return [
        (size_map(wide, diagnosis.size), f"Sizes of the boxes when a picture is fitted into {diagnosis.size} pixels"),
        (histogram(many, "objects on a picture"), "Objects on a picture"),
    ]


def _count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")

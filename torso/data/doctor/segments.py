"""Masks of classes: PNG whose pixels are class numbers, 255 what does not count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from torso.data.decode import DecodeError
from torso.data.doctor.findings import Finding, found
from torso.data.headers import opened, probe, read
from torso.data.index import Index

IGNORED = 255
_SHOWN = 6


def segments(index: Index, split: str) -> Iterator[Finding]:
    """Findings on the masks of one split."""
    for row in range(len(index)) if index.segments is not None else ():
        file = index.segment_file(row)
        if file is None:
            continue
        name = str((index.segments or [])[row])
        for kind, text in _wrong(file, tuple(index.sizes[row].tolist()), len(index.classes)):
            yield found(kind, name, text, split=split, picture=str(index.file(row)))


def _wrong(file: Path, size: tuple[int, ...], classes: int) -> list[tuple[str, str]]:
    try:
        probe(file)  # its own limit of pixels comes first
        _, data = read(file)
        with opened(str(file), data, data) as image:
            if image.mode not in ("P", "L", "1", "I", "I;16"):
                return [("mask in colours", f"has {image.mode} pixels, expected a palette or grey")]
            values, mask_size = np.unique(np.asarray(image)), image.size
    except DecodeError as error:
        return [("damaged mask", error.reason)]
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises while it decodes
        return [("damaged mask", f"damaged picture ({type(error).__name__}: {error})")]
    wrong = []
    if mask_size != size:
        text = f"is {mask_size[0]}x{mask_size[1]}, its picture {size[0]}x{size[1]}"
        wrong.append(("mask size", text))
    beyond = [int(value) for value in values if value >= classes and value != IGNORED]
    if beyond:
        shown = ", ".join(map(str, beyond[:_SHOWN])) + (", ..." if len(beyond) > _SHOWN else "")
        wrong.append(("mask value", f"has {shown}; expected 0..{classes - 1} or {IGNORED}"))
    return wrong

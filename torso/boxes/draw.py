"""Boxes on pictures: readable on any background, at any size of picture, in any language there is a font for."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Ten colours that differ in hue and lightness, none near black or white; class 11 on follow by the golden angle.
FIRST = (
    "#2f7ed8", "#e4572e", "#2ca25f", "#b565c9", "#e0a100", "#17a2b8", "#d6336c", "#7a8b1f", "#8c6d4f", "#5e60ce",
)  # fmt: skip
LIGHT, DARK = (255, 255, 255), (16, 20, 28)
# Where systems keep a font with Chinese, Japanese and Korean; used only for texts that need it.
WIDE_FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/System/Library/Fonts/PingFang.ttc",
    "C:/Windows/Fonts/msyh.ttc",
)


def palette(count: int) -> list[Colour]:
    """Colours of classes 0 to ``count - 1``, RGB in 0..255; a class has the same colour everywhere.

    >>> palette(2)
    [(47, 126, 216), (228, 87, 46)]
    """
    colours = [_rgb(text) for text in FIRST[:count]]
    for place in range(len(FIRST), count):
        hue = (place * 0.61803398875) % 1
        red, green, blue = colorsys.hls_to_rgb(hue, (0.40, 0.52, 0.60)[place % 3], (0.75, 0.55)[place % 2])
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colours


def draw(
    image: Pixels,
    boxes: Any,
    labels: Any = None,
    scores: Any = None,
    *,
    names: Sequence[str] = (),
    colours: Sequence[Colour] | None = None,
    captions: Sequence[str] | None = None,
    dashed: bool | Sequence[bool] = False,
    thickness: int | None = None,
    points: int | None = None,
) -> Pixels:
    """Draw boxes on a copy of a picture. Call it twice to show truth (``dashed``) and prediction on one picture.

    Args:
        image: ``[H, W, 3]`` uint8 RGB.
        boxes: ``[K, 4]`` xyxy pixels of the picture, arrays or tensors.
        labels: ``[K]`` classes; they choose colour and name. Without them every box is class 0 and has no name.
        scores: ``[K]``; written behind the name. The highest score is drawn last, on top.
        names: of the classes; a class without a name shows its number.
        colours: of the classes, or ``palette``.
        captions: ``K`` texts instead of name and score; an empty one draws no caption.
        dashed: broken lines, for all or for each of the boxes.
        thickness: of the lines in pixels; fits the size of the picture unless given.
        points: height of the captions in pixels; fits the size of the picture unless given.

    Returns:
        ``[H, W, 3]`` uint8.
    """
    table = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    classes = np.zeros(len(table), dtype=np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
    if captions is None:
        captions = _captions(classes if labels is not None else None, scores, names, len(table))
    if colours is None:
        colours = palette(int(classes.max(initial=0)) + 1)
    broken = np.broadcast_to(np.asarray(dashed, dtype=bool), len(table))
    order = np.arange(len(table)) if scores is None else np.argsort(np.asarray(scores), kind="stable")
    canvas = Image.fromarray(np.ascontiguousarray(image))
    points = points or max(11, round(min(canvas.size) / 36))
    pen = _Pen(ImageDraw.Draw(canvas), canvas.size, thickness or line_width(canvas.size), points)
    for row in order.tolist():
        _frame(pen, table[row], colours[classes[row]], dashed=bool(broken[row]))
    taken: list[tuple[float, float, float, float]] = []
    for row in reversed(order.tolist()):  # the surest takes the best place for its name
        if captions[row]:
            taken.append(_caption(pen, table[row], captions[row], colours[classes[row]], taken))
    return np.array(canvas)


def line_width(size: tuple[int, int]) -> int:
    """Lines that are seen but do not hide small objects: 2 pixels at 640, growing with the picture."""
    return max(2, round(sum(size) / 2 / 300))


class _Pen(NamedTuple):
    draw: ImageDraw.ImageDraw
    size: tuple[int, int]
    width: int
    points: int


def _captions(labels: Any, scores: Any, names: Sequence[str], count: int) -> list[str]:
    words = [""] * count if labels is None else [names[i] if i < len(names) else str(i) for i in labels.tolist()]
    if scores is None:
        return words
    numbers = [f"{float(score):.2f}" for score in np.asarray(scores).tolist()]
    return [f"{word} {number}".strip() for word, number in zip(words, numbers, strict=True)]


def _frame(pen: _Pen, box: NDArray[np.float64], colour: Colour, *, dashed: bool) -> None:
    """A line of the class's colour with a thin dark rim, so that it is seen on its own colour too."""
    width, height = pen.size
    left, top = (round(float(value)) for value in box[:2])
    right, bottom = max(left, round(float(box[2])) - 1), max(top, round(float(box[3])) - 1)
    left, right = max(0, min(left, width - 1)), max(0, min(right, width - 1))
    top, bottom = max(0, min(top, height - 1)), max(0, min(bottom, height - 1))
    rim = max(1, pen.width // 3)
    pen.draw.rectangle((left - rim, top - rim, right + rim, bottom + rim), outline=DARK, width=rim)
    if not dashed:
        pen.draw.rectangle((left, top, right, bottom), outline=colour, width=pen.width)
        return
    inner = (left, top, right, bottom)
    pen.draw.rectangle(inner, outline=DARK, width=pen.width)
    for start, end in _dashes(left, right, pen.width):
        pen.draw.rectangle((start, top, end, top + pen.width - 1), fill=colour)
        pen.draw.rectangle((start, bottom - pen.width + 1, end, bottom), fill=colour)
    for start, end in _dashes(top, bottom, pen.width):
        pen.draw.rectangle((left, start, left + pen.width - 1, end), fill=colour)
        pen.draw.rectangle((right - pen.width + 1, start, right, end), fill=colour)


def _dashes(start: int, end: int, width: int) -> list[tuple[int, int]]:
    """Stretches of a side: an odd number of equal parts, every other drawn, so that corners are closed."""
    length = end - start + 1
    parts = max(1, 2 * round(length / (8 * width)) + 1)
    edges = np.linspace(start, end + 1, parts + 1).round().astype(int)
    return [(int(edges[i]), int(max(edges[i], edges[i + 1] - 1))) for i in range(0, parts, 2)]


def _caption(
    pen: _Pen,
    box: NDArray[np.float64],
    text: str,
    colour: Colour,
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """The name on a plate of the class's colour: above the box, else inside it, else below, where it hides no other."""
    font = font_for(text, pen.points)
    low, pad = pen.draw.textbbox((0, 0), text, font=font), max(2, pen.points // 5)
    ascent, descent = font.getmetrics() if isinstance(font, ImageFont.FreeTypeFont) else (low[3], 0)
    wide, tall = low[2] - low[0] + 2 * pad, ascent + descent + pad
    left, top, right, bottom = (float(value) for value in box)
    places = [(left, top - tall), (left, top), (left, bottom), (right - wide, top), (left, bottom - tall)]
    fitting = [(min(max(x, 0), max(pen.size[0] - wide, 0)), y) for x, y in places if 0 <= y <= pen.size[1] - tall]
    fitting = fitting or [(max(left, 0), min(max(top, 0), max(pen.size[1] - tall, 0)))]
    x, y = min(fitting, key=lambda place: sum(_shared((*place, place[0] + wide, place[1] + tall), t) for t in taken))
    plate = (round(x), round(y), round(x + wide) - 1, round(y + tall) - 1)
    pen.draw.rectangle(plate, fill=colour, outline=DARK)
    red, green, blue = colour
    ink = DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else LIGHT
    pen.draw.text((plate[0] + pad - low[0], plate[1] + pad / 2), text, fill=ink, font=font)
    return (x, y, x + wide, y + tall)


def _shared(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def font_for(text: str, points: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The first font here that has every character of ``text``; Pillow's own when none has."""
    for path in _font_files():
        if all(_has(path, character) for character in set(text)):
            return _font(path, points)
    return _font(_font_files()[0], points) if _font_files() else ImageFont.load_default(points)


@lru_cache
def _font_files() -> tuple[str, ...]:
    found = find_spec("matplotlib")  # its DejaVu Sans has Latin, Greek, Cyrillic, Arabic and more than Pillow's own
    folders = [] if found is None else [Path(folder) for folder in found.submodule_search_locations or ()]
    dejavu = [folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" for folder in folders]
    return tuple(str(path) for path in (*dejavu, *map(Path, WIDE_FONTS)) if path.is_file())


@lru_cache(maxsize=64)
def _font(path: str, points: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, points)


@lru_cache(maxsize=4096)
def _has(path: str, character: str) -> bool:
    """Whether a font knows a character: what it does not know looks like what nobody knows."""
    font = _font(path, 16)
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask("\U0010fffe"))


def _rgb(text: str) -> Colour:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)

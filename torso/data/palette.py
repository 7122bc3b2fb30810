"""PNG files whose pixels are classes or objects: numbers, never colours to look at.

A palette or grey PNG holds the numbers themselves; a coloured one is read through the colours of its legend. The
number 255 is the border that counts neither way, in every direction.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torso.data.headers import DecodeError, check_size, opened, read

IGNORED = 255
BORDER = (224, 224, 192)  # what 255 looks like in VOC's palette
UNKNOWN = -1  # in a legend's labels: a number that must not occur

Color = tuple[int, int, int]
Numbers = NDArray[Any]
"""Integers ``[H, W]`` of any width."""


@cache
def voc_colormap() -> tuple[Color, ...]:
    """The 256 colours of VOC's palette, red, green, blue.

    The bits of a number are dealt out to red, green and blue in turn, the lowest becoming the highest of a colour.

    >>> voc_colormap()[:4], voc_colormap()[255]
    (((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)), (224, 224, 192))
    """
    colors = []
    for number in range(256):
        color = [0, 0, 0]
        for place in range(8):
            color[place % 3] |= (number >> place & 1) << (7 - place // 3)
        colors.append((color[0], color[1], color[2]))
    return tuple(colors)


@dataclass(frozen=True)
class Legend:
    """How a PNG of classes is read: number or colour to label (VOC's SegmentationClass and its like).

    Palette PNG are read as the numbers they hold, never as colours; 255 stays 255.

    Args:
        colors: of a coloured (RGB) PNG: colour ``i`` stands for the number ``i``; VOC's colours where none are given.
        labels: the label of number ``i`` (255 where it counts neither way, -1 where it must not occur); where none
            are given, a number is its own label.

    Source: The PASCAL Visual Object Classes (VOC) Challenge, 2010.
    """

    colors: tuple[Color, ...] = ()
    labels: tuple[int, ...] = ()

    def read(self, source: Path | bytes) -> NDArray[np.uint8]:
        """The labels ``[H, W]`` of a PNG, 255 where a pixel counts neither way.

        Raises:
            DecodeError: not a picture, or numbers or colours that the legend does not know.
        """
        numbers = self.numbers(source)
        found = _distinct(numbers)
        wrong = self._strange(found, IGNORED + 1)
        if wrong:
            raise DecodeError("" if isinstance(source, bytes) else str(source), wrong)
        table = np.full(int(found[-1]) + 1, IGNORED, np.uint8)
        table[found] = [self._label(int(number)) for number in found]
        labels: NDArray[np.uint8] = table[numbers]
        return labels

    def numbers(self, source: Path | bytes) -> Numbers:
        """The numbers ``[H, W]`` of a PNG before they become labels; -1 where a colour stands for none."""
        pixels = read_pixels(source)
        return self._of_colors(pixels) if pixels.ndim == 3 else pixels

    def wrong(self, source: Path, size: tuple[int, int], classes: int) -> tuple[str, str]:
        """Kind and message of what is wrong with a PNG for a picture of ``size`` (width, height); "" where nothing is.

        Args:
            source: the PNG.
            size: of the picture it belongs to.
            classes: how many there are.
        """
        try:
            numbers = self.numbers(source)
        except DecodeError as error:
            return ("damaged image" if source.exists() else "missing label file"), error.reason
        height, width = numbers.shape
        if (width, height) != size:
            return "wrong size", f"is {width}x{height}, its picture {size[0]}x{size[1]}; left out"
        return "class out of range", self._strange(_distinct(numbers), classes)

    def _label(self, number: int) -> int:
        if number == IGNORED or not self.labels:
            return number
        return self.labels[number]

    def _strange(self, found: NDArray[np.int64], classes: int) -> str:
        count = min(len(self.labels) or classes, IGNORED)
        odd = [int(n) for n in found if n != IGNORED and not (0 <= n < count and self._label(int(n)) != UNKNOWN)]
        if UNKNOWN in odd:
            return "has colours that stand for no class"
        if odd:
            shown = ", ".join(map(str, odd[:5]))
            return f"expected classes in 0..{count - 1} or 255, came {shown}{' ...' if len(odd) > 5 else ''}"
        return ""

    def _of_colors(self, pixels: NDArray[Any]) -> Numbers:
        colors = self.colors or voc_colormap()
        known = {_code(np.array(color)).item(): number for number, color in reversed(list(enumerate(colors)))}
        known.setdefault(_code(np.array(BORDER)).item(), IGNORED)
        codes, places = np.unique(_code(pixels), return_inverse=True)
        numbers = np.array([known.get(code, UNKNOWN) for code in codes.tolist()], np.int64)
        return numbers[places].reshape(pixels.shape[:2])


PLAIN = Legend()
"""Numbers are labels, colours are VOC's."""


def check_all(legend: Legend, files: Iterable[tuple[Path, tuple[int, int]]], classes: int) -> list[tuple[str, str]]:
    """``Legend.wrong`` of many files and the sizes of their pictures; decoding runs on all cores."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda pair: legend.wrong(pair[0], pair[1], classes), files))


def read_pixels(source: Path | bytes) -> NDArray[Any]:
    """What a PNG holds: ``[H, W]`` numbers (palette, grey of 1, 8 or 16 bits) or ``[H, W, 3]`` colours.

    Raises:
        DecodeError: not a picture, or damaged.
    """
    path, data = read(source)
    with opened(path, data, data) as image:
        check_size(path, *image.size)
        try:
            image.load()
        except Exception as error:  # Pillow's plugins raise whatever their parsers raise
            raise DecodeError(path, f"damaged picture ({type(error).__name__}: {error})") from error
        if image.mode in ("P", "L", "1", "I") or image.mode.startswith("I;16"):
            numbers = np.asarray(image)
            return numbers.view(np.uint8) if numbers.dtype == np.bool_ else numbers
        if image.mode in ("LA", "PA"):
            return np.asarray(image.getchannel(0))
        if image.mode in ("RGB", "RGBA"):
            return np.asarray(image)[..., :3]
        raise DecodeError(path, f"expected a palette, grey or coloured PNG, came mode {image.mode}")


def write_numbers(numbers: NDArray[Any], path: Path) -> None:
    """Writes ``[H, W]`` numbers as a PNG: with VOC's palette up to 255, as 16-bit grey beyond and where they are so."""
    if numbers.dtype == np.uint16 or numbers.max(initial=0) > IGNORED:
        Image.fromarray(numbers.astype(np.uint16)).save(path)
        return
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette([value for color in voc_colormap() for value in color])
    image.save(path)


def _distinct(numbers: Numbers) -> NDArray[np.int64]:
    """The numbers that occur, in order; counting bytes is ten times faster than sorting them."""
    if numbers.dtype == np.uint8:
        return np.flatnonzero(np.bincount(numbers.ravel(), minlength=256))
    return np.unique(numbers).astype(np.int64)


def _code(colors: NDArray[Any]) -> Numbers:
    """Colours ``[..., 3]`` as one number each."""
    wide = colors.astype(np.int64)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]

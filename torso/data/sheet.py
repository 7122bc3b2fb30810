"""A contact sheet of a data set: pictures with all that is said about them, and what augmentation makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from torso.boxes.draw import Pixels, draw, palette
from torso.data.decode import decode
from torso.data.index import Index, Mask
from torso.data.masks import box_of, rasterise
from torso.nn.normalize import eight_bits
from torso.structures import Batch

SHADE = 0.45  # how much of a mask's colour lies over the picture
GAP = 6
CROWDED = 12
BACKGROUND = frozenset({"background", "void", "unlabeled", "unlabelled", "other"})
_PAPER, _INK = (246, 247, 249), (30, 34, 40)
_GREY = (150, 150, 150)


def labelled(index: Index, row: int, side: int) -> Pixels:
    """A picture of an index as its files say, scaled to fit a square of ``side`` pixels.

    Objects that count neither way are grey and dashed. A map of classes and masks are shaded, keypoints are dots, the
    class of the whole picture and captions stand below it.

    Raises:
        DecodeError: the picture cannot be read.
    """
    width, height = index.sizes[row].tolist()
    scale = min(side / max(width, height), 4.0)
    pixels = _scaled(decode(index.picture(row), 1 / scale), (width, height), scale)
    place = index.objects(row)
    segments = index.segment(row)
    if segments is not None:
        small = Image.fromarray(segments).resize(pixels.shape[1::-1], Image.Resampling.NEAREST)
        pixels = shaded_classes(pixels, np.asarray(small), index.classes)
    if index.masks is not None:
        known = [at for at in range(place.start, place.stop) if index.masks[at] is not None]
        bitmaps = fitted([index.masks[at] for at in known], (width, height), pixels)
        pixels = shaded(pixels, bitmaps, index.labels[known])
    points = None if index.keypoints is None else index.keypoints[place] * (scale, scale, 1)
    ignored = index.crowd[place] | index.difficult[place]
    pixels = _drawn(pixels, index.boxes[place] * scale, index.labels[place], ignored, index.classes, points)
    words = [] if index.image_labels is None else [index.classes[index.image_labels[row]]]
    return _with_words(pixels, [*words, *(index.captions[row] if index.captions is not None else [])])


def augmented(batch: Batch, row: int, classes: Sequence[str], side: int) -> Pixels:
    """A picture of a batch as the network sees it, with what it is told of it."""
    targets = batch.targets
    height, width = batch.images.shape[-2:]
    scale = min(side / max(width, height), 4.0)
    pixels = _scaled(eight_bits(batch.images[row]).byte().permute(1, 2, 0).contiguous().numpy(), (width, height), scale)
    if targets.segments is not None:
        small = Image.fromarray(targets.segments[row].numpy()).resize(pixels.shape[1::-1], Image.Resampling.NEAREST)
        pixels = shaded_classes(pixels, np.asarray(small), classes)
    present = (targets.valid | targets.ignore)[row].numpy()
    labels = targets.labels[row].numpy()[present]
    if targets.masks is not None:
        pixels = shaded(pixels, [fit(mask, pixels) for mask in targets.masks[row].numpy()[present]], labels)
    points = None if targets.keypoints is None else targets.keypoints[row].numpy()[present] * (scale, scale, 1)
    boxes = targets.boxes[row].double().numpy()[present] * scale
    pixels = _drawn(pixels, boxes, labels, targets.ignore[row].numpy()[present], classes, points)
    return _with_words(pixels, _class_words(batch, row, classes))


def grid(cells: Sequence[Pixels], columns: int) -> Pixels:
    """Pictures in rows of ``columns``, on a light ground."""
    width = max(cell.shape[1] for cell in cells) + GAP
    rows = [cells[at : at + columns] for at in range(0, len(cells), columns)]
    heights = [max(cell.shape[0] for cell in row) + GAP for row in rows]
    sheet = np.full((sum(heights) + GAP, columns * width + GAP, 3), _PAPER, np.uint8)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = GAP + column * width
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
        top += height
    return sheet


def shaded(
    pixels: Pixels,
    masks: Sequence[NDArray[np.bool_]],
    labels: NDArray[np.int64],
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> Pixels:
    """Masks ``[H, W]`` laid over a picture, with a clear outline, so that neighbours can be told apart."""
    canvas = pixels.copy()
    if colours is None:
        colours = palette(int(labels.max(initial=0)) + 1)
    for mask, label in zip(masks, labels.tolist(), strict=True):
        colour = np.array(colours[label], np.float64)
        left, top, right, bottom = (int(side) for side in box_of(mask))
        mine, part = mask[top:bottom, left:right], canvas[top:bottom, left:right]  # in a crowd a mask is small
        part[mine] = (1 - SHADE) * part[mine] + SHADE * colour
        around = np.pad(mine, 1)
        inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        part[mine & ~inner] = colour
    return canvas


def fitted(masks: Sequence[Mask], size: tuple[int, int], pixels: Pixels) -> list[NDArray[np.bool_]]:
    """Masks of a picture of ``size`` (width, height) as bitmaps of the picture as it is shown."""
    return [fit(rasterise(mask, size), pixels) for mask in masks]


def legend(classes: Sequence[str], width: int, side: int) -> Pixels:
    """The colours of the classes, in columns of ``side`` pixels that fill a width."""
    columns = max(width // side, 1)
    sheet = Image.new("RGB", (width, 18 * -(-len(classes) // columns)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (name, colour) in enumerate(zip(classes, palette(len(classes)), strict=True)):
        left, top = GAP + number % columns * side, number // columns * 18
        pen.rectangle((left, top + 2, left + 12, top + 14), fill=colour)
        pen.text((left + 18, top + 1), name, fill=_INK, font_size=13)
    return np.asarray(sheet)


def shaded_classes(pixels: Pixels, segments: NDArray[np.uint8], classes: Sequence[str]) -> Pixels:
    """A map of classes ``[H, W]`` laid over a picture; a background stays clear, 255 (ignored) is grey."""
    colours = np.zeros((256, 3))
    colours[:255] = palette(255)
    colours[255] = _GREY
    canvas = pixels.copy()
    seen = segments > 0 if classes and classes[0].strip("_ ").lower() in BACKGROUND else segments >= 0
    canvas[seen] = (1 - SHADE) * canvas[seen] + SHADE * colours[segments[seen]]
    return canvas


def _drawn(pixels: Pixels, boxes: Any, labels: Any, ignored: Any, classes: Sequence[str], points: Any) -> Pixels:
    size = max(10, pixels.shape[0] // 28)
    if ignored.any():
        blank = [""] * int(ignored.sum())
        pixels = draw(pixels, boxes[ignored], captions=blank, colours=[_GREY], dashed=True)
    if (~ignored).any():
        few = int((~ignored).sum()) <= CROWDED  # more names than that hide the picture
        words = None if few else [""] * int((~ignored).sum())
        pixels = draw(pixels, boxes[~ignored], labels[~ignored], names=classes, points=size, captions=words)
    if points is None:
        return pixels
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    for x, y, visible in points.reshape(-1, 3).tolist():
        if visible:
            fill = (255, 230, 80) if visible > 1 else _GREY
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=fill, outline=_INK)
    return np.asarray(image)


def _class_words(batch: Batch, row: int, classes: Sequence[str]) -> list[str]:
    targets = batch.targets
    if targets.probabilities is not None:
        shares = targets.probabilities[row]
        return [", ".join(f"{classes[i]} {shares[i]:.2f}" for i in shares.nonzero()[:, 0].tolist())]
    return [] if targets.classes is None else [classes[int(targets.classes[row])]]


def _with_words(pixels: Pixels, words: Sequence[str]) -> Pixels:
    """The picture with lines of text below it, cut at its width."""
    if not words:
        return pixels
    height, width = pixels.shape[:2]
    sheet = Image.new("RGB", (width, height + 16 * len(words) + 4), _PAPER)
    sheet.paste(Image.fromarray(pixels))
    for number, text in enumerate(words):
        ImageDraw.Draw(sheet).text((2, height + 2 + 16 * number), text, fill=_INK, font_size=13)
    return np.asarray(sheet)


def _scaled(pixels: Pixels, size: tuple[int, int], scale: float) -> Pixels:
    width, height = (max(round(length * scale), 1) for length in size)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def fit(mask: NDArray[np.bool_], pixels: Pixels) -> NDArray[np.bool_]:
    """A mask at the size of a picture."""
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(image.resize(pixels.shape[1::-1], Image.Resampling.NEAREST)).astype(bool)

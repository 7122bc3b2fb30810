"""Pictures for the report: what is labelled, what the network is fed, and where it goes wrong, the worst first."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torso.boxes.draw import Colour, Pixels, draw
from torso.config import DataError
from torso.data.sheet import fit, fitted, shaded
from torso.evaluate.matching import Bools, Floats, Ints, ignored, image_of_objects, pair_up
from torso.nn.normalize import eight_bits
from torso.structures import Batch

if TYPE_CHECKING:
    from torso.data.index import Index
    from torso.evaluate.predictions import Predictions

SIDE = 560  # longest side of an embedded picture
LIMIT = 70_000  # bytes of an embedded JPEG: forty of them make a page of less than 4 MB
POINTS = 15  # height of captions, so that they are still read where a picture is shown at half its size
CROWDED = 14  # with more boxes than this only the mistakes are named, and with more mistakes nothing
RIGHT, WRONG, MISSED, NEUTRAL = 0, 1, 2, 3
SIGNALS: list[Colour] = [(47, 126, 216), (228, 66, 38), (235, 170, 0), (140, 146, 156)]


class Picture(NamedTuple):
    """A picture ready to be shown: a data URI, its size and what to write below it."""

    uri: str
    width: int
    height: int
    title: str
    note: str = ""


@dataclass(frozen=True)
class Pictures:
    """All pictures of a report; what is empty is not shown."""

    labels: list[Picture] = field(default_factory=list)
    batches: list[Picture] = field(default_factory=list)
    mistakes: list[list[Picture]] = field(default_factory=list)  # (truth, prediction), or one picture to classify


def of_labels(index: Index, count: int = 9, seed: int = 0) -> list[Picture]:
    """Some labelled pictures, chosen so that as many classes as possible are seen, rare ones first."""
    names = index.classes
    shown: list[Picture] = []
    for row in _varied(index, seed):
        if len(shown) == count:
            break
        found = _open(index, row)
        if found is None:
            continue
        pixels, boxes = found
        place = index.objects(row)
        skip = ignored(index)[place]
        title = index.paths[row]
        if index.image_labels is not None:
            shown.append(embed(pixels, names[index.image_labels[row]], title))
        else:
            drawn = draw(pixels, boxes[skip], captions=[""] * int(skip.sum()), colours=SIGNALS[NEUTRAL:], dashed=True)
            labels = index.labels[place][~skip]
            drawn = draw(drawn, boxes[~skip], labels, captions=_named(labels, names), points=POINTS)
            shown.append(embed(drawn, title, f"{len(boxes)} objects"))
    return shown


def of_batch(batch: Batch, classes: Sequence[str], count: int = 9) -> list[Picture]:
    """Pictures of a training batch as the network sees them: augmented, padded, with the boxes it learns from."""
    shown = []
    targets = batch.targets
    for row in range(min(count, len(batch))):
        pixels = eight_bits(batch.images[row].detach()).clamp(0, 255).round().byte().permute(1, 2, 0).cpu().numpy()
        small, scale = _shrink(pixels)
        if targets.classes is not None:
            shown.append(embed(small, classes[int(targets.classes[row])]))
            continue
        boxes = targets.boxes[row].double().cpu().numpy() * scale
        valid, skip = targets.valid[row].cpu().numpy(), targets.ignore[row].cpu().numpy()
        if targets.masks is not None:
            known = targets.masks[row].cpu().numpy()[valid]
            small = shaded(small, [fit(mask, small) for mask in known], targets.labels[row].cpu().numpy()[valid])
        drawn = draw(small, boxes[skip], captions=[""] * int(skip.sum()), colours=SIGNALS[NEUTRAL:], dashed=True)
        labels = targets.labels[row].cpu().numpy()[valid]
        drawn = draw(drawn, boxes[valid], labels, captions=_named(labels, classes), points=POINTS)
        shown.append(embed(drawn, f"{int(valid.sum())} objects"))
    return shown


def of_mistakes(
    index: Index, predictions: Predictions, threshold: float = 0.25, count: int = 12
) -> list[list[Picture]]:
    """The pictures a model does worst on, worst first.

    For a detector (truth, prediction) side by side: blue what is right, red what is wrong, yellow what is missed,
    grey what counts neither way. For a classifier the surest wrong answers.
    """
    threshold = 0.25 if np.isnan(threshold) else threshold
    if predictions.probabilities is not None:
        return _misnamed(index, predictions, predictions.probabilities, count)
    judged = _judge(index, predictions, threshold)
    pairs: list[list[Picture]] = []
    for row in np.argsort(-judged.error, kind="stable").tolist():
        if len(pairs) == count or judged.error[row] == 0:
            break
        pair = _pair(index, predictions, judged, row)
        if pair is not None:
            pairs.append(pair)
    return pairs


def embed(pixels: Pixels, title: str, note: str = "", limit: int = LIMIT) -> Picture:
    """A picture as JPEG in a data URI of at most ``limit`` bytes (before base64), coarser or smaller if it must be."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    while True:
        for quality in (86, 74, 60):
            buffer = io.BytesIO()
            image.save(buffer, format="JPEG", quality=quality, optimize=True)
            if buffer.tell() <= limit or max(image.size) <= 32:
                text = base64.b64encode(buffer.getvalue()).decode("ascii")
                return Picture(f"data:image/jpeg;base64,{text}", *image.size, title, note)
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))


class Judged(NamedTuple):
    """What a detector did at a threshold."""

    said: Ints  # [K'] rows of the predictions that are shown
    kind: Ints  # [K'] RIGHT, WRONG or NEUTRAL
    missed: Bools  # [T]
    error: Floats  # [N] how bad it is on each picture: 1 for a missed object, its score for a wrong detection


def _judge(index: Index, predictions: Predictions, threshold: float) -> Judged:
    skip = ignored(index)
    said, target = pair_up(index, predictions, threshold)
    same = predictions.labels[said] == np.append(index.labels, -1)[target]
    kind = np.where(np.append(skip, False)[target], NEUTRAL, np.where(same, RIGHT, WRONG))
    missed = ~skip
    missed[target[(target >= 0)]] = False
    error = np.bincount(image_of_objects(index)[missed], minlength=len(index)).astype(np.float64)
    wrong = said[kind == WRONG]
    error += np.bincount(predictions.image[wrong], predictions.scores[wrong], minlength=len(index))
    return Judged(said, kind, missed, error)


def _pair(index: Index, predictions: Predictions, judged: Judged, row: int) -> list[Picture] | None:
    """The truth and the prediction of one picture; None if the file cannot be read any more."""
    found = _open(index, row)
    if found is None:
        return None
    pixels, boxes = found
    place = index.objects(row)
    missed = judged.missed[place]
    state = np.where(missed, MISSED, np.where(ignored(index)[place], NEUTRAL, RIGHT))
    words = [index.classes[label] for label in index.labels[place].tolist()]
    truth = draw(
        _shaded_truth(index, predictions, row, pixels, state),
        boxes,
        state,
        captions=_quiet(words, state == MISSED),
        colours=SIGNALS,
        dashed=True,
        points=POINTS,
    )

    mine = predictions.image[judged.said] == row
    rows, kind = judged.said[mine], judged.kind[mine]
    scores = predictions.scores[rows]
    words = [
        f"{index.classes[label]} {score:.2f}"
        for label, score in zip(predictions.labels[rows].tolist(), scores.tolist(), strict=True)
    ]
    scale = pixels.shape[1] / max(1, int(index.sizes[row][0])) if index.sizes[row][0] else 1.0
    shown = pixels
    if predictions.masks is not None:
        masks = [predictions.masks[at] for at in rows.tolist()]
        shown = shaded(pixels, fitted(masks, _size(index, row), pixels), kind, SIGNALS)
    answer = draw(
        shown,
        predictions.boxes[rows] * scale,
        kind,
        scores,
        captions=_quiet(words, kind == WRONG),
        colours=SIGNALS,
        points=POINTS,
    )
    note = f"{int(missed.sum())} missed, {int((kind == WRONG).sum())} wrong, {int((kind == RIGHT).sum())} right"
    return [embed(truth, "truth", index.paths[row]), embed(answer, "prediction", note)]


def _shaded_truth(index: Index, predictions: Predictions, row: int, pixels: Pixels, state: Ints) -> Pixels:
    """The objects' masks, where the model says masks too."""
    if predictions.masks is None or index.masks is None:
        return pixels
    place = index.objects(row)
    known = [at for at in range(place.start, place.stop) if index.masks[at] is not None]
    masks = fitted([index.masks[at] for at in known], _size(index, row), pixels)
    return shaded(pixels, masks, state[np.array(known, dtype=np.int64) - place.start], SIGNALS)


def _size(index: Index, row: int) -> tuple[int, int]:
    width, height = index.sizes[row].tolist()
    return width, height


def _quiet(words: Sequence[str], important: NDArray[np.bool_]) -> list[str]:
    """On a crowded picture only what is important keeps its caption, and nothing where even that would hide it."""
    if len(words) > CROWDED:
        important = important & (important.sum() <= CROWDED)
        return [word if keep else "" for word, keep in zip(words, important.tolist(), strict=True)]
    return list(words)


def _named(labels: Ints, names: Sequence[str]) -> list[str]:
    """The classes as captions; none on a crowded picture, where they would hide it."""
    return [names[label] if len(labels) <= CROWDED else "" for label in labels.tolist()]


def _misnamed(index: Index, predictions: Predictions, table: Floats, count: int) -> list[list[Picture]]:
    if index.image_labels is None:
        return []
    truth, said = index.image_labels[predictions.seen], table.argmax(axis=1)
    rows = np.arange(len(table))
    lead = table[rows, said] - table[rows, truth]
    shown: list[list[Picture]] = []
    for place in np.argsort(-lead, kind="stable").tolist():
        if len(shown) == count or said[place] == truth[place]:
            break
        found = _open(index, int(predictions.seen[place]))
        if found is not None:
            was, called = index.classes[truth[place]], index.classes[said[place]]
            note = f"is {was} ({table[place, truth[place]]:.2f}), called {called} ({table[place, said[place]]:.2f})"
            shown.append([embed(found[0], index.paths[int(predictions.seen[place])], note)])
    return shown


def _open(index: Index, row: int) -> tuple[Pixels, Floats] | None:
    """A picture in report size and its boxes on it; None if it cannot be read."""
    from torso.data.decode import decode

    width, height = (int(value) for value in index.sizes[row])
    try:
        pixels, _ = _shrink(decode(index.picture(row), max(1.0, max(width, height) / SIDE)))
    except DataError:
        return None
    scale = pixels.shape[1] / width if width else 1.0
    return pixels, index.boxes[index.objects(row)] * scale


def _shrink(pixels: Pixels) -> tuple[Pixels, float]:
    """A picture of at most SIDE pixels and by how much it was scaled; small ones grow, so that captions fit."""
    from PIL import Image

    height, width = pixels.shape[:2]
    scale = min(SIDE / max(height, width), 4.0)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)), scale


def _varied(index: Index, seed: int) -> Iterator[int]:
    """Rows of pictures: first one for each class, rare classes first, then any."""
    generator = np.random.default_rng(seed)
    labels: Any = index.labels if index.image_labels is None else index.image_labels
    rows = image_of_objects(index) if index.image_labels is None else np.arange(len(index))
    counts = np.bincount(labels, minlength=len(index.classes))
    seen = np.zeros(len(index), dtype=bool)
    for label in np.argsort(counts, kind="stable"):
        mine = rows[labels == label]
        row = int(generator.choice(mine)) if len(mine) else -1
        if row >= 0 and not seen[row]:
            seen[row] = True
            yield row
    yield from (row for row in generator.permutation(len(index)).tolist() if not seen[row])

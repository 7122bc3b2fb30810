"""Small data sets and detections to judge, built from rows instead of files."""

from pathlib import Path

import numpy as np

from torso.data.index import Index
from torso.evaluate.predictions import Predictions


def make_index(
    objects, *, images=None, classes=("a", "b", "c"), size=(200, 200), crowd=(), difficult=(), area=None, class_ids=None
):
    """An index from rows ``(image, label, x1, y1, x2, y2)``; ``crowd`` and ``difficult`` name rows."""
    table = np.asarray(objects, dtype=np.float64).reshape(-1, 6)
    order = np.argsort(table[:, 0], kind="stable")
    flags = {name: np.isin(np.arange(len(table)), rows)[order] for name, rows in (("c", crowd), ("d", difficult))}
    table = table[order]
    count = images if images is not None else int(table[:, 0].max(initial=0)) + 1
    boxes = table[:, 2:]
    sizes = boxes[:, 2:] - boxes[:, :2]
    return Index(
        task="detect",
        root=Path(),
        paths=[f"{row}.jpg" for row in range(count)],
        sizes=np.tile(np.asarray(size, dtype=np.int32), (count, 1)),
        image_ids=list(range(count)),
        boxes=boxes,
        labels=table[:, 1].astype(np.int64),
        offsets=np.searchsorted(table[:, 0], np.arange(count + 1)),
        crowd=flags["c"],
        difficult=flags["d"],
        truncated=np.zeros(len(table), dtype=bool),
        area=sizes.prod(axis=1) if area is None else np.asarray(area, dtype=np.float64)[order],
        classes=tuple(classes),
        class_ids=tuple(range(len(classes))) if class_ids is None else tuple(class_ids),
    )


def make_predictions(rows, *, seen=None):
    """Predictions from rows ``(image, label, score, x1, y1, x2, y2)``."""
    table = np.asarray(rows, dtype=np.float64).reshape(-1, 7)
    return Predictions.of(table[:, 0], table[:, 3:], table[:, 2], table[:, 1], seen=seen)


def random_world(seed, *, images=6, classes=4, crowds=True, difficult=False):
    """Objects and detections with everything that makes judging hard.

    Coarse coordinates and scores give many ties of both; there are empty pictures, classes without objects, crowds,
    all sizes, near copies, and more than a hundred detections of one class in a picture now and then.
    """
    rng = np.random.default_rng(seed)
    scale = rng.choice([40, 150, 400])
    present = rng.random(classes) < 0.75
    labels_there = np.flatnonzero(present) if present.any() else np.array([0])
    objects, found = [], []
    for image in range(images):
        if rng.random() < 0.2:
            continue
        for _ in range(rng.integers(0, 8)):
            corner = rng.integers(0, scale // 2, 2) * 2
            size = rng.integers(1, scale // 4 + 2, 2) * rng.choice([1, 2, 4])
            objects.append([image, rng.choice(labels_there), *corner, *(corner + size)])
    for image, label, *box in objects:
        for _ in range(rng.integers(0, 4)):
            jitter = rng.integers(-3, 4, 4) * rng.choice([0, 1, scale // 40 + 1])
            low, high = np.array(box[:2]) + jitter[:2], np.array(box[2:]) + jitter[2:]
            said = label if rng.random() < 0.8 else rng.integers(classes)
            found.append([image, said, round(rng.random(), 1), *low, *np.maximum(high, low + 1)])
    crowded = 130 if rng.random() < 0.1 else 6
    for _ in range(rng.integers(0, crowded + 1)):
        corner = rng.integers(0, scale, 2)
        where = [0 if crowded > 6 else rng.integers(images), 0 if crowded > 6 else rng.integers(classes)]
        found.append([*where, round(rng.random(), 1), *corner, *(corner + rng.integers(1, scale // 2, 2))])
    rng.shuffle(found)
    n = len(objects)
    index = make_index(
        objects,
        images=images,
        classes=[f"class {i}" for i in range(classes)],
        size=(2 * scale, 2 * scale),
        crowd=np.flatnonzero(rng.random(n) < 0.15) if crowds else (),
        difficult=np.flatnonzero(rng.random(n) < 0.2) if difficult else (),
        area=None if rng.random() < 0.5 or not n else rng.integers(1, 20000, n),
    )
    return index, make_predictions(found, seen=np.arange(images))

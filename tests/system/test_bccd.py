"""Blood cells in three forms: the same boxes, and the same numbers for the same predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from torso.data import Index, open_index
from torso.evaluate import detection
from torso.evaluate.predictions import Predictions

SPLIT = {"train": (205, 2804), "val": (87, 1137), "test": (72, 945)}


def by_stem(index: Index, stems: list[str]) -> Index:
    """The pictures of these names, in this order."""
    rows = {Path(path).stem: row for row, path in enumerate(index.paths)}
    return index.select([rows[stem] for stem in stems])


def jittered(index: Index, seed: int = 0) -> Predictions:
    """Plausible detections: the truth moved a little, some missing, some of another class."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    size = np.tile(index.boxes[:, 2:] - index.boxes[:, :2], 2)
    boxes = index.boxes + rng.normal(0, 0.07, index.boxes.shape) * size
    labels = np.where(rng.random(len(image)) < 0.1, (index.labels + 1) % 3, index.labels)
    keep = rng.random(len(image)) < 0.9
    scores = rng.random(len(image)).round(2)
    return Predictions.of(image[keep], boxes[keep], scores[keep], labels[keep], seen=np.arange(len(index)))


@pytest.mark.part("format/voc", "format/coco", "metric/coco_ap")
@pytest.mark.parametrize("split", SPLIT)
def test_voc_and_coco_say_the_same(shared_data: Path, split: str) -> None:
    voc = open_index(shared_data / "bccd", split)
    coco = open_index(shared_data / "bccd", split, format="coco", classes=voc.classes)
    assert (len(voc), len(voc.labels)) == SPLIT[split]
    coco = by_stem(coco, [Path(path).stem for path in voc.paths])
    order = [np.lexsort((*i.boxes.T, np.repeat(np.arange(len(i)), np.diff(i.offsets)))) for i in (voc, coco)]
    np.testing.assert_allclose(voc.boxes[order[0]], coco.boxes[order[1]], atol=1e-6)
    assert (voc.labels[order[0]] == coco.labels[order[1]]).all()
    said = jittered(voc)
    first, second = detection.evaluate(voc, said), detection.evaluate(coco, said)
    assert 0.2 < first.summary["AP"] < 0.9
    assert first.summary == pytest.approx(second.summary, abs=1e-12, nan_ok=True)


@pytest.mark.part("format/yolo", "metric/coco_ap")
@pytest.mark.parametrize("split", ["train", "val"])
def test_yolo_says_the_same(shared_data: Path, split: str) -> None:
    yolo = open_index(shared_data / "bccd_yolo", split)
    voc = open_index(shared_data / "bccd", "trainval", classes=yolo.classes)
    voc = by_stem(voc, [Path(path).stem for path in yolo.paths])
    assert len(yolo) == {"train": 60, "val": 20}[split]
    assert len(yolo.labels) == len(voc.labels)
    said = jittered(voc)
    first, second = detection.evaluate(voc, said), detection.evaluate(yolo, said)
    # Six decimals of a YOLO file are 0.0003 px: no overlap of these crosses a threshold.
    assert first.summary == pytest.approx(second.summary, abs=1e-12, nan_ok=True)

"""AP of masks against pycocotools, on crowded pictures of nuclei."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torso.data import Index, open_index
from torso.data.masks import box_of, compressed, encoded, rasterise
from torso.evaluate import detection
from torso.evaluate.predictions import Predictions

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def moved(index: Index, seed: int = 0) -> Predictions:
    """Plausible masks: the truth moved a little, grown or cut, some missing, some of another class, some invented."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in ("image", "boxes", "scores", "labels", "masks")}
    for row in range(len(index)):
        size = tuple(index.sizes[row].tolist())
        place = index.objects(row)
        for at in range(place.start, place.stop):
            for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
                pixels = rasterise(index.masks[at], size)
                pixels = np.roll(pixels, rng.integers(-2, 3, 2), axis=(0, 1))
                if rng.random() < 0.4:
                    pixels = pixels | np.roll(pixels, rng.integers(-3, 4, 2), axis=(0, 1))
                if rng.random() < 0.2:
                    pixels = pixels & np.roll(pixels, rng.integers(-6, 7, 2), axis=(0, 1))
                columns["image"].append(row)
                columns["boxes"].append(box_of(pixels))
                columns["scores"].append(float(rng.random().__round__(2)))
                columns["labels"].append(int(index.labels[at] if rng.random() < 0.9 else (index.labels[at] + 1) % 3))
                columns["masks"].append(compressed(encoded(pixels)))
    return Predictions.of(**columns, seen=np.arange(len(index)))


def pycocotools_stats(index: Index, predictions: Predictions, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The twelve numbers and the precision table by the reference implementation."""
    from pycocotools import mask as coco
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = [
        {
            "id": at + 1,
            "image_id": row + 1,
            "category_id": int(index.labels[at]) + 1,
            "bbox": [0, 0, 1, 1],
            "area": float(index.area[at]),
            "iscrowd": int(index.crowd[at]),
            "segmentation": index.masks[at],
        }
        for row in range(len(index))
        for at in range(index.offsets[row], index.offsets[row + 1])
    ]
    sizes = index.sizes.tolist()
    truth, found = COCO(), COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": row + 1, "width": width, "height": height} for row, (width, height) in enumerate(sizes)],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(index.classes)],
        "annotations": annotations,
    }
    said = [
        {
            "id": at + 1,
            "image_id": int(predictions.image[at]) + 1,
            "category_id": int(predictions.labels[at]) + 1,
            "score": float(predictions.scores[at]),
            "segmentation": mask,
            "area": float(coco.area(mask)),  # of the mask; loadRes would take the box's
            "iscrowd": 0,
        }
        for at, mask in enumerate(predictions.masks or [])
    ]
    found.dataset = {**truth.dataset, "annotations": said}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found.createIndex()
        evaluator = COCOeval(truth, found, "segm")
        evaluator.params.maxDets = [1, 10, most]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats, evaluator.eval["precision"]


@pytest.fixture(scope="module")
def nuclei(shared_data: Path) -> Index:
    """The most crowded pictures of nuclei, and some with few; some objects are crowd regions."""
    index = open_index(shared_data / "dsb2018", "val")
    counts = np.diff(index.offsets)
    small = np.flatnonzero(index.sizes.max(axis=1) <= 360)
    rows = [int(counts.argmax()), *small[np.argsort(-counts[small], kind="stable")][[0, 1, 8, -2, -1]].tolist()]
    index = index.select(rows)
    crowd = np.random.default_rng(1).random(len(index.labels)) < 0.02
    return replace(index, crowd=crowd)


@pytest.mark.part("metric/coco_ap", "recipe/mask_rcnn")
@pytest.mark.parametrize("most", [100, 300])
def test_ap_of_masks_equals_pycocotools(nuclei: Index, most: int) -> None:
    said = moved(nuclei)
    assert np.bincount(said.image).max() > 200, "more than COCO looks at in one picture"
    result = detection.evaluate(nuclei, said, most=most)
    expected, precision = pycocotools_stats(nuclei, said, most)
    assert 0.2 < expected[1] < 0.95
    names = [f"mask {name}".replace("100", str(most)) for name in NAMES if name not in ("AR1", "AR10")]
    got = np.array([result.summary[name] for name in names])
    wanted = np.array([x for name, x in zip(NAMES, expected, strict=True) if name not in ("AR1", "AR10")])
    if most != 100:  # its summary asks for a hundred
        wanted[0] = precision[..., 0, 2][precision[..., 0, 2] > -1].mean()
    np.testing.assert_allclose(got, np.where(wanted < 0, np.nan, wanted), atol=1e-12)
    for label, row in enumerate(result.per_class):
        table = precision[:, :, label, 0, 2]
        assert row["mask AP"] == pytest.approx(table[table > -1].mean() if (table > -1).any() else np.nan, nan_ok=True)
    assert result.to_dict()["max_detections"] == most


def test_more_objects_than_are_looked_at_are_told_apart(nuclei: Index) -> None:
    """Every object said exactly: only the limit keeps the AP of masks from 1."""
    sizes = [tuple(size) for size in np.repeat(nuclei.sizes, np.diff(nuclei.offsets), axis=0).tolist()]
    masks = [compressed(encoded(rasterise(mask, size))) for mask, size in zip(nuclei.masks, sizes, strict=True)]
    image = np.repeat(np.arange(len(nuclei)), np.diff(nuclei.offsets))
    scores = np.linspace(1, 0.1, len(image))
    said = Predictions.of(image, nuclei.boxes, scores, nuclei.labels, masks=masks, seen=np.arange(len(nuclei)))
    limited, whole = (detection.evaluate(nuclei, said, most=most).summary for most in (100, 300))
    assert limited["mask AP"] < 0.95
    assert whole["mask AP"] == pytest.approx(1, abs=0.01)  # a crowd region takes some
    assert whole["mask AR300"] > limited["mask AR100"]


def test_predictions_with_masks_come_back_from_a_file(nuclei: Index, tmp_path: Path) -> None:
    said = moved(nuclei.select([4, 5]))
    again = Predictions.load(said.save(tmp_path / "said.json"))
    assert again.masks == said.masks
    half = said.of_rows(said.scores > 0.5)
    assert half.masks == [mask for mask, score in zip(said.masks, said.scores, strict=True) if score > 0.5]
    merged = Predictions.merge([said, said])
    assert merged.masks == said.masks, "a picture that comes twice counts once"
    rows = said.to_coco(nuclei.select([4, 5]))
    assert [row["segmentation"] for row in rows] == said.masks


def test_boxes_alone_are_judged_without_masks(nuclei: Index) -> None:
    said = moved(nuclei.select([4, 5]))
    result = detection.evaluate(nuclei.select([4, 5]), replace(said, masks=None))
    assert not [key for key in (*result.summary, *result.per_class[0]) if "mask" in key]
    with pytest.raises(ValueError, match="must exceed 10"):
        detection.evaluate(nuclei, said, most=10)


def test_nothing_said_finds_nothing(nuclei: Index) -> None:
    result = detection.evaluate(nuclei, Predictions.of(masks=[], seen=np.arange(len(nuclei))))
    assert result.summary["mask AP"] == result.summary["mask AR100"] == 0

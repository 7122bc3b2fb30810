from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from torso.config import DataError
from torso.data import digits, open_index
from torso.data.decode import decode


def content(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def decoded(runs: dict[str, object]) -> np.ndarray:
    return coco_mask.decode(coco_mask.frPyObjects(runs, *runs["size"])).astype(bool)  # type: ignore[misc]


@pytest.mark.parametrize("form", ["voc", "coco", "yolo"])
def test_every_form_holds_the_same_boxes(tmp_path: Path, form: str) -> None:
    digits.make(tmp_path / form, format=form, count=10, size=96)  # type: ignore[arg-type]
    digits.make(tmp_path / "ref", format="coco", count=10, size=96)
    for split, count in (("train", 8), ("val", 2)):
        index, reference = open_index(tmp_path / form, split), open_index(tmp_path / "ref", split)
        assert len(index) == count
        assert index.classes == tuple("0123456789")
        assert np.abs(index.boxes - reference.boxes).max() < 1e-6
        assert np.array_equal(index.labels, reference.labels)
        assert not index.problems


def test_boxes_and_masks_fit_the_ink(tmp_path: Path) -> None:
    index = open_index(digits.make(tmp_path / "d", format="coco", count=20, size=128))
    assert index.masks is not None
    for row in range(len(index)):
        pixels = decode(index.file(row)).astype(float)
        for at in range(index.objects(row).start, index.objects(row).stop):
            mask = decoded(index.masks[at])  # type: ignore[arg-type]
            ys, xs = np.nonzero(mask)
            assert index.boxes[at].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert index.area[at] == mask.sum()
            x0, y0, x1, y1 = index.boxes[at].astype(int)
            inside, box = pixels[mask].mean(0), pixels[y0:y1, x0:x1]
            around = box[~mask[y0:y1, x0:x1]].mean(0)
            assert np.abs(inside - around).max() > 15  # it can be seen


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    one = content(digits.make(tmp_path / "a", count=8, size=64))
    assert one == content(digits.make(tmp_path / "b", count=8, size=64))
    assert one != content(digits.make(tmp_path / "c", count=8, size=64, seed=1))


def test_they_vary(tmp_path: Path) -> None:
    index = open_index(digits.make(tmp_path / "d", count=60, size=128))
    heights = index.boxes[:, 3] - index.boxes[:, 1]
    assert len(set(index.labels.tolist())) == 10
    assert heights.max() / heights.min() > 2.5
    assert set(np.diff(index.offsets)) >= {1, 2, 3, 4, 5}


def test_one_digit_a_picture(tmp_path: Path) -> None:
    folder = digits.make(tmp_path / "d", format="folder", count=40, size=128)
    train, val = open_index(folder), open_index(folder, "val")
    assert (train.task, len(train), len(val)) == ("classify", 32, 8)
    assert train.sizes.tolist() == [[32, 32]] * 32
    assert set(val.classes) <= set(digits.CLASSES)
    assert open_index(folder, "val", classes=train.classes).classes == train.classes


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="expected a new or empty folder"):
        digits.make(tmp_path, count=5, size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

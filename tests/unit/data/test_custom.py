"""Any map-style data set of torch: lazily read, in every usual form of pictures and targets, through the loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from tests.unit.data.pictures import noise
from torso import testing
from torso.config import DataError
from torso.data.decode import DecodeError
from torso.data.formats.custom import custom, pixels_of
from torso.data.formats.yolo import Yolo
from torso.data.loader import Loader
from torso.data.masks import rasterise


class Boxes(Dataset[Any]):
    """Targets as torchvision's detection references have them: classes from 1, masks, crowds."""

    def __init__(self, form: Callable[[np.ndarray], Any] = lambda pixels: pixels, **changes: Any) -> None:
        self.form, self.changes = form, changes
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 5

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        if row >= len(self):
            raise IndexError(row)
        self.asked.append(row)
        count = row % 3
        boxes = torch.tensor([[2.0 + k, 3, 12 + k, 20] for k in range(count)]).reshape(-1, 4)
        masks = torch.zeros(count, 24, 32, dtype=torch.uint8)
        masks[:, 3:20, 4:12] = 1
        target = {
            "boxes": boxes,
            "labels": torch.arange(count) % 2 + 1,
            "masks": masks,
            "iscrowd": torch.arange(count) % 2,
            "area": torch.full((count,), 136.0),
            "image_id": row,
        }
        return self.form(noise(32, 24, row)), target | self.changes


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda pixels: pixels,
    "PIL": Image.fromarray,
    "tensor": v2.functional.to_image,
    "float tensor": lambda pixels: v2.functional.to_dtype(v2.functional.to_image(pixels), torch.float32, scale=True),
}


@pytest.mark.part("format/custom")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [0, 2])
def test_boxes_of_a_data_set_are_batches_of_the_loader(form: str, workers: int) -> None:
    dataset = Boxes(FORMS[form])
    index = custom(dataset, ("cat", "dog"), first_label=1)
    testing.check_dataset(index)
    assert (index.task, index.classes, index.class_ids) == ("detect", ("cat", "dog"), (1, 2))
    assert index.labels.tolist() == [0, 0, 1, 0]
    assert index.crowd.tolist() == [False, False, True, False]
    assert index.area.tolist() == [136] * 4
    assert index.masks is not None
    assert rasterise(index.masks[0], (32, 24))[3:20, 4:12].all()
    assert rasterise(index.masks[0], (32, 24)).sum() == 136
    batches = list(Loader(index, size=(32, 24), batch=2, workers=workers).epoch(0))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    pixels = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(pixels, np.stack([noise(32, 24, row) for row in range(5)]))
    targets = batches[1].targets
    assert targets.boxes[0, :2].tolist() == [[2, 3, 12, 20], [3, 3, 13, 20]]
    assert targets.valid[0, :2].tolist() == [True, False]
    assert targets.ignore[0, :2].tolist() == [False, True]


@pytest.mark.part("format/custom")
def test_classes_of_a_data_set_are_those_it_gives(shared_data: Path) -> None:
    dataset = Subset(ImageFolder(str(shared_data / "trashnet" / "val")), range(0, 120, 10))
    index = custom(dataset, ImageFolder(str(shared_data / "trashnet" / "val")).classes, task="classify")
    assert index.image_labels is not None
    assert index.image_labels.tolist() == [dataset[row][1] for row in range(12)]
    assert index.sizes.tolist() == [[384, 512]] * 12
    (batch,) = Loader(index, size=(384, 512), batch=12).epoch(0)
    assert batch.targets.classes is not None
    assert batch.targets.classes.tolist() == index.image_labels.tolist()
    assert np.array_equal(batch.images[3].permute(1, 2, 0).numpy(), np.asarray(dataset[3][0]))
    tensors = TensorDataset(torch.arange(4 * 5 * 6).reshape(4, 1, 5, 6).to(torch.uint8), torch.tensor([0, 1, 1, 0]))
    index = custom(tensors, ("a", "b"), task="classify")
    assert np.array_equal(index.picture(2)[..., 1], tensors[2][0][0].numpy())


def test_pictures_are_asked_for_when_they_are_needed() -> None:
    dataset = Boxes()
    index = custom(dataset, ("cat", "dog"), first_label=1)
    assert dataset.asked == [0, 1, 2, 3, 4]
    index.picture(3)
    index.select([4, 1]).picture(0)
    assert dataset.asked[5:] == [3, 4]


def test_an_index_without_labels_takes_pairs_and_bare_pictures() -> None:
    class Bare(Boxes):
        def __getitem__(self, row: int) -> Any:
            return super().__getitem__(row)[0]

    for dataset in (Bare(), Boxes()):
        index = custom(dataset, (), task="unlabeled")
        assert (index.task, index.classes, len(index)) == ("unlabeled", (), 5)
        assert np.array_equal(custom(Boxes(), (), task="unlabeled").picture(2), noise(32, 24, 2))


def test_a_picture_that_changes_or_fails_later_is_named_and_skipped() -> None:
    dataset = Boxes()
    index = custom(dataset, ("cat", "dog"), first_label=1)
    dataset.form = lambda pixels: pixels[:20] if pixels[0, 0, 0] == noise(32, 24, 3)[0, 0, 0] else pixels
    with pytest.raises(DecodeError, match=r"Boxes\[3\]: was 32x24 and is 32x20 now; give transforms to torso"):
        index.picture(3)
    loader = Loader(index, size=(32, 24), batch=5)
    (batch,) = loader.epoch(0)
    assert len(batch) == 4
    assert loader.skipped == [
        ("000003.png", "was 32x24 and is 32x20 now; give transforms to torso, not to the data set")
    ]

    def broken(pixels: np.ndarray) -> Any:
        raise KeyError("shelf")

    dataset.form = broken
    with pytest.raises(DecodeError, match=r"Boxes\[0\]: KeyError: 'shelf'"):
        index.picture(0)
    with pytest.raises(DataError, match=r"Boxes\[0\]: expected \(picture, target\), came KeyError: 'shelf'"):
        custom(dataset, ("cat",))


CENTRES = tv_tensors.BoundingBoxes([[1, 2, 3, 4]], format="CXCYWH", canvas_size=(24, 32))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": torch.tensor([1, 1, 1])}, r"Boxes\[0\]: 0 boxes, but 3 labels"),
        ({"boxes": CENTRES}, "expected boxes as XYXY, came CXCYWH"),
        ({"masks": torch.zeros(0, 5, 5)}, r"masks: expected 0x24x32, came \[0, 5, 5\]"),
    ],
)  # fmt: skip
def test_targets_without_sense_are_named_by_their_item(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        custom(Boxes(**changes), ("cat", "dog"), first_label=1)


def test_a_wrong_task_or_class_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"Boxes\[0\]: expected a class number, came dict"):
        custom(Boxes(), ("cat",), task="classify")
    with pytest.raises(DataError, match="task: expected detect, classify or unlabeled, came 'segment'"):
        custom(Boxes(), ("cat",), task="segment")  # type: ignore[arg-type]
    tensors = TensorDataset(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]))
    with pytest.raises(DataError, match=r"TensorDataset\[1\]: expected a class in 0\.\.1, came 2"):
        custom(tensors, ("a", "b"), task="classify")
    with pytest.raises(DataError, match=r"TensorDataset\[0\]: expected a dict with boxes and labels, came Tensor"):
        custom(tensors, ("a", "b"))
    index = custom(Boxes(), ("cat", "dog"))  # the classes really begin at 1
    with pytest.raises(DataError, match=r"object 1: expected a class in 0\.\.1, came 2"):
        index.raise_if_fatal()


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), "a.png", None,
        torch.full((3, 4, 4), 1.5), torch.full((3, 4, 4), float("nan")), torch.zeros(2, 4, 4, dtype=torch.uint8),
        torch.zeros(3, 4, 4, dtype=torch.int64), np.zeros(7, np.uint8),
    ],
)  # fmt: skip
def test_a_picture_that_means_nothing_for_sure_is_refused(picture: Any) -> None:
    with pytest.raises(DataError, match="expected"):
        pixels_of(picture)


def test_a_custom_data_set_is_written_in_any_format(tmp_path: Path) -> None:
    index = custom(Boxes(), ("cat", "dog"), first_label=1)
    Yolo.write(index, tmp_path / "out", "train")
    rows = (tmp_path / "out" / "labels" / "train" / "000001.txt").read_text().splitlines()
    assert len(rows) == 1
    with Image.open(tmp_path / "out" / "images" / "train" / "000001.png") as image:
        assert np.array_equal(np.asarray(image), noise(32, 24, 1))

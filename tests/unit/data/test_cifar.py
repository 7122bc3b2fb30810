"""CIFAR's python version: the same arrays as torchvision, N from the data, and odd files named."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from torso import testing
from torso.config import DataError
from torso.data import open_index
from torso.data.formats.cifar import Cifar
from torso.data.formats.folder import Folder
from torso.data.formats.opening import recognise
from torso.data.loader import Loader
from torso.data.stores import Arrays


def made(folder: Path, meta: dict[Any, Any] | None = None, **changes: Any) -> Path:
    data = np.random.default_rng(0).integers(0, 256, (4, 48), dtype=np.uint8)
    content = {b"data": data, b"labels": [0, 1, 1, 0]} | {key.encode(): value for key, value in changes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
    names = {b"label_names": [b"cat", b"dog"]} if meta is None else meta
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    return folder


def text_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {text_of(key): text_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [text_of(item) for item in value]
    return value.decode("latin-1") if isinstance(value, bytes) else value


def retold(folder: Path, out: Path) -> Path:
    """The same files with text instead of bytes: what Python 2 wrote as text is bytes to us and text to torchvision."""
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).write_bytes(pickle.dumps(text_of(pickle.loads(file.read_bytes(), encoding="bytes"))))
    return out


def theirs(root: Path, base: str, train: list[str], *, is_train: bool, hundred: bool = False) -> Any:
    """torchvision's reader on files that are not CIFAR's own: only its check of their MD5 is left out."""
    kind: Any = datasets.CIFAR100 if hundred else datasets.CIFAR10

    own = {
        "base_folder": base,
        "train_list": [[name, None] for name in train],
        "test_list": [["test" if hundred else "test_batch", None]],
        "meta": kind.meta | {"md5": None},
        "_check_integrity": lambda self: True,
    }
    return type("Unchecked", (kind,), own)(root, train=is_train)


@pytest.mark.part("format/cifar")
@pytest.mark.parametrize(("split", "count"), [("train", 384), ("test", 120)])
def test_arrays_labels_and_names_are_those_of_torchvision(
    split: str, count: int, shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "trashnet_cifar32"
    assert recognise(folder) == "cifar"
    index = open_index(folder, split)
    batches = [f"data_batch_{number}" for number in range(1, 6)]
    retold(folder / "cifar-10-batches-py", tmp_path / "text")
    other = theirs(tmp_path, "text", batches, is_train=split == "train")
    testing.check_dataset(index)
    assert len(index) == count
    assert isinstance(index.store, Arrays)
    assert np.array_equal(index.store.pixels, other.data)
    assert index.image_labels is not None
    assert index.image_labels.tolist() == other.targets
    assert list(index.classes) == other.classes
    assert np.array_equal(index.picture(7), other.data[7])
    assert not index.problems


@pytest.mark.part("format/cifar")
def test_a_small_batch_of_numbers_as_objects_is_what_torchvision_makes_of_it(shared_data: Path) -> None:
    root = shared_data / "format_fixtures"
    index = open_index(root / "cifar10_dataset", "train")
    other = theirs(root, "cifar10_dataset", ["data_batch_1"], is_train=True)
    assert isinstance(index.store, Arrays)
    assert np.array_equal(index.store.pixels, other.data.astype(np.uint8))
    assert index.paths == ["data_batch_1/image_1.png"]
    assert index.classes == ("airplane", "automobile", "bird", "cat")


def test_pictures_of_other_sizes_are_named_and_the_rest_is_read(shared_data: Path) -> None:
    root = shared_data / "format_fixtures"
    ten = open_index(root / "cifar10_dataset", "test")
    assert (len(ten), [str(problem) for problem in ten.problems]) == (
        3, ["test_batch: picture 3 has another size than the first; left out"],
    )  # fmt: skip
    hundred = open_index(root / "cifar100_dataset", "test")
    assert hundred.classes == ("airplane", "automobile", "bird")
    assert hundred.image_labels is not None
    assert hundred.image_labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="came 168 values a picture; expected red, green and blue of a square"):
        open_index(root / "cifar100_dataset", "train")


def test_the_hundred_are_read_by_their_fine_names(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    fine, coarse = [3, 1, 2, 0, 1, 3], [0, 1, 0, 0, 1, 0]
    content = {b"data": data, b"fine_labels": fine, b"coarse_labels": coarse}
    for split in ("train", "test"):
        (tmp_path / split).write_bytes(pickle.dumps(content, protocol=2))
    names = {"fine_label_names": ["a", "b", "c", "d"], "coarse_label_names": ["x", "y"]}
    (tmp_path / "meta").write_bytes(pickle.dumps(names, protocol=2))
    index = open_index(tmp_path, "train")
    retold(tmp_path, tmp_path.parent / f"{tmp_path.name}-text")
    other = theirs(tmp_path.parent, f"{tmp_path.name}-text", ["train"], is_train=True, hundred=True)
    assert isinstance(index.store, Arrays)
    assert np.array_equal(index.store.pixels, other.data)
    assert index.classes == ("a", "b", "c", "d") == tuple(other.classes)
    assert index.image_labels is not None
    assert index.image_labels.tolist() == other.targets == fine


def test_val_is_the_test_split_and_classes_go_by_name(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "trashnet_cifar32"
    assert Cifar.splits(folder) == ["train", "test"]
    assert open_index(folder, "val").fingerprint == open_index(folder, "test").fingerprint
    turned = open_index(folder, "test", classes=tuple(reversed(open_index(folder).classes)))
    assert turned.image_labels is not None
    assert turned.image_labels.tolist() == [5 - label for label in open_index(folder, "test").image_labels]
    with pytest.raises(DataError, match="no split 'extra'; it has train"):
        open_index(made(tmp_path), "extra")


def test_batches_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for number in (2, 10):
        (folder / f"data_batch_{number}").write_bytes((folder / "data_batch_1").read_bytes())
    batches = [path.partition("/")[0] for path in open_index(folder).paths]
    assert list(dict.fromkeys(batches)) == ["data_batch_1", "data_batch_2", "data_batch_10"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": [0, 1]}, "expected data, an array of 2 rows"),
        ({"labels": ["a", "b", "c", "d"]}, "expected labels, a list of whole numbers"),
        ({"labels": None}, "expected labels"),
        ({"data": np.zeros((4, 47), np.uint8)}, "came 47 values a picture"),
        ({"data": np.zeros((4, 48), np.float32)}, "expected data, an array of 4 rows of 8-bit values"),
        ({"data": b"abc"}, "expected data, an array of 4 rows"),
        ({"meta": {b"label_names": "cat"}}, "batches.meta: expected label_names"),
        ({"meta": {b"label_names": [b"cat", b"cat"]}}, "lists a name twice"),
        ({"meta": [1]}, "expected a dict, came a list"),
    ],
)
def test_a_file_without_sense_is_one_sentence(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        open_index(made(tmp_path, **changes), format="cifar")


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    index = open_index(made(tmp_path, labels=[0, 2, -1, 1]))
    assert [index.image_ids, index.places.tolist()] == [["data_batch_1/0", "data_batch_1/3"], [[0], [1]]]
    assert np.array_equal(index.picture(1), made_pixels()[3])
    with pytest.raises(DataError, match=r"data_batch_1: picture 1: expected a class in 0\.\.1, came 2"):
        index.raise_if_fatal()


def made_pixels() -> np.ndarray:
    data = np.random.default_rng(0).integers(0, 256, (4, 48), dtype=np.uint8)
    return data.reshape(4, 3, 4, 4).transpose(0, 2, 3, 1)


def test_names_of_files_cannot_lead_elsewhere(tmp_path: Path) -> None:
    names = [b"../../etc/passwd", b"ok.png", b"..", 7]
    index = open_index(made(tmp_path, filenames=names))
    assert index.paths == [
        "data_batch_1/passwd",
        "data_batch_1/ok.png",
        "data_batch_1/00002.png",
        "data_batch_1/00003.png",
    ]


def test_cifar_is_loaded_in_batches_and_converted_to_folders(tmp_path: Path, shared_data: Path) -> None:
    index = open_index(shared_data / "trashnet_cifar32", "test")
    batch = next(iter(Loader(index, size=(32, 32), batch=16).epoch(0)))
    assert np.array_equal(batch.images.permute(0, 2, 3, 1).numpy(), index.store.pixels[:16])
    assert batch.targets.classes is not None
    assert batch.targets.classes.tolist() == index.image_labels[:16].tolist()
    Folder.write(index, tmp_path / "out", "test")
    again = open_index(tmp_path / "out" / "test", "all", format="folder")
    assert np.bincount(again.image_labels).tolist() == np.bincount(index.image_labels).tolist()
    with pytest.raises(DataError, match="convert to folder instead"):
        Cifar.write(index, tmp_path / "no", "train")

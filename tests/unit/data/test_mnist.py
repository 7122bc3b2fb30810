"""idx files: the same arrays as torchvision, N from the header, and nothing believed that is not there."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

from torso import testing
from torso.config import DataError
from torso.data import open_index
from torso.data.formats.mnist import Mnist, read_idx
from torso.data.formats.opening import recognise
from torso.data.loader import Loader
from torso.data.stores import Arrays


def idx(array: np.ndarray) -> bytes:
    sides = "".join("I" for _ in array.shape)
    return struct.pack(f">HBB{sides}", 0, 8, array.ndim, *array.shape) + array.tobytes()


def made(folder: Path, labels: list[int], split: str = "train", zipped: bool = True) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 5, 6), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", pixels), ("labels-idx1", np.array(labels, np.uint8))):
        data = gzip.compress(idx(array)) if zipped else idx(array)
        (folder / f"{split}-{name}-ubyte{'.gz' if zipped else ''}").write_bytes(data)
    return folder


@pytest.mark.part("format/mnist")
@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("test", "t10k")])
def test_arrays_are_those_of_torchvision(split: str, name: str, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "fashion_mnist"
    assert recognise(folder) == "mnist"
    plain = {}
    for what in ("images-idx3", "labels-idx1"):
        file = tmp_path / f"{name}-{what}-ubyte"
        file.write_bytes(gzip.decompress((folder / f"{file.name}.gz").read_bytes()))
        plain[what] = read_sn3_pascalvincent_tensor(str(file)).numpy()
    for place in (folder, tmp_path):  # gzipped and plain
        index = open_index(place, split)
        testing.check_dataset(index)
        assert len(index) == 10_000  # the header's, not MNIST's 60,000
        assert isinstance(index.store, Arrays)
        assert np.array_equal(index.store.pixels, plain["images-idx3"])
        assert np.array_equal(index.image_labels, plain["labels-idx1"])
        assert index.classes == tuple("0123456789")
        assert index.sizes[0].tolist() == [28, 28]


def test_names_of_classes_come_from_a_list_beside(tmp_path: Path) -> None:
    folder = made(tmp_path, [0, 2, 1])
    (folder / "labels.txt").write_text("coat\nbag\n\nboot\n")
    index = open_index(folder)
    assert index.classes == ("coat", "bag", "boot")
    turned = open_index(folder, classes=("boot", "coat", "bag"))
    assert turned.image_labels.tolist() == [1, 0, 2]
    (folder / "labels.txt").write_text("coat\nbag\n")
    with pytest.raises(DataError, match=r"label 1: expected a class in 0\.\.1, came 2"):
        open_index(folder).raise_if_fatal()
    (folder / "labels.txt").write_text("coat\ncoat\nbag\n")
    with pytest.raises(DataError, match="lists a class twice"):
        open_index(folder)


def test_more_than_ten_classes_are_counted_and_said(tmp_path: Path) -> None:
    made(tmp_path, [0, 25, 3])
    index = open_index(made(tmp_path, [1, 2], split="t10k", zipped=False), "val")
    assert len(index.classes) == 26  # as the training split has them
    assert [problem.kind for problem in index.problems] == ["unnamed classes"]
    assert Mnist.splits(tmp_path) == ["train", "test"]


@pytest.mark.part("format/mnist")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it begins nowhere"),
        (b"\x00\x00\x08", "it begins 000008"),
        (b"<html><head></head>", "expected idx3 of unsigned bytes .* it begins 3c68746d"),
        (idx(np.zeros((2, 3), np.uint8)), "expected idx3 of unsigned bytes"),
        (struct.pack(">HBBIII", 0, 0x0D, 3, 1, 1, 1) + bytes(4), "it begins 00000d03"),
        (idx(np.zeros((2, 5, 6), np.uint8))[:-1], "its header says 2x5x6, but 59 of 60 bytes came"),
        (idx(np.zeros((2, 5, 6), np.uint8)) + b"x", "its header says 2x5x6, but more came"),
        (gzip.compress(idx(np.zeros((2, 5, 6), np.uint8)), mtime=0)[:-9], "is cut off or damaged"),
        (b"\x1f\x8b" + bytes(30), "cannot be read"),
        (struct.pack(">HBBIII", 0, 8, 3, 1 << 31, 1 << 31, 1 << 31), "which is more than is read from 16 bytes"),
        (
            gzip.compress(idx(np.zeros((80, 1000, 1000), np.uint8)), mtime=0),
            "80x1000x1000, which is more than is read from",
        ),
        (struct.pack(">HBBIII", 0, 8, 3, 7, 0, 5), "0 of 0 bytes came"),
    ],
)
def test_a_damaged_file_is_one_sentence(data: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"{file.name}: .*{says}"):
        read_idx(file, 3)


def test_a_header_that_promises_too_much_is_not_believed(shared_data: Path) -> None:
    # These files say 1568 pictures (2 times 784) and hold 2.
    with pytest.raises(DataError, match="its header says 1568x28x28, but 1568 of 1229312 bytes came"):
        open_index(shared_data / "format_fixtures" / "mnist_dataset")


def test_as_many_labels_as_pictures(tmp_path: Path) -> None:
    folder = made(tmp_path, [1, 2, 3], zipped=False)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(2, np.uint8)))
    with pytest.raises(DataError, match=r"labels-idx1-ubyte: has 2 labels, train-images-idx3-ubyte has 3 pictures"):
        open_index(folder)


def test_grey_pictures_are_loaded_as_rgb(shared_data: Path, tmp_path: Path) -> None:
    index = open_index(shared_data / "fashion_mnist", "test").select(range(8))
    batch = next(iter(Loader(index, size=(28, 28), batch=8).epoch(0)))
    for channel in range(3):
        assert np.array_equal(batch.images[:, channel].numpy(), index.store.pixels[:8])
    with pytest.raises(DataError, match="convert to folder instead"):
        Mnist.write(index, tmp_path / "no", "train")

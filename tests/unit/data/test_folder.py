"""Class folders: the samples of torchvision, litter left out, other class orders and unknown folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from tests.unit.data.pictures import noise, save
from torso import testing
from torso.config import DataError
from torso.data import Index, open_index
from torso.data.formats.folder import Folder


def made(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        save(noise(8, 6, number), folder / name)
    return folder


def samples(index: Index) -> list[tuple[str, int]]:
    assert index.image_labels is not None
    return [(str(index.file(row)), int(index.image_labels[row])) for row in range(len(index))]


@pytest.mark.part("format/folder")
@pytest.mark.parametrize(("name", "split"), [("trashnet/train", "all"), ("omniglot_small1/Greek", "all")])
def test_samples_and_classes_are_those_of_torchvision(name: str, split: str, shared_data: Path) -> None:
    index = open_index(shared_data / name, split, format="folder")
    other = ImageFolder(str(shared_data / name))
    assert list(index.classes) == other.classes
    assert sorted(samples(index)) == sorted(other.samples)
    assert not index.problems


@pytest.mark.part("format/folder")
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_fixture_is_read_as_torchvision_does_and_its_stray_picture_named(split: str, shared_data: Path) -> None:
    folder = shared_data / "format_fixtures" / "imagenet_subsets_dataset"
    index = open_index(folder, split)
    other = ImageFolder(str(folder / split))
    assert sorted(samples(index)) == sorted(other.samples)
    (problem,) = index.problems
    assert (problem.kind, problem.path) == ("picture of no class", f"{split}/label_0_2.jpg")


def test_litter_is_no_class_and_no_picture(tmp_path: Path) -> None:
    made(tmp_path, "train/dog/1.png", "train/cat/1.png", "train/.ipynb_checkpoints/1.png", "train/__MACOSX/cat/1.png")
    made(
        tmp_path, "train/cat/.ipynb_checkpoints/1-checkpoint.png", "train/cat/._1.png", "val/dog/1.png", "val/cat/2.png"
    )
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"x")
        (tmp_path / "train" / name).write_bytes(b"x")
    index = open_index(tmp_path)
    assert index.classes == ("cat", "dog")
    assert index.paths == ["train/cat/1.png", "train/dog/1.png"]
    assert not index.problems


def test_what_is_no_picture_is_named_by_its_content(tmp_path: Path) -> None:
    made(tmp_path, *(f"train/cat/{number}.png" for number in range(9)), "train/dog/1.png")
    (tmp_path / "train/cat/9.jpg").write_bytes((tmp_path / "train/cat/1.png").read_bytes())  # only its suffix is wrong
    (tmp_path / "train/cat/page.jpg").write_text("<html><body>404</body></html>")
    (tmp_path / "train/cat/nothing.png").write_bytes(b"")
    (tmp_path / "train/cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "train/cat/folder.png").mkdir()
    index = open_index(tmp_path)
    assert "train/cat/9.jpg" in index.paths
    found = {problem.path: (problem.kind, problem.message) for problem in index.problems}
    assert set(found) == {f"train/cat/{name}" for name in ("page.jpg", "nothing.png", "gone.png")}
    assert found["train/cat/page.jpg"] == ("damaged image", "is not a picture (starts with '<html><body>404<')")
    assert found["train/cat/nothing.png"] == ("damaged image", "is empty (0 bytes)")
    assert found["train/cat/gone.png"] == ("missing image", "no such file")


@pytest.mark.part("format/folder")
def test_splits_that_lack_or_add_a_class_keep_the_labels_of_the_training_split(tmp_path: Path) -> None:
    made(tmp_path, "train/ape/1.png", "train/bee/1.png", "train/cat/1.png", "val/cat/1.png", "val/ape/1.png")
    train, val = open_index(tmp_path), open_index(tmp_path, "val")
    assert train.classes == val.classes == ("ape", "bee", "cat")
    # A model that knows the names is right about every picture of both.
    for index in (train, val, open_index(tmp_path, "val", classes=train.classes)):
        names = [Path(path).parent.name for path in index.paths]
        assert [train.classes[label] for label in index.image_labels] == names
        assert not index.problems
    made(tmp_path, "val/aardvark/1.png")
    with pytest.raises(DataError, match="val/aardvark: folder 'aardvark' is not one of the classes ape, bee, cat"):
        open_index(tmp_path, "val").raise_if_fatal()
    (tmp_path / "train" / "empty").mkdir()
    assert [problem.kind for problem in open_index(tmp_path).problems] == ["empty class"]


def test_equal_names_in_subfolders_stay_apart(tmp_path: Path) -> None:
    made(tmp_path, "train/cat/1.png", "train/cat/x/1.png", "train/dog/1.png")
    index = open_index(tmp_path)
    testing.check_dataset(index)
    Folder.write(index, tmp_path / "out", "train")
    again = open_index(tmp_path / "out" / "train", "all")
    assert np.bincount(again.image_labels).tolist() == [2, 1]
    before = sorted(index.file(row).read_bytes() for row in range(3))
    assert sorted(again.file(row).read_bytes() for row in range(3)) == before

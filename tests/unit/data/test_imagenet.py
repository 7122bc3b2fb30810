"""ImageNet's layouts: class folders, flat pictures with the kit's or Kaggle's truth, lists; torchvision agrees."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torchvision.datasets import ImageNet
from torchvision.datasets import imagenet as theirs

from tests.unit.data.pictures import noise, save
from tests.unit.data.test_fuzz_labels import mutated
from torso.config import DataError
from torso.data import Index, open_index
from torso.data.formats.imagenet import TRUTH, Imagenet, words
from torso.data.formats.matlab import read_table
from torso.data.formats.opening import recognise

# The kit counts in an order of its own; the third is a parent of others and no class.
SYNSETS = [
    (1, "n00000030", "fox, red fox", 0),
    (2, "n00000010", "tench", 0),
    (3, "n00000099", "animal", 2),
    (4, "n00000020", "owl", 0),
]
WNIDS = ["n00000010", "n00000020", "n00000030"]
TRUE = [1, 4, 2, 2]  # of four validation pictures


def train(folder: Path, *, top: str = "train") -> Path:
    for number, wnid in enumerate(WNIDS):
        for picture in range(2):
            save(noise(8, 6, 10 * number + picture), folder / top / wnid / f"{wnid}_{picture}.JPEG")
    return folder


def flat(folder: Path) -> Path:
    for number in range(4):
        save(noise(8, 6, 100 + number), folder / f"ILSVRC2012_val_{number + 1:08d}.JPEG")
    return folder


def kit(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(number, wnid, text, "", children) for number, wnid, text, children in SYNSETS]
    table = np.array(rows, dtype=kind).reshape(-1, 1)
    scipy.io.savemat(folder / "meta.mat", {"synsets": table})
    (folder / TRUTH).write_text("".join(f"{number}\n" for number in TRUE))
    return folder


def samples(index: Index) -> list[tuple[bytes, int]]:
    assert index.image_labels is not None
    return sorted((index.file(row).read_bytes(), int(index.image_labels[row])) for row in range(len(index)))


@pytest.mark.part("format/imagenet")
def test_the_official_files_are_read_as_torchvision_unpacks_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = train(tmp_path / "ours")
    flat(ours / "val")
    kit(ours / "ILSVRC2012_devkit_t12" / "data")
    # torchvision gets the same as archives and makes its own layout of them.
    root = train(tmp_path / "theirs")
    kit(tmp_path / "kit" / "ILSVRC2012_devkit_t12" / "data")
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "kit" / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as archive:
        for file in sorted((ours / "val").iterdir()):
            archive.add(file, file.name)
    monkeypatch.setattr(theirs, "_verify_archive", lambda root, file, md5: None)
    monkeypatch.setattr(torch, "load", lambda file, **_: _loaded(file))
    assert recognise(ours) == "imagenet"
    for split in ("train", "val"):
        index, other = open_index(ours, split), ImageNet(str(root), split)
        assert list(index.classes) == other.wnids == WNIDS
        assert samples(index) == sorted((Path(path).read_bytes(), label) for path, label in other.samples)
        assert not index.problems
        assert {wnid: ", ".join(names) for wnid, names in zip(other.wnids, other.classes, strict=True)} == words(ours)


_LOAD = torch.load


def _loaded(file: str) -> object:
    return _LOAD(file, weights_only=True)


def test_a_table_of_many_rows_without_fields_takes_no_memory() -> None:
    def element(kind: int, body: bytes) -> bytes:
        return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)

    parts = [(6, struct.pack("<II", 2, 0)), (5, struct.pack("<ii", 1 << 30, 1)), (1, b"synsets")]
    parts += [(5, struct.pack("<i", 8)), (1, b"")]
    matrix = element(14, b"".join(element(*part) for part in parts))
    with pytest.raises(DataError, match="fields without names"):
        read_table(bytes(124) + b"\x00\x01IM" + matrix, "synsets")


@pytest.mark.parametrize("packed", [False, True])
def test_the_kits_table_is_read_as_scipy_reads_it(packed: bool, tmp_path: Path) -> None:
    file = kit(tmp_path) / "meta.mat"
    kind = [(name, "O") for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "height")]
    rows = [(1.0, "n00000030", "fóx", "a", 0, np.zeros((0, 0)), 2.5)]
    rows += [(np.uint16(700), "n2", "w", "x" * 99, 3, np.arange(3.0), -1)]
    table = np.array(rows, dtype=kind).reshape(-1, 1)
    other = {"first": np.arange(9.0), "synsets": table, "last": "text"}
    scipy.io.savemat(file, other, do_compression=packed)
    theirs = scipy.io.loadmat(file, squeeze_me=True)["synsets"]
    ours = read_table(file.read_bytes(), "synsets")
    assert len(ours) == len(theirs) == 2
    for mine, row in zip(ours, theirs, strict=True):
        assert list(mine) == list(row.dtype.names)
        for name in ("ILSVRC2012_ID", "num_children", "height", "WNID", "words", "gloss"):
            assert mine[name] == row[name]
        assert mine["children"] is None
    with pytest.raises(DataError, match="holds no table 'other'"):
        read_table(file.read_bytes(), "other")


def test_a_damaged_table_never_ends_the_process(tmp_path: Path) -> None:
    """scipy's own reader dies of a signal on some of these."""
    file = kit(tmp_path) / "meta.mat"
    good = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(500):
        data = bytearray(mutated(good, rng) if number % 2 else good)
        for at in rng.integers(128, len(good), 3):
            if at < len(data):
                data[at] = int(rng.integers(0, 256))
        try:
            read_table(bytes(data), "synsets")
        except DataError:
            refused += 1
    assert refused > 100


def test_the_kit_may_say_what_its_numbers_mean_in_text(tmp_path: Path) -> None:
    folder = train(tmp_path)
    flat(folder / "val")
    data = kit(folder / "ILSVRC" / "devkit" / "data")
    expected = samples(open_index(folder, "val"))
    (data / "meta.mat").unlink()
    with pytest.raises(DataError, match=r"expected meta\.mat or map_clsloc\.txt beside"):
        open_index(folder, "val")
    (data / "map_clsloc.txt").write_text("n00000030 1 red_fox\nn00000010 2 tench\nn00000020 4 owl\n")
    assert samples(open_index(folder, "val")) == expected
    assert words(folder)["n00000030"] == "red fox"
    (data / TRUTH).write_text("1\n4\n3\n2\n")
    with pytest.raises(DataError, match=rf"{TRUTH}:3: expected a number of a class in 1\.\.3, came '3'"):
        open_index(folder, "val")
    (data / TRUTH).write_text("1\n4\n2\n")
    found = open_index(folder, "val")
    assert len(found) == 3
    assert [problem.path for problem in found.problems] == ["val/ILSVRC2012_val_00000004.JPEG"]
    (data / "map_clsloc.txt").unlink()
    (data / "meta.mat").write_bytes(b"not a matlab file")
    with pytest.raises(DataError, match=r"meta\.mat: is not the meta\.mat of the development kit"):
        open_index(folder, "val")


@pytest.mark.part("format/imagenet")
def test_kaggles_layout_is_read(tmp_path: Path) -> None:
    top = "ILSVRC/Data/CLS-LOC"
    folder = train(tmp_path, top=f"{top}/train")
    flat(folder / top / "val")
    (folder / "LOC_synset_mapping.txt").write_text("n00000010 tench\nn00000020 owl\nn00000030 fox, red fox\n")
    lines = [f"ILSVRC2012_val_{n + 1:08d},{SYNSETS[true - 1][1]} 85 1 499 272 " for n, true in enumerate(TRUE)]
    (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(reversed(lines)) + "\n")
    assert recognise(folder) == "imagenet"
    index = open_index(folder, "val")
    assert list(index.classes) == WNIDS
    assert index.image_labels.tolist() == [2, 1, 0, 0]
    assert words(folder)["n00000030"] == "fox, red fox"
    assert len(open_index(folder)) == 6


def test_validation_alone_keeps_all_classes(tmp_path: Path) -> None:
    save(noise(8, 6), tmp_path / "val" / "n00000020" / "x.JPEG")
    (tmp_path / "synset_words.txt").write_text("n00000010 tench\nn00000020 owl\nn00000030 fox\n")
    index = open_index(tmp_path, "val")
    assert (list(index.classes), index.image_labels.tolist()) == (WNIDS, [1])


@pytest.mark.part("format/imagenet")
def test_lists_of_names_and_numbers_are_read(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "format_fixtures" / "imagenet_txt_dataset" / "basic"
    assert recognise(folder) == "imagenet"
    with pytest.raises(DataError, match=r"2 of 4 listed pictures are missing(.|\n)*images/3\.jpg(.|\n)*images/4\.jpg"):
        open_index(folder)  # the fixture lists two that it does not have
    for name in ("synsets.txt", "images/1.jpg", "images/2.jpg"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "own" / "train.txt").write_text("1.jpg 0\n2.jpg 5\n3.jpg 3\n")
    index = open_index(tmp_path / "own")
    assert (index.paths, index.image_labels.tolist()) == (["images/1.jpg", "images/2.jpg"], [0, 5])
    assert index.classes == tuple(f"label_{number}" for number in range(10))
    assert [(problem.kind, Path(problem.path).name) for problem in index.problems] == [("missing image", "3.jpg")]
    train(tmp_path)
    (tmp_path / "synsets.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    rows = "n00000010/n00000010_0.JPEG 0\nn00000020/n00000020_0.JPEG x\nn00000020/n00000020_0.JPEG 3\n../../x.JPEG 1\n"
    (tmp_path / "train.txt").write_text(rows)
    index = open_index(tmp_path)
    assert index.paths == ["train/n00000010/n00000010_0.JPEG"]
    assert [(problem.kind, problem.line) for problem in index.problems] == [
        ("malformed row", 2), ("class out of range", 3), ("malformed row", 4),
    ]  # fmt: skip


def test_pictures_without_any_truth_say_what_is_missing(tmp_path: Path) -> None:
    folder = train(tmp_path)
    flat(folder / "val")
    with pytest.raises(DataError, match=rf"pictures without class folders; expected LOC_val_solution\.csv, {TRUTH}"):
        open_index(folder, "val")
    with pytest.raises(DataError, match="no split 'extra'; it has train, val"):
        open_index(folder, "extra")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    index = open_index(train(tmp_path / "source"))
    rows = [row for row in range(len(index)) if index.image_labels[row] != 1]
    Imagenet.write(index, tmp_path / "out", "train")
    Imagenet.write(index.select(rows), tmp_path / "out", "val")
    again = open_index(tmp_path / "out", "val")
    assert (again.classes, again.image_labels.tolist()) == (index.classes, [0, 0, 2, 2])


def test_datumaros_folder_without_splits_is_class_folders(shared_data: Path) -> None:
    index = open_index(shared_data / "format_fixtures" / "imagenet_dataset", "all")
    assert recognise(shared_data / "format_fixtures" / "imagenet_dataset") == "folder"
    assert index.classes == ("label_0", "label_1")
    assert index.image_labels.tolist() == [0, 1, 1]

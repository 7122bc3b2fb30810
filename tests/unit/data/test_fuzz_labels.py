"""Five hundred damaged files of each format: one sentence or a named problem, and nothing else, in one process."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.pictures import noise, save
from torso import testing
from torso.config import DataError
from torso.data import open_index

COUNT = 500
NASTY = (
    b"nan", b"inf", b"-1", b"1e999", b"1e-300", b"99999999999999999999999", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf",
    b'"', b"'", b",", b";", b"\t", b"\n", b"\r", b"{", b"[", b"[" * 500, b": ", b"- ", b"&a ", b"*a",
    b"!!python/object ",
    b"../", b"/etc", b"\xe2\x80\xa8", b"_", b"0x10", b"%", b"|", b"\x80", b"R", b"b", b"(", b".", b"q\xff",
    b"\xff\xff\xff\x7f",
)  # fmt: skip


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, cut, doubled, or replaced by what parsers stumble over."""
    for _ in range(int(rng.integers(1, 5))):
        at, kind = int(rng.integers(0, len(data) + 1)), int(rng.integers(0, 6))
        end = min(at + int(rng.integers(1, 12)), len(data))
        if kind == 0:
            data = data[:at] + bytes(rng.integers(0, 256, end - at, dtype=np.uint8)) + data[end:]
        elif kind == 1:
            data = data[:at] + data[end:]
        elif kind == 2:
            data = data[:at] + data[at:end] * int(rng.integers(2, 5)) + data[end:]
        elif kind == 3 and rng.random() < 0.3:
            data = data[:at]
        else:
            data = data[:at] + NASTY[int(rng.integers(0, len(NASTY)))] + data[end if kind == 4 else at :]
    return data


def yolo(folder: Path) -> list[Path]:
    save(noise(40, 30), folder / "images" / "train" / "a.png")
    save(noise(40, 30), folder / "images" / "train" / "b.png")
    labels = folder / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "b.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    (labels / "a.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.1 0.1\n1 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n")
    (folder / "list.txt").write_text("images/train/a.png\nimages/train/b.png\n")
    yaml = "path: .\ntrain: images/train\nval: [list.txt, images/train]\nnc: 2\nnames:\n  0: cat\n  1: 'dog'\n"
    (folder / "data.yaml").write_text(yaml)
    return [labels / "a.txt", folder / "data.yaml", folder / "list.txt"]


def csv(folder: Path) -> list[Path]:
    for name in "ab":
        save(noise(40, 30), folder / "images" / f"{name}.png")
    boxes = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,30,cat,1,2,20,28\nb.png,40,30,dog,3,4,30,29\n"
    (folder / "train.csv").write_text(boxes + "b.png,40,30,cat,1,1,9.5,9\n")
    (folder / "val.csv").write_text("path;label\nimages/a.png;cat\nimages/b.png;dog\n")
    return [folder / "train.csv", folder / "val.csv"]


def cifar(folder: Path) -> list[Path]:
    data = np.random.default_rng(0).integers(0, 256, (4, 48), dtype=np.uint8)
    content = {b"data": data, b"labels": [0, 1, 1, 0], b"filenames": [b"a.png", b"b.png", b"c.png", b"d.png"]}
    for name in ("data_batch_1", "test_batch"):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog"]}, protocol=2))
    return [folder / "data_batch_1", folder / "batches.meta"]


def mnist(folder: Path) -> list[Path]:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7), dtype=np.uint8)
    labels = struct.pack(">HBBI", 0, 8, 1, 5) + bytes([1, 2, 3, 4, 5])
    images = struct.pack(">HBBIII", 0, 8, 3, 5, 6, 7) + pixels.tobytes()
    for split, packed in (("train", gzip.compress), ("t10k", bytes)):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(packed(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(packed(labels))
    return sorted(folder.glob("*ubyte"))


def imagenet(folder: Path) -> list[Path]:
    for number in (1, 2):
        save(noise(40, 30), folder / "val" / f"ILSVRC2012_val_{number:08d}.png")
    (folder / "synset_words.txt").write_text("n00000010 tench\nn00000020 owl, night owl\n")
    (folder / "train.txt").write_text("val/ILSVRC2012_val_00000001.png 0\nval/ILSVRC2012_val_00000002.png 1\n")
    kit = folder / "devkit" / "data"
    kit.mkdir(parents=True)
    (kit / "map_clsloc.txt").write_text("n00000020 1 owl\nn00000010 2 tench\n")
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n")
    return [folder / "train.txt", folder / "synset_words.txt", *sorted(kit.iterdir())]


def unlabeled(folder: Path) -> list[Path]:
    rows = []
    for number in (1, 2):
        save(noise(40, 30), folder / "images" / f"{number}.png")
        rows.append({"id": number, "file_name": f"{number}.png", "width": 40, "height": 30})
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        file = folder / "annotations" / f"image_info_{split}.json"
        file.write_text(json.dumps({"images": rows, "categories": []}))
    return sorted((folder / "annotations").iterdir())


@pytest.mark.part("format/yolo", "format/csv", "format/cifar", "format/mnist", "format/imagenet", "format/unlabeled")
@pytest.mark.parametrize("make", [yolo, csv, cifar, mnist, imagenet, unlabeled], ids=lambda make: make.__name__)
def test_damaged_files_end_in_one_sentence_or_a_named_problem(
    make: Callable[[Path], list[Path]], tmp_path: Path
) -> None:
    files = make(tmp_path)
    good = {file: file.read_bytes() for file in files}
    rng = np.random.default_rng(0)
    came: Counter[str] = Counter()
    for number in range(COUNT):
        file = files[number % len(files)]
        file.write_bytes(mutated(good[file], rng))
        for split in ("train", "val"):
            try:
                index = open_index(tmp_path, split, format=make.__name__)
            except DataError as error:
                came["sentence" if str(tmp_path) in str(error) else "no file named"] += 1
            else:
                came["problems" if index.problems else "read"] += 1
                testing.check_dataset(index)
        file.write_bytes(good[file])
    assert "no file named" not in came
    assert sum(came.values()) == 2 * COUNT
    assert came["sentence"] + came["problems"] > COUNT / 4, came  # the damage was seen

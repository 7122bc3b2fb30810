"""Tars of samples: what the webdataset package writes and reads, every label, every column, and nothing unsafe."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.data.pictures import encoded, noise
from tests.unit.data.test_tars import archive, entry
from torso import testing
from torso.config import DataError
from torso.data import digits, open_index
from torso.data.builder import Builder, Object
from torso.data.formats.shards import Shards
from torso.data.index import Index
from torso.data.loader import Loader

JPEG, PNG = encoded(noise(20, 15), "JPEG"), encoded(noise(20, 15), "PNG")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def tar(path: Path, **members: bytes | str | list | dict) -> Path:
    """A tar of these members; ``a__jpg`` is a.jpg, and what is no text or bytes becomes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, content in members.items():
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        entries.append(entry(name.replace("__", "."), text.encode() if isinstance(text, str) else text))
    return archive(path, entries)


def full(folder: Path) -> Index:
    """An index with everything a tar can hold."""
    builder = Builder(folder, ("a", "b"), (3, 90), keypoint_names=("nose", "tail"), skeleton=((0, 1),))
    for number in range(3):
        path = folder / f"{number} x.png"
        path.write_bytes(PNG)
        builder.image(path, (20, 15), 100 + number, captions=[f"one {number}", "two"][: number + 1])
        rows = [
            Object((1 / 3, 2, 9.7, 8), 1, crowd=True, mask={"size": [15, 20], "counts": [40, 60, 200]}, area=60),
            Object((4, 2, 7, 8), 0, difficult=True, occluded=True, pose="Left", keypoints=[5, 3, 2, 0, 0, 0]),
            Object((0, 0, 20, 15), 0, truncated=True, mask=[[1.5, 2, 3, 4, 5, 2]], area=7.25),
        ]
        builder.objects(rows[:number], path)
    return builder.finish()


def assert_same(one: Index, two: Index) -> None:
    for name in (
        "task",
        "classes",
        "class_ids",
        "image_ids",
        "masks",
        "poses",
        "keypoint_names",
        "skeleton",
        "captions",
    ):
        assert getattr(one, name) == getattr(two, name), name
    for name in ("sizes", "boxes", "labels", "offsets", "crowd", "difficult", "truncated", "occluded", "area"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    for name in ("keypoints", "image_labels"):
        first, second = getattr(one, name), getattr(two, name)
        assert (first is None) == (second is None)
        assert first is None or np.array_equal(first, second), name


def content(index: Index, row: int) -> bytes:
    picture = index.picture(row)
    assert not isinstance(picture, np.ndarray)
    return picture.read_bytes() if isinstance(picture, Path) else picture


@pytest.mark.part("format/shards")
def test_everything_comes_back_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    index = full(tmp_path / "source")
    Shards.write(index, tmp_path / "out", "train", per_shard=2)
    back = Shards.read(tmp_path / "out", "train")
    assert not back.problems
    assert_same(index, back)
    assert [content(back, row) for row in range(3)] == [content(index, row) for row in range(3)]
    assert back.paths == ["train-000000.tar/0_x.png", "train-000000.tar/1_x.png", "train-000001.tar/2_x.png"]
    testing.check_dataset(back)
    again = tmp_path / "again"
    Shards.write(back, again, "train", per_shard=2)
    assert_same(back, Shards.read(again, "train"))


@pytest.mark.part("format/shards")
def test_the_same_index_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    index = full(tmp_path / "source")
    for name in ("one", "two"):
        Shards.write(index, tmp_path / name, "train", per_shard=2)
    files = [sorted(path for path in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert [path.name for path in files[0]] == ["classes.json", "train-000000.tar", "train-000001.tar"]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def theirs(names: list[str], decode: bool = False) -> list[dict[str, Any]]:
    """The samples as webdataset reads them; it leaves closing its files to the garbage collector."""
    webdataset = pytest.importorskip("webdataset", reason="needs webdataset: pip install torso[shards]")
    found = webdataset.WebDataset(names, shardshuffle=False)
    samples = list(found.decode() if decode else found)
    del found
    gc.collect()
    return samples


unclosed = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@unclosed
@pytest.mark.part("format/shards")
def test_webdataset_and_tarfile_read_what_we_write(tmp_path: Path) -> None:
    """Boxes, classes and pictures through the other library's own decoders."""
    digits.make(tmp_path / "coco", format="coco", count=15, size=64)
    index = open_index(tmp_path / "coco", "train")
    Shards.write(index, tmp_path / "out", "train", per_shard=5)
    names = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    assert len(names) == 3
    samples = theirs(names, decode=True)
    assert len(samples) == len(index)
    for row, sample in enumerate(samples):
        assert sample["json"]["boxes"] == index.boxes[index.objects(row)].tolist()
        assert [index.class_ids.index(i) for i in sample["json"]["labels"]] == index.labels[index.objects(row)].tolist()
    raw = theirs(names)
    assert [sample["jpg"] for sample in raw] == [content(index, row) for row in range(len(index))]
    with tarfile.open(names[0]) as opened:
        assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in opened} == {(0, 0, 0, "", 0o644)}
        assert len(opened.getnames()) == 10


@unclosed
@pytest.mark.part("format/shards")
def test_we_read_what_webdataset_writes(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="needs webdataset: pip install torso[shards]")
    with webdataset.ShardWriter(str(tmp_path / "train-%06d.tar"), maxcount=4, verbose=0) as sink:
        for number in range(10):
            sink.write({"__key__": f"part/{number:04d}", "jpg": JPEG, "cls": number % 3, "txt": f"number {number}"})
    index = Shards.read(tmp_path, "train")
    assert not index.problems
    assert index.task == "classify"
    assert index.image_labels is not None
    assert index.image_labels.tolist() == [number % 3 for number in range(10)]
    assert index.classes == ("0", "1", "2")
    assert index.captions == [[f"number {number}"] for number in range(10)]
    assert index.image_ids == [f"part/{number:04d}" for number in range(10)]
    assert all(content(index, row) == JPEG for row in range(10))
    keys = [sample["__key__"] for sample in theirs(sorted(map(str, tmp_path.glob("*.tar"))))]
    assert keys == index.image_ids


@pytest.mark.part("format/shards")
def test_cocos_annotations_in_a_sample(tmp_path: Path) -> None:
    rows = [{"bbox": [1, 2, 3, 4], "category_id": 90, "iscrowd": 1}, {"bbox": [0, 0, 20, 15], "category_id": 7}]
    tar(tmp_path / "train-0.tar", a__jpg=JPEG, a__json=rows, b__jpg=JPEG, b__json={"annotations": rows, "image_id": 5})
    index = Shards.read(tmp_path, "train")
    assert index.classes == ("7", "90")
    assert index.class_ids == (7, 90)
    assert index.labels.tolist() == [1, 0, 1, 0]
    assert index.boxes[:2].tolist() == [[1, 2, 4, 6], [0, 0, 20, 15]]
    assert index.crowd.tolist() == [True, False] * 2
    assert index.image_ids == ["a", 5]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.json", json.dumps([{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}])),
        ("classes.json", json.dumps({"categories": [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}]})),
        ("classes.txt", "bird\n" * 0 + "\n".join(["cat"] + [f"c{i}" for i in range(89)] + ["dog", ""])),
    ],
)
def test_classes_beside_the_tars_give_names(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    first = 7 if name == "classes.json" else 0
    tar(tmp_path / "train-0.tar", a__jpg=JPEG, a__cls=f"{first}\n", b__jpg=JPEG, b__cls="dog", c__jpg=JPEG, c__cls="90")
    index = Shards.read(tmp_path, "train")
    assert index.image_labels is not None
    assert [index.classes[label] for label in index.image_labels] == ["cat", "dog", "dog"]


def test_classes_follow_the_training_split_by_name(tmp_path: Path) -> None:
    tar(tmp_path / "train-0.tar", a__jpg=JPEG, a__cls="dog", b__jpg=JPEG, b__cls="cat")
    tar(tmp_path / "val-0.tar", a__jpg=JPEG, a__cls="dog", b__jpg=JPEG, b__cls="fox")
    train = Shards.read(tmp_path, "train")
    assert train.classes == ("cat", "dog")
    val = Shards.read(tmp_path, "val", train.classes)
    assert val.image_labels is not None
    assert val.image_labels.tolist() == [1]
    (problem,) = val.problems
    assert (problem.kind, problem.path, problem.fatal) == ("unknown class", "val-0.tar/b.cls", True)
    both = open_index(tmp_path, "train+val", classes=("cat", "dog", "fox"))
    assert len(both) == 4
    assert all(content(both, row) == JPEG for row in range(4))


def one_problem(index: Index) -> Any:
    (problem,) = index.problems
    return problem


@pytest.mark.parametrize("kind", ["pickle", "pyd", "pkl", "pth", "pt", "mask.pickle"])
def test_members_that_could_run_code_are_errors(tmp_path: Path, kind: str) -> None:
    """Named with shard and member, and the run does not start; the other members are read."""
    name = f"a__{kind}".replace(".", "__")
    tar(tmp_path / "train-0.tar", **{"a__jpg": JPEG, "a__cls": "0", name: b"cos\nsystem\n(S'touch marker'\ntR."})
    index = Shards.read(tmp_path, "train")
    problem = one_problem(index)
    assert problem.path == f"train-0.tar/a.{kind}"
    assert "could run code" in problem.message
    with pytest.raises(DataError, match=rf"train-0\.tar/a\.{kind}: could run code"):
        index.raise_if_fatal()
    assert len(index) == 1


def test_arrays_of_python_objects_are_errors_and_arrays_of_numbers_are_left_alone(tmp_path: Path) -> None:
    buffers = {}
    for name, array in (("bad", np.array([{}], dtype=object)), ("good", np.arange(3))):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        buffers[name] = buffer.getvalue()
    tar(tmp_path / "train-0.tar", a__jpg=JPEG, a__npy=buffers["bad"], b__jpg=JPEG, b__npy=buffers["good"])
    for _ in range(2):  # the second time from the cache
        index = Shards.read(tmp_path, "train")
        said = {(problem.kind, problem.path, problem.fatal) for problem in index.problems}
        assert said == {("unsafe member", "train-0.tar/a.npy", True), ("unused member", "train-0.tar", False)}


def test_links_are_problems_and_training_does_not_start(tmp_path: Path) -> None:
    archive(
        tmp_path / "train-0.tar",
        [entry("a.jpg", JPEG), entry("b.jpg", kind=tarfile.SYMTYPE, link="/etc/passwd"), entry("../c.jpg", JPEG)],
    )
    index = Shards.read(tmp_path, "train")
    assert [problem.kind for problem in index.problems] == ["unsafe member"] * 2
    with pytest.raises(DataError, match="symbolic link"):
        index.raise_if_fatal()


@pytest.mark.parametrize(
    ("members", "kind", "says"),
    [
        ({"a__json": "{"}, "malformed file", "is not JSON"),
        ({"a__json": "3"}, "malformed file", "expected an object or a list, came 3"),
        ({"a__json": "[" * 99999}, "malformed file", "nested too deeply"),
        ({"a__json": {"boxes": 3}}, "malformed file", "boxes: expected a list, came 3"),
        ({"a__json": {"boxes": [[1, 2, 3, 4]], "labels": []}}, "malformed file", "labels: expected one for each of 1"),
        ({"a__json": {"boxes": [[1, 2, 3]], "labels": [0]}}, "malformed row", "boxes[0]: expected a box of four"),
        ({"a__json": {"boxes": [[1, 2, 3, "x"]], "labels": [0]}}, "malformed row", "boxes[0]: expected a box"),
        ({"a__json": {"boxes": [[1, 2, 3, 4]], "labels": [None]}}, "malformed row", "expected a class"),
        ({"a__json": {"boxes": [[1, 2, 3, 4]], "labels": [9]}}, "unknown class", "9 is not one of the classes dog"),
        ({"a__json": {"boxes": [[1, 2, 3, 4]], "labels": ["ox"]}}, "unknown class", "'ox' is not one of"),
        ({"a__json": {"boxes": [[1, 2, 3, 4]], "labels": [0], "crowd": ["?"]}}, "malformed row", "crowd: expected"),
        ({"a__json": {"boxes": [[1, 2, 1, 4]], "labels": [0]}}, "degenerate box", "has no area"),
        ({"a__json": {"boxes": [[1, 2, 99, 4]], "labels": [0]}}, "box mostly outside", "was clipped"),
        ({"a__json": '{"boxes": [[1, 2, NaN, 4]], "labels": [0]}'}, "not a number", "expected finite"),
        ({"a__json": [3]}, "malformed row", "annotations[0]: expected an object"),
        ({"a__json": [{"bbox": [1, 2, 3, 4], "category_id": True}]}, "malformed row", "expected a class"),
        ({"a__cls": "\xff".encode("latin-1")}, "malformed file", "is not UTF-8"),
        ({"a__cls": "1\n2"}, "malformed file", "expected a class"),
        ({"a__cls": ""}, "malformed file", "expected a class"),
        ({"a__cls": "-1"}, "unknown class", "-1 is not one of"),
        ({"a__cls": "9" * 400}, "unknown class", "is not one of the classes"),
        ({"a__txt": b"\xff\xfe"}, "malformed caption", "is not UTF-8"),
        ({"a__xmp": b"?"}, "unused member", "1 members of the kind 'xmp' are not read, the first is a.xmp"),
    ],
)  # fmt: skip
def test_a_wrong_label_is_named(tmp_path: Path, members: dict[str, Any], kind: str, says: str) -> None:
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    good = {"boxes": [[1, 2, 3, 4]], "labels": [1]} if "a__json" in members else {}
    more: dict[str, Any] = {"z__jpg": JPEG, "y__jpg": JPEG}
    if good:
        more |= {"z__json": good, "y__json": good}
    elif "a__cls" in members:
        more |= {"z__cls": "1", "y__cls": "cat"}
    tar(tmp_path / "train-0.tar", **more, a__jpg=JPEG, **members)
    index = Shards.read(tmp_path, "train")
    problem = one_problem(index)
    assert problem.kind == kind
    assert problem.path.startswith("train-0.tar")
    assert says in problem.message
    assert len(index) >= 2


def test_samples_that_are_not_whole_are_named(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "train-0.tar",
        [
            entry("a.jpg", JPEG), entry("a.cls", b"0"), entry("a.cls", b"1"), entry("b.cls", b"0"),
            entry("c.jpg", JPEG), entry("d.jpg", JPEG), entry("d.png", PNG), entry("d.cls", b"1"),
            entry("e.jpg", b"<html>"), entry("e.cls", b"1"), entry("._f.jpg", JPEG), entry("g.PNG", PNG),
            entry("g.cls", b"1"),
        ],
    )  # fmt: skip
    index = Shards.read(path, "train")
    said = Counter(problem.kind for problem in index.problems)
    assert said == {
        "duplicate member": 1, "sample without picture": 1, "malformed row": 1, "several pictures": 1,
        "damaged image": 1,
    }  # fmt: skip
    assert [path.rpartition("/")[2] for path in index.paths] == ["a.jpg", "d.jpg", "g.PNG"]


def test_a_picture_in_a_tar_is_probed_upright(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    turned = [encoded(noise(700, 300), kind, exif=exif) for kind in ("JPEG", "PNG", "TIFF")]
    assert len(turned[1]) > 1 << 18
    tar(tmp_path / "train-0.tar", a__jpg=turned[0], b__png=turned[1], c__webp=encoded(noise(70, 30), "WEBP"))
    index = Shards.read(tmp_path, "train")
    assert index.task == "unlabeled"
    assert index.sizes.tolist() == [[300, 700], [300, 700], [70, 30]]
    shapes = [batch.source_size.tolist() for batch in Loader(index, size=(64, 64), batch=3).epoch(0)]
    assert shapes == [[[300, 700], [300, 700], [70, 30]]]


def test_equal_keys_and_equal_ids_are_told_apart_or_named(tmp_path: Path) -> None:
    tar(tmp_path / "train-0.tar", a__jpg=JPEG)
    tar(tmp_path / "train-1.tar", a__jpg=JPEG)
    assert Shards.read(tmp_path, "train").image_ids == ["train-0.tar/a.jpg", "train-1.tar/a.jpg"]
    for number in (0, 1):
        tar(
            tmp_path / f"train-{number}.tar",
            a__jpg=JPEG,
            a__json={"boxes": [[1, 2, 3, 4]], "labels": [0], "image_id": 7},
        )
    index = Shards.read(tmp_path, "train")
    assert one_problem(index).kind == "duplicate image id"
    assert index.image_ids == [7]

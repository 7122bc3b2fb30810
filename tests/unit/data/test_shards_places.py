"""Which tars are which split, what is remembered of them, and training from them on one machine and on two."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.pictures import noise, save, small_index
from tests.unit.data.test_loader import same
from tests.unit.data.test_shards import JPEG, cache, content, tar
from torso.config import DataError
from torso.data import open_index
from torso.data.formats import shard_samples
from torso.data.formats.opening import recognise
from torso.data.formats.shard_names import expanded, shards
from torso.data.formats.shards import Shards
from torso.data.index import Index
from torso.data.loader import Loader
from torso.data.samplers import Distributed, RepeatFactor
from torso.data.stores import Arrays

__all__ = ["cache"]  # the fixture: a cache for each test

BOX = {"boxes": [[1, 2, 9, 8]], "labels": [0]}


def many(folder: Path, count: int = 23) -> tuple[Index, Index]:
    """An index of files, and the same pictures in shards of five."""
    index = small_index(folder / "files", count)
    Shards.write(index, folder / "shards", "train", per_shard=5)
    return index, Shards.read(folder / "shards", "train")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("a-{8..10}.tar", ["a-8.tar", "a-9.tar", "a-10.tar"]),
        ("{train,val}-{0..1}.tar", ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]),
        ("a.tar", ["a.tar"]),
        ("a-{b}.tar", ["a-{b}.tar"]),
    ],
)
def test_braces_stand_for_several_names(pattern: str, expected: list[str]) -> None:
    assert expanded(pattern) == expected


@pytest.mark.parametrize(
    "pattern", ["a-{5..3}.tar", "a-{0..9999999}.tar", "{0..9999}{0..9999}.tar", f"{{0..{9**20}}}.tar"]
)
def test_braces_that_make_no_sense_are_refused(pattern: str) -> None:
    with pytest.raises(DataError, match=r"expected \{first\.\.last\}|more than 1000000 files"):
        expanded(pattern)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-000000.tar", "train-000001.tar", "val-000000.tar"], ["train", "val"]),
        (["imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"], ["train", "val"]),
        (["train/00000.tar", "train/00001.tar", "val/00000.tar", "test/0.tar"], ["test", "train", "val"]),
        (["00000.tar", "00001.tar"], ["train", "val", "all"]),
        (["cc3m_001.tar", "cc3m_002.tar"], ["train", "val", "all"]),
        (["day-1.tar", "night-1.tar"], ["day", "night"]),
        (["train-0.tar", ".hidden-0.tar", "._train-0.tar"], ["train"]),
    ],
)
def test_splits_are_told_by_names(tmp_path: Path, names: list[str], splits: list[str]) -> None:
    for name in names:
        tar(tmp_path / name, **{f"{name.replace('/', '_').replace('.', '_')}{n}__jpg": JPEG for n in range(5)})
    assert Shards.splits(tmp_path) == splits
    assert recognise(tmp_path) == "shards"
    counts = {split: len(Shards.read(tmp_path, split)) for split in splits}
    assert sum(counts[split] for split in splits if split != "all") == 5 * sum(
        not name.startswith(".") for name in names
    )
    with pytest.raises(DataError, match="no split 'nothing'"):
        Shards.read(tmp_path, "nothing")


def test_a_path_may_be_one_tar_or_a_name_with_braces(tmp_path: Path) -> None:
    _, whole = many(tmp_path)
    pattern = tmp_path / "shards" / "train-{000001..000003}.tar"
    some = open_index(pattern, "train")
    assert some.paths == whole.paths[5:20]
    assert some.classes == whole.classes
    one = open_index(tmp_path / "shards" / "train-000004.tar", "train")
    assert one.paths == whole.paths[20:]
    with pytest.raises(DataError, match=r"train-000005\.tar: cannot be read"):
        open_index(tmp_path / "shards" / "train-{000004..000009}.tar", "train")
    assert recognise(tmp_path / "files") == "unlabeled"


def test_what_is_no_data_set_of_tars_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected tars"):
        Shards.read(tmp_path, "train")
    (tmp_path / "train-0.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(DataError, match=r"train-0\.tar: is compressed \(gzip\)"):
        Shards.read(tmp_path, "train")
    (tmp_path / "train-0.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="no header at byte 0"):
        Shards.read(tmp_path, "train")


def test_tars_are_written_only_where_none_are_mixed_up(tmp_path: Path) -> None:
    index, written = many(tmp_path)
    with pytest.raises(DataError, match="there are shards of 'train' already"):
        Shards.write(index, tmp_path / "shards", "train")
    with pytest.raises(DataError, match="this is where the data come from"):
        Shards.write(written, tmp_path / "shards", "val")
    with pytest.raises(DataError, match="voc_segmentation or mask_folder"):
        Shards.write(replace(index, segments=["a.png"] * len(index)), tmp_path / "other", "train")
    with pytest.raises(DataError, match="per_shard: expected at least 1"):
        Shards.write(index, tmp_path / "other", "train", per_shard=0)


def test_pixels_become_png_and_names_become_plain_keys(tmp_path: Path) -> None:
    for name in ("a b.jpg", "a_b.png", "Ä.PNG", "x.y.webp"):
        save(noise(8, 6), tmp_path / "files" / name)
    index = open_index(tmp_path / "files", "all")
    Shards.write(index, tmp_path / "out", "train")
    back = Shards.read(tmp_path / "out", "train")
    assert sorted(path.rpartition("/")[2] for path in back.paths) == ["a_b.jpg", "a_b_1.png", "picture.png", "x_y.webp"]
    assert back.image_ids == index.image_ids
    pixels = np.stack([noise(8, 6, seed) for seed in range(4)])
    stored = replace(index, store=Arrays(pixels), places=np.arange(4)[:, None], fingerprint="")
    Shards.write(stored, tmp_path / "pixels", "train")
    again = Shards.read(tmp_path / "pixels", "train")
    loaded = [batch.images.permute(0, 2, 3, 1).numpy() for batch in Loader(again, size=(8, 6), batch=4).epoch(0)]
    assert np.array_equal(loaded[0], pixels)


def test_headers_are_read_once_and_again_when_a_tar_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 19: a tar of the same size, its time put back, is read anew; nothing is written beside it (row 20)."""
    _, first = many(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    probed: list[int] = []
    real = shard_samples.probed
    monkeypatch.setattr(shard_samples, "probed", lambda *given: probed.append(1) or real(*given))
    again = Shards.read(tmp_path / "shards", "train")
    assert not probed
    assert again.fingerprint == first.fingerprint
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    file = tmp_path / "shards" / "train-000000.tar"
    kept, data = file.stat(), file.read_bytes()
    changed = data.replace(b"[2.0, 3.0, 12.5, 20.25]", b"[4.0, 3.0, 12.5, 20.25]", 1)
    assert changed != data
    file.write_bytes(changed)
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    third = Shards.read(tmp_path / "shards", "train")
    assert len(probed) == 5
    assert third.fingerprint != first.fingerprint
    assert 4.0 in third.boxes[:, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_tars_is_training_from_files(tmp_path: Path, workers: int) -> None:
    index, tars = many(tmp_path)
    options = {"size": (64, 32), "batch": 4, "shuffle": True, "seed": 3}
    files = Loader(index, **options)  # type: ignore[arg-type]
    shards_ = Loader(tars, **options, workers=workers)  # type: ignore[arg-type]
    for epoch in (0, 1):
        pairs = list(zip(files.epoch(epoch), shards_.epoch(epoch), strict=True))
        assert len(pairs) == 6
        assert all(same(one, two) for one, two in pairs)


@pytest.mark.part("format/shards", "sampler/distributed")
@pytest.mark.parametrize("world", [2, 3])
def test_machines_share_the_tars_and_together_see_every_picture_once(tmp_path: Path, world: int) -> None:
    """Each machine lists the tars for itself and reads only its own pictures; the repeats at the end are known."""
    many(tmp_path)
    seen: list[bytes] = []
    for rank in range(world):
        index = Shards.read(tmp_path / "shards", "train")
        loader = Loader(index, size=(48, 32), batch=2, rank=rank, world_size=world)
        rows = [row for batch in loader.epoch(0) for row in batch.index.tolist()]
        seen += [content(index, row) for row in rows[: len(rows) - loader.repeats]]
        share = Distributed(index, batch_size=2, rank=rank, world_size=world)
        assert len(share) == len(rows)
    whole = Shards.read(tmp_path / "shards", "train")
    assert sorted(seen) == sorted(content(whole, row) for row in range(23))


def test_a_sampler_balances_tars_as_it_does_files(tmp_path: Path) -> None:
    index, tars = many(tmp_path)
    expected = RepeatFactor(index, threshold=0.9).rows(0, 0)
    assert np.array_equal(RepeatFactor(tars, threshold=0.9).rows(0, 0), expected)


def test_a_tar_that_goes_away_in_training_is_named_picture_by_picture(tmp_path: Path) -> None:
    _, tars = many(tmp_path)
    (tmp_path / "shards" / "train-000001.tar").unlink()
    elsewhere = replace(tars, store=copy.deepcopy(tars.store))  # as in another process: no file is open yet
    loader = Loader(elsewhere, size=(48, 32), batch=4, max_bad=0.5)
    assert sum(len(batch) for batch in loader.epoch(0)) == 18
    assert {path.partition("/")[0] for path, _ in loader.skipped} == {"train-000001.tar"}
    assert all("cannot be read" in reason for _, reason in loader.skipped)


def test_keypoints_and_labels_that_no_list_names(tmp_path: Path) -> None:
    rows = [{"bbox": [1, 2, 3, 4], "category": "cat", "keypoints": [1, 2, 2, 0, 0, 0]}]
    tar(tmp_path / "train-0.tar", a__jpg=JPEG, a__json=rows, b__jpg=JPEG, b__json=[{**rows[0], "keypoints": [1]}])
    index = Shards.read(tmp_path, "train")
    assert index.keypoint_names == ("0", "1")
    assert index.keypoints is not None
    assert index.keypoints[0].tolist() == [[1, 2, 2], [0, 0, 0]]
    assert [problem.kind for problem in index.problems] == ["malformed keypoints"]
    assert index.classes == ("cat",)


@pytest.mark.parametrize("text", ["{", "3", '[{"id": 1}]', '[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]'])
def test_a_list_of_classes_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    tar(tmp_path / "train-0.tar", a__jpg=JPEG, a__json=BOX)
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match=r"classes\.json"):
        Shards.read(tmp_path, "train")


def test_no_list_of_classes_reaches_to_the_moon(tmp_path: Path) -> None:
    tar(tmp_path / "train-0.tar", a__jpg=JPEG, a__cls=str(10**15))
    with pytest.raises(DataError, match=r"expected classes in 0\.\.99999"):
        Shards.read(tmp_path, "train")


def test_files_of_other_splits_need_not_be_there(tmp_path: Path) -> None:
    tar(tmp_path / "train-0.tar", a__jpg=JPEG)
    pattern = tmp_path / "{train,val}-{0..0}.tar"
    assert set(shards(pattern)) == {"train", "val"}
    assert len(Shards.read(pattern, "train")) == 1

"""Memory of workers: an index is shared by them, not copied page by page while they read it (row 42)."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torso.data.index import Index
from torso.data.loader import Loader
from torso.data.samplers import Random
from torso.data.stores import Arrays
from torso.data.texts import Texts, flat
from torso.data.transforms import HorizontalFlip
from torso.data.workers import prepare

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc/<pid>/smaps_rollup, which Linux has"
)

LIMIT = 10 << 20


def private(pid: int | str = "self") -> int:
    """Bytes that belong to a process alone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return sum(int(size) for size in re.findall(r"^Private_Dirty:\s+(\d+) kB", text, re.MULTILINE)) << 10


def synthetic(pictures: int, objects: int) -> Index:
    """So many pictures with so many objects each, as a reader leaves them; the pixels are 16 arrays again and again."""
    rng = np.random.default_rng(0)
    count = pictures * objects
    low = rng.uniform(0, 8, (count, 2))
    flags = np.zeros(count, np.bool_)
    return Index(
        task="detect",
        root=Path("/data"),
        paths=[f"images/train/{number:012d}.jpg" for number in range(pictures)],
        sizes=np.full((pictures, 2), 16, np.int32),
        image_ids=[1_000_000 + number for number in range(pictures)],
        boxes=np.concatenate([low, low + rng.uniform(1, 8, (count, 2))], axis=1),
        labels=rng.integers(0, 80, count),
        offsets=np.arange(0, count + 1, objects),
        crowd=flags, difficult=flags, truncated=flags,
        area=np.ones(count),
        classes=tuple(map(str, range(80))),
        class_ids=tuple(range(80)),
        store=Arrays(rng.integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)),
        places=rng.integers(0, 16, (pictures, 1)),
    )  # fmt: skip


def named(index: Index) -> Index:
    """The same with a mask file for each picture."""
    return replace(index, segments=[f"masks/{number:012d}.png" for number in range(len(index))])


def walked(index: Index, rows: range) -> None:
    """Everything of some pictures that a worker looks at."""
    for row in rows:
        assert index.file(row).name
        assert index.segment_file(row) is not None
        assert index.picture(row) is not None
        assert len(index.boxes[index.objects(row)])


def grown(index: Index, epochs: int = 3) -> list[int]:
    """Private bytes of a forked worker after each of its walks over an index, less those before the first."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            prepare(0)
            walked(index, range(100))  # whatever is set up once
            start = private()
            for _ in range(epochs):
                walked(index, range(len(index)))
                os.write(send, f"{private() - start}\n".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(send)
    with os.fdopen(receive) as lines:
        found = [int(line) for line in lines]
    assert os.waitpid(child, 0)[1] == 0
    assert len(found) == epochs
    return found


def compared() -> tuple[int, int]:
    """What a worker grows by over 60,000 pictures: with flat texts, and with a list of the same."""
    index = named(synthetic(60_000, 5))
    shared = flat(index)
    return max(grown(shared)), max(grown(index))


def alone(name: str) -> list[int]:
    """The numbers a function of this file returns in an interpreter of its own.

    A worker of a large one, as of the whole suite, copies other pages too.
    """
    code = f"from tests.unit.data.test_memory import {name}; print(*{name}())"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(word) for word in done.stdout.splitlines()[-1].split()]


def test_a_worker_walks_over_sixty_thousand_pictures_without_copying_them() -> None:
    """300,000 objects, three epochs; a list of the same paths, which a worker would copy, shows that this is seen."""
    flat_, listed = alone("compared")
    assert flat_ < LIMIT
    assert listed > flat_ + LIMIT / 3


def measured() -> list[int]:
    """What a real worker grows by in each of three epochs over 60,000 annotations on 12,000 pictures."""
    index = synthetic(12_000, 5)
    before = set(multiprocessing.active_children())
    loader = Loader(index, (HorizontalFlip(),), size=(16, 16), batch=50, workers=1, sampler=Random(index))
    assert isinstance(loader._samples.index.paths, Texts)
    first = loader.epoch(0)
    for _ in range(10):
        next(first)
    (worker,) = set(multiprocessing.active_children()) - before
    start = private(worker.pid or 0)
    sizes = []
    for epoch, batches in enumerate([first, loader.epoch(1), loader.epoch(2)]):
        assert sum(len(batch) for batch in batches) == 12_000 - (500 if epoch == 0 else 0)
        sizes.append(private(worker.pid or 0) - start)
    return sizes


def test_the_loaders_worker_grows_by_less_than_ten_megabytes() -> None:
    sizes = alone("measured")
    assert len(sizes) == 3
    assert max(sizes) < LIMIT, [f"{size / 2**20:.1f} MB" for size in sizes]


@given(st.lists(st.none() | st.text(st.characters(), max_size=20), max_size=12))
def test_flat_texts_are_the_list_they_came_from(texts: list[str | None]) -> None:
    # What names on a disk may hold that is no UTF-8 comes as lone surrogates.
    texts = [
        text if text is None else text.encode("utf-8", "replace").decode("utf-8", "surrogateescape") for text in texts
    ]
    found = Texts([*texts, "\udcff.jpg"])
    assert list(found) == [*texts, "\udcff.jpg"]
    assert len(found) == len(texts) + 1
    assert found[-1] == "\udcff.jpg"
    assert found[1:] == [*texts, "\udcff.jpg"][1:]
    with pytest.raises(IndexError):
        found[len(found)]


def test_a_flat_index_is_the_same_index() -> None:
    index = named(synthetic(7, 2))
    shared = flat(index)
    assert shared.fingerprint == index.fingerprint
    assert [shared.file(row) for row in range(7)] == [index.file(row) for row in range(7)]
    assert [shared.segment_file(row) for row in range(7)] == [index.segment_file(row) for row in range(7)]
    assert len(shared) == 7

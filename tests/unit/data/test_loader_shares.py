"""The loader with samplers, on several ranks, and with little shared memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.data.pictures import small_index
from tests.unit.data.test_loader import AUGMENT, SIZE, damaged, loader, same
from torso.config import DataError
from torso.data import loader as loading
from torso.data.index import Index
from torso.data.loader import Loader
from torso.data.samplers import Over, Random, RepeatFactor, Sequential, Subset
from torso.data.transforms.mosaic import Mosaic
from torso.data.workers import fitting, shared_memory
from torso.structures import Batch


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return small_index(tmp_path, 11)


def rows(batches: Iterable[Batch]) -> list[int]:
    return torch.cat([batch.index for batch in batches]).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_what_the_sampler_says(index: Index, workers: int) -> None:
    sampler = RepeatFactor(index, threshold=0.9)
    given = loader(index, sampler=sampler, workers=workers)
    assert len(sampler) > len(index)
    assert len(given) == -(-len(sampler) // 4)
    for epoch in (0, 1):
        assert rows(given.epoch(epoch)) == sampler.rows(3, epoch).tolist()


def test_without_a_sampler_the_order_is_random_or_as_it_is(index: Index) -> None:
    assert rows(loader(index).epoch(2)) == rows(loader(index, sampler=Random(index)).epoch(2))
    assert rows(loader(index, shuffle=False).epoch(2)) == list(range(11))
    assert rows(loader(index, shuffle=False, sampler=Sequential(index)).epoch(2)) == list(range(11))


def test_a_picture_that_comes_again_is_augmented_anew(index: Index) -> None:
    batches = list(loader(index, sampler=Subset(index, rows=[5] * 6)).epoch(0))
    matrices = torch.cat([batch.to_source for batch in batches])
    assert len({str(matrix) for matrix in matrices}) == 6


@pytest.mark.parametrize("stop", range(5))
def test_a_resume_sees_what_was_left(index: Index, stop: int) -> None:
    sampler = Over(index)
    straight = list(loader(index, sampler=sampler).epoch(1))
    before = loader(index, sampler=sampler).epoch(1)
    seen = [next(before) for _ in range(stop)]
    seen += list(loader(index, sampler=Over(index)).epoch(1, start=stop))
    assert len(seen) == len(straight) >= 4
    assert all(map(same, seen, straight))


def joint(batches: list[Batch], size: int) -> Batch:
    """One batch of the batches of all ranks, without the repeats at its end."""
    whole = [torch.cat([getattr(batch, name) for batch in batches])[:size] for name in ("images", "index", "to_source")]
    return Batch(whole[0], batches[0].targets, whole[1], whole[2], batches[0].source_size)


@pytest.mark.parametrize(("world", "drop_last"), [(2, False), (2, True), (4, False)])
def test_ranks_together_see_the_samples_of_one_process(index: Index, world: int, drop_last: bool) -> None:
    alone = list(loader(index, drop_last=drop_last).epoch(1))
    ranks = [loader(index, batch=4 // world, rank=r, world_size=world, drop_last=drop_last) for r in range(world)]
    together = [list(rank.epoch(1)) for rank in ranks]
    assert {len(batches) for batches in together} == {len(alone)} == {len(ranks[0])}
    for one, *parts in zip(alone, *together, strict=True):
        assert len({len(part) for part in parts}) == 1
        both = joint(parts, len(one))
        assert torch.equal(both.images, one.images)
        assert torch.equal(both.index, one.index)
        assert torch.equal(both.to_source, one.to_source)


@pytest.mark.parametrize("world", [2, 4])
def test_mixed_pictures_and_sizes_do_not_depend_on_the_number_of_ranks(index: Index, world: int) -> None:
    options: dict[str, Any] = {"transforms": (Mosaic(), *AUGMENT), "multiscale": (1.0, 4.0), "drop_last": True}
    alone = list(loader(index, **options).epoch(1))
    ranks = [loader(index, batch=4 // world, rank=r, world_size=world, **options) for r in range(world)]
    for one, *parts in zip(alone, *(rank.epoch(1) for rank in ranks), strict=True):
        both = joint(parts, 4)
        assert torch.equal(both.images, one.images)
        assert torch.equal(both.index, one.index)
    assert len({batch.images.shape for batch in alone}) > 1


@pytest.mark.parametrize("world", [2, 3, 5])
def test_an_evaluation_that_leaves_repeats_out_sees_each_picture_once(index: Index, world: int) -> None:
    seen: list[int] = []
    for rank in range(world):
        one = Loader(index, size=SIZE, batch=2, rank=rank, world_size=world)
        found = rows(one.epoch(0))
        seen += found[: len(found) - one.repeats]
    assert sorted(seen) == list(range(11))
    assert Loader(index, size=SIZE, batch=2).repeats == 0


def test_a_last_step_of_one_picture_is_dropped_on_every_rank(tmp_path: Path) -> None:
    index = small_index(tmp_path, 9)
    for rank in (0, 1):
        batches = list(loader(index, batch=2, rank=rank, world_size=2, drop_last=True).epoch(0))
        assert [len(batch) for batch in batches] == [2, 2]
    with pytest.raises(DataError, match="a batch of 10 needs as many pictures, the split has 9"):
        loader(index, batch=5, rank=0, world_size=2, drop_last=True)
    with pytest.raises(DataError, match="a batch of 4 needs as many pictures, the sampler has 3"):
        loader(index, sampler=Subset(index, rows=[1, 2, 3]), drop_last=True)


def test_damaged_pictures_leave_the_number_of_steps_on_every_rank(tmp_path: Path) -> None:
    index = damaged(tmp_path, [1, 4, 6], count=10)
    sampler = Subset(index, rows=list(range(10)), shuffle=False)
    sizes = [
        [len(batch) for batch in loader(index, shuffle=False, sampler=sampler, batch=2, rank=r, world_size=2).epoch(0)]
        for r in (0, 1)
    ]
    assert sizes == [[2, 2, 1], [2, 2, 1]]


def test_rows_seen_over_a_crash_are_those_of_a_straight_run(index: Index) -> None:
    def seen(first: int, last: int, rank: int) -> list[tuple[int, int]]:
        given = loader(index, batch=2, rank=rank, world_size=3)
        found = []
        for step in range(first, last):
            epoch, start = divmod(step, len(given))
            found += [(epoch, row) for row in next(given.epoch(epoch, start)).index.tolist()]
        return found

    for rank in range(3):
        straight = Counter(seen(0, 4, rank))
        assert all(Counter(seen(0, stop, rank) + seen(stop, 4, rank)) == straight for stop in range(5))


MB = 1 << 20


@pytest.mark.parametrize(
    ("workers", "batch", "free", "expected"),
    [
        (4, 10 * MB, None, (4, 2)),
        (0, 10 * MB, 0, (0, 2)),
        (4, 10 * MB, 100 * MB, (4, 2)),
        (4, 10 * MB, 99 * MB, (4, 1)),
        (4, 10 * MB, 60 * MB, (4, 1)),
        (4, 10 * MB, 59 * MB, (3, 1)),
        (4, 10 * MB, 30 * MB, (1, 1)),
        (4, 78 * MB, 16 * MB, (0, 1)),
    ],
)
def test_so_many_workers_as_the_shared_memory_holds(
    workers: int, batch: int, free: int | None, expected: tuple[int, int]
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert fitting(workers, batch, free) == expected
    assert len(said) == (expected != (workers, 2))
    assert all("--shm-size=1g" in str(one.message) for one in said)
    workers, ready = expected
    assert free is None or not workers or (workers * ready + 2) * batch <= free


def test_the_loader_asks_before_it_starts_workers(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "shared_memory", lambda: 1000)
    expected = list(loader(index).epoch(0))
    small = loader(index, workers=2)
    with pytest.warns(UserWarning, match="loading with 0 workers"):
        found = list(small.epoch(0))
    assert all(map(same, found, expected))
    assert len(list(small.epoch(1))) == len(expected)  # and no second warning, which would be an error


def test_masks_count_among_what_the_shared_memory_must_hold(index: Index) -> None:
    plain, masks, coarse = (Loader(index, size=(64, 32), batch=4, **more)._batch_bytes for more in MASKS)
    assert plain == 3 * 64 * 32 * 4
    batch = next(Loader(index, size=(64, 32), batch=4, masks=True).epoch(0))
    held = sum(one.nbytes for one in (batch.images, batch.targets.masks) if one is not None)
    assert held <= masks <= 2 * held
    assert plain < coarse < masks


MASKS: list[dict[str, Any]] = [{}, {"masks": True}, {"masks": True, "mask_stride": 4}]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
def test_shared_memory_is_that_of_the_system() -> None:
    found = shared_memory()
    assert found is None or 0 < found <= shutil.disk_usage("/dev/shm").total


def may_mount() -> bool:
    ask = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"]
    return bool(shutil.which("unshare")) and subprocess.run(ask, capture_output=True, check=False).returncode == 0


SMALL = """
    import pathlib, sys, time, warnings
    from tests.unit.data.pictures import small_index
    from torso.data.loader import Loader
    index = small_index(pathlib.Path(sys.argv[1]), 32, (64, 64))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        # Batches of 6.75 MB: a worker that finds no room for one fails.
        loader, count = Loader(index, size=(768, 768), batch=4, workers=4, timeout=20), 0
        for epoch in (0, 1):
            for batch in loader.epoch(epoch):
                count += len(batch)
                time.sleep(0.1)  # so that the workers get ahead
    print(count, loader._workers, len(said), "--shm-size" in str(said[0].message))
"""


@pytest.mark.skipif(not may_mount(), reason="needs the right to mount a small /dev/shm in a namespace of its own")
@pytest.mark.parametrize(("megabytes", "workers"), [(8, 0), (30, 2)])
def test_it_loads_with_little_shared_memory(tmp_path: Path, root: Path, megabytes: int, workers: int) -> None:
    mount = f'mount -t tmpfs -o size={megabytes}m tmpfs /dev/shm && exec "$@"'
    command = [sys.executable, "-c", textwrap.dedent(SMALL), str(tmp_path)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *command],
        cwd=root, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.stdout.split() == ["64", str(workers), "1", "True"], done.stderr[-2000:]

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.data.pictures import noise, save, small_index
from torso.config import DataError, TorsoError
from torso.data import render
from torso.data.builder import Builder
from torso.data.decode import Pixels
from torso.data.index import Index
from torso.data.loader import Loader
from torso.data.transforms import Affine, CenterCrop, Color, HorizontalFlip, Letterbox, Resize
from torso.data.views import View, to_source
from torso.data.workers import prepare, shielded
from torso.nn.normalize import NormalizePixels
from torso.structures import Batch

AUGMENT = (HorizontalFlip(), Affine(rotation=5), Color())
SIZE = (64, 32)


def loader(index: Index, **options: object) -> Loader:
    given = {"transforms": AUGMENT, "size": SIZE, "batch": 4, "shuffle": True, "seed": 3} | options
    return Loader(index, **given)  # type: ignore[arg-type]


def same(one: Batch, two: Batch) -> bool:
    tensors = [(one.images, two.images), (one.index, two.index), (one.to_source, two.to_source)]
    tensors += [
        (getattr(one.targets, name), getattr(two.targets, name)) for name in ("boxes", "labels", "valid", "ignore")
    ]
    return all(torch.equal(a, b) for a, b in tensors)


def damaged(folder: Path, bad: list[int], count: int = 10) -> Index:
    """An index some of whose pictures broke after it was made."""
    index = small_index(folder, count)
    for row in bad:
        index.file(row).write_bytes(index.file(row).read_bytes()[:60])
    return index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return small_index(tmp_path)


@pytest.mark.part("train/collate")
def test_a_batch_is_what_the_structures_say(index: Index) -> None:
    batch = next(loader(index, transforms=(), shuffle=False).epoch(0))
    assert batch.images.shape == (4, 3, 32, 64)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.index.tolist() == [0, 1, 2, 3]
    assert batch.source_size.tolist() == [[48, 32]] * 4
    targets = batch.targets
    assert targets.boxes.shape == (4, 8, 4)
    assert targets.valid.sum(1).tolist() == [0, 1, 2, 2]
    assert targets.ignore.sum(1).tolist() == [0, 0, 0, 1]
    assert not (targets.valid & targets.ignore).any()
    assert (targets.boxes[~(targets.valid | targets.ignore)] == 0).all()
    assert targets.labels[3, :3].tolist() == [0, 1, 2]
    # 48 x 32 into 64 x 32: eight columns of grey left and right.
    assert np.allclose(targets.boxes[1, 0], [2 + 8, 3, 12.5 + 8, 20.25])
    assert (batch.images[:, :, :, :8] == 114).all()
    back = to_source(targets.boxes[3, :3], batch.to_source[3], (48, 32))
    assert np.allclose(back, index.boxes[index.objects(3)])


def test_pixels_reach_the_network_as_they_are(index: Index) -> None:
    batch = next(loader(index, transforms=(), shuffle=False, size=(48, 32)).epoch(0))
    assert np.array_equal(batch.images[2].permute(1, 2, 0), noise(48, 32, seed=2))


@pytest.mark.part("train/loader")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(index: Index, workers: int) -> None:
    alone, together = loader(index), loader(index, workers=workers)
    for epoch in (0, 1):
        expected, given = list(alone.epoch(epoch)), list(together.epoch(epoch))
        assert len(expected) == len(given) == 3
        assert all(map(same, expected, given))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_anywhere(index: Index, workers: int) -> None:
    whole = list(loader(index).epoch(5))
    later = loader(index, workers=workers)
    unfinished = later.epoch(1)
    next(unfinished)
    rest = list(later.epoch(5, start=1))
    assert all(map(same, whole[1:], rest))
    assert len(rest) == 2


def test_epochs_and_seeds_differ(index: Index) -> None:
    first = next(loader(index).epoch(0))
    assert not same(first, next(loader(index).epoch(1)))
    assert not same(first, next(loader(index, seed=4).epoch(0)))
    seen = torch.cat([batch.index for batch in loader(index).epoch(0)])
    assert sorted(seen.tolist()) == list(range(10))
    # The same picture is augmented differently in each epoch.
    matrices = {
        str(batch.to_source[batch.index == 1])
        for epoch in range(4)
        for batch in loader(index).epoch(epoch)
        if (batch.index == 1).any()
    }
    assert len(matrices) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_streams_are_left_alone(index: Index, workers: int) -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for shuffle in (True, False):
        list(loader(index, workers=workers, shuffle=shuffle).epoch(0))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert torch.allclose(torch.rand(5), torch.tensor([0.4963, 0.7682, 0.0885, 0.1320, 0.3074]), atol=1e-4)


def test_lengths(index: Index) -> None:
    assert len(loader(index)) == 3
    assert len(loader(index, drop_last=True)) == len(list(loader(index, drop_last=True).epoch(0))) == 2
    assert [len(batch) for batch in loader(index).epoch(0)] == [4, 4, 2]
    with pytest.raises(DataError, match="a batch of 11 needs as many pictures, the split has 10"):
        loader(index, batch=11, drop_last=True)


def test_classes_of_whole_pictures(tmp_path: Path) -> None:
    builder = Builder(tmp_path, ("a", "b"), task="classify")
    for number in range(3):
        builder.image(save(noise(8, 8), tmp_path / f"{number}.png"), (8, 8), number, number % 2)
    batch = next(loader(builder.finish(), shuffle=False).epoch(0))
    assert batch.targets.classes is not None
    assert batch.targets.classes.tolist() == [0, 1, 0]
    assert batch.targets.boxes.shape == (3, 0, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_replaces_damaged_pictures_and_names_them(tmp_path: Path, workers: int) -> None:
    broken = loader(damaged(tmp_path, [3, 8]), workers=workers)
    batches = list(broken.epoch(0))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert not {3, 8} & set(torch.cat([batch.index for batch in batches]).tolist())
    assert sorted(path for path, _ in broken.skipped) == ["03.png", "08.png"]
    assert all("damaged" in reason for _, reason in broken.skipped)
    assert all(map(same, batches, loader(broken.index).epoch(0)))
    list(broken.epoch(1))
    assert len(broken.skipped) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_judging_skips_damaged_pictures_and_names_them(tmp_path: Path, workers: int) -> None:
    broken = loader(damaged(tmp_path, [1, 4, 5, 6, 7]), shuffle=False, workers=workers)
    assert [batch.index.tolist() for batch in broken.epoch(0)] == [[0, 2, 3], [8, 9]]
    assert [path for path, _ in broken.skipped] == ["01.png", "04.png", "05.png", "06.png", "07.png"]


def test_too_many_damaged_pictures_end_the_training(tmp_path: Path) -> None:
    index = damaged(tmp_path, list(range(0, 18, 3)), count=18)
    with pytest.raises(DataError, match=r"more than 1% of the pictures cannot be read"):
        list(loader(index).epoch(0))
    list(loader(index, max_bad=0.5).epoch(0))


def _deadly(path: Path, view: View, bits: int = 8) -> Pixels:
    if path.name == "04.png":
        os.kill(os.getpid(), signal.SIGSEGV)
    return noise(*view.source)


def _endless(path: Path, view: View, bits: int = 8) -> Pixels:
    if path.name == "05.png":
        time.sleep(60)
    return noise(*view.source)


@pytest.mark.parametrize(("load", "name"), [(_deadly, "04.png"), (_endless, "05.png")])
def test_a_worker_that_dies_or_hangs_names_its_file(
    index: Index, monkeypatch: pytest.MonkeyPatch, load: object, name: str
) -> None:
    monkeypatch.setattr(render, "load", load)
    children = set(multiprocessing.active_children())
    with pytest.raises(DataError, match=rf"worker died or hung .*being read: [^.]*{name}"):
        list(loader(index, workers=2, shuffle=False, batch=2, timeout=2).epoch(0))
    left = set(multiprocessing.active_children()) - children
    for child in left:
        child.join(5)
    assert not any(child.is_alive() for child in left)


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_workers_outlive_polite_signals_and_die_with_their_parent() -> None:
    def child(queue: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
        prepare(0)
        on_death = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(on_death))
        ignored = [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGTERM, signal.SIGINT)]
        queue.put((ignored, on_death.value, torch.get_num_threads()))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get(timeout=20) == ([True, True], signal.SIGKILL, 1)
    process.join()


def test_a_signal_to_the_group_interrupts_nothing(index: Index) -> None:
    before = set(multiprocessing.active_children())
    running = loader(index, workers=2)
    batches = running.epoch(0)
    first = next(batches)
    for worker in set(multiprocessing.active_children()) - before:
        os.kill(worker.pid or 0, signal.SIGTERM)
        os.kill(worker.pid or 0, signal.SIGINT)
    assert [len(first), *map(len, batches)] == [4, 4, 2]
    assert len(list(running.epoch(1))) == 3


def test_the_cache_reads_each_picture_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(loader(index).epoch(1))
    reads: list[Path] = []
    load = render.load

    def counted(path: Path, view: View, bits: int = 8) -> Pixels:
        reads.append(path)
        return load(path, view, bits)

    monkeypatch.setattr(render, "load", counted)
    cached = loader(index, cache_bytes=1 << 20)
    list(cached.epoch(0))
    assert all(map(same, expected, cached.epoch(1)))
    assert len(reads) == 10
    reads.clear()
    list(loader(index, cache_bytes=4 * 48 * 32 * 3).epoch(0))
    assert len(reads) == 10
    reads.clear()
    assert all(map(same, expected, loader(index, cache_bytes=1 << 20, workers=2).epoch(1)))


def test_the_cache_shrinks_to_the_canvas(tmp_path: Path) -> None:
    index = small_index(tmp_path, size=(480, 320), count=3)
    cached = loader(index, cache_bytes=1 << 20, transforms=(), shuffle=False)
    plain = loader(index, transforms=(), shuffle=False)
    one, two = next(cached.epoch(0)), next(plain.epoch(0))
    assert one.images.shape == two.images.shape
    assert torch.allclose(one.targets.boxes, two.targets.boxes, atol=0.5)
    assert (one.images.float() - two.images.float()).abs().mean() < 8


def test_a_canvas_of_the_wrong_size_is_explained(index: Index) -> None:
    with pytest.raises(TorsoError, match="add center_crop"):
        loader(index, transforms=[Resize("short")])
    assert next(loader(index, transforms=[Resize("short"), CenterCrop()]).epoch(0)).images.shape[2:] == (32, 64)
    assert next(loader(index, transforms=[HorizontalFlip(), Letterbox()]).epoch(0)).images.shape[2:] == (32, 64)


def test_normalisation_is_not_for_the_loader(index: Index) -> None:
    with pytest.raises(TorsoError, match="NormalizePixels does not edit views"):
        loader(index, transforms=[NormalizePixels()])


def test_unreadable_batches_are_left_out(tmp_path: Path) -> None:
    index = damaged(tmp_path, [0, 1, 2, 3])
    assert [len(batch) for batch in loader(index, shuffle=False).epoch(0)] == [4, 2]


def test_the_loader_never_writes(tmp_path: Path) -> None:
    index = damaged(tmp_path, [3])
    index.file(5).write_bytes(index.file(5).read_bytes()[:-2])
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    list(loader(index).epoch(0))
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_a_process_started_under_the_shield_gets_no_signal() -> None:
    ask = "import signal; print(*sorted(int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with shielded():
        said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["2", "15"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before

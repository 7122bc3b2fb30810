"""A run that was stopped anywhere ends as one that was not, to the last bit of the last weight."""

from __future__ import annotations

import os
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.train.tiny import Halt, Recording, TinyLoader, TinyModel, quick_folder, train
from torso.config import DataError, ModelError
from torso.train import checkpoint
from torso.train.run_folder import RunFolder
from torso.train.signals import Interrupted, Preempted

STEPS = 18  # 3 epochs of 6 batches of 4 pictures; the last batch of an epoch has 2


@cache
def straight(**options: Any) -> tuple[str, list[dict[str, Any]], list[dict[str, str]]]:
    with quick_folder() as folder:
        digest, _ = train(folder, **options)
        return digest, rows(folder), results(folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in RunFolder(folder).read_metrics()]


def results(folder: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in RunFolder(folder).read_results()]


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.part("trick/ema")
@pytest.mark.part("schedule/cosine")
@pytest.mark.part("optimizer/sgd")
@pytest.mark.part("optimizer/adamw")
@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize("schedule", ["cosine", "multistep"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_stopped_and_resumed(tmp_path: Path, optimizer: str, schedule: str, ema: bool, accumulate: int) -> None:
    """In the middle of an epoch, at its edge, one step from the end, and all of these after one another."""
    options: dict[str, Any] = {"optimizer": optimizer, "schedule": schedule, "ema": ema, "accumulate": accumulate}
    expected = straight(**options)
    stops = [1, 6, 11, 17] if accumulate == 1 else [1, 2, 5]
    for number, step in enumerate(stops):
        with pytest.raises(Preempted, match=f"after step {step} of"):
            train(tmp_path, **options, resume=number > 0, more=[Halt(step, ask_to_stop)])
    digest, result = train(tmp_path, **options, resume=True, more=[Halt(0, ask_to_stop)])
    assert digest == expected[0]
    assert result["step"] == (STEPS if accumulate == 1 else 6)
    assert rows(tmp_path) == expected[1]
    assert results(tmp_path) == expected[2]


def test_stopped_by_an_error_and_resumed_from_an_earlier_save(tmp_path: Path) -> None:
    """What was done after the last save is done again, and is noted once."""
    expected = straight()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(tmp_path, save_every=4, more=[Halt(11, fail)])
    assert RunFolder(tmp_path).get_state()["status"] == "failed"
    digest, _ = train(tmp_path, save_every=4, resume=True, more=[Halt(0, fail)])
    assert digest == expected[0]
    assert rows(tmp_path) == expected[1]
    assert results(tmp_path) == expected[2]
    assert RunFolder(tmp_path).get_state()["status"] == "done"


def test_any_number_of_workers(tmp_path: Path) -> None:
    expected, _, _ = straight()
    with pytest.raises(Interrupted):
        train(
            tmp_path,
            loader=TinyLoader(workers=2),
            more=[Halt(8, lambda: os.kill(os.getpid(), signal.SIGINT))],
        )
    digest, _ = train(tmp_path, resume=True, more=[Halt(0, ask_to_stop)])
    assert digest == expected


def test_no_picture_twice_and_none_left_out(tmp_path: Path) -> None:
    model = Recording()
    train(tmp_path / "a", model=model, epochs=2)
    seen: list[int] = []
    for number, step in enumerate((2, 6, 9, None)):
        part = Recording()
        try:
            train(tmp_path / "b", model=part, epochs=2, resume=number > 0, more=[Halt(step or 0, ask_to_stop)])
        except Preempted:
            assert step
        seen += part.rows
    assert seen == model.rows
    assert sorted(seen) == sorted([*range(22)] * 2)


def test_in_bf16(tmp_path: Path) -> None:
    expected, _, _ = straight(precision="bf16")
    assert expected != straight()[0]
    with pytest.raises(Preempted):
        train(tmp_path, precision="bf16", more=[Halt(8, ask_to_stop)])
    assert train(tmp_path, precision="bf16", resume=True, more=[Halt(0, ask_to_stop)])[0] == expected


def test_into_another_run_and_from_a_certain_checkpoint(tmp_path: Path) -> None:
    expected, _, _ = straight()
    train(tmp_path / "a", keep=5)
    at = tmp_path / "a" / "checkpoints" / "step-00000006"
    assert train(tmp_path / "b", resume_from=at)[0] == expected
    last = tmp_path / "a" / "checkpoints" / "last"
    assert train(tmp_path / "c", resume_from=last)[0] == expected


def test_a_damaged_last_checkpoint_costs_only_time(tmp_path: Path) -> None:
    expected = straight()
    train(tmp_path)
    newest = checkpoint.latest_valid(tmp_path / "checkpoints")
    assert newest is not None
    (newest / "model.safetensors").write_bytes(b"")
    assert train(tmp_path, resume=True)[0] == expected[0]
    assert results(tmp_path) == expected[2]
    for path in (tmp_path / "checkpoints").glob("step-*"):
        (path / "state.json").write_text("{}")
    with pytest.raises(ModelError, match=r"every checkpoint in .* is damaged"):
        train(tmp_path, resume=True)


def test_killed_before_the_first_checkpoint(tmp_path: Path) -> None:
    RunFolder(tmp_path).checkpoints.mkdir()
    assert train(tmp_path, resume=True)[0] == straight()[0]


def test_a_finished_run_is_only_judged_again(tmp_path: Path) -> None:
    digest, result = train(tmp_path)
    again, twice = train(tmp_path, resume=True)
    assert again == digest
    assert twice == result
    assert results(tmp_path) == straight()[2]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    from types import SimpleNamespace

    loader = TinyLoader()
    loader.index = SimpleNamespace(fingerprint="abc")  # type: ignore[attr-defined]
    with pytest.raises(Preempted):
        train(tmp_path, loader=loader, more=[Halt(2, ask_to_stop)])
    with pytest.raises(DataError, match="fingerprint abc, now None"):
        train(tmp_path, resume=True, more=[Halt(0, ask_to_stop)])
    with pytest.raises(ModelError, match="1 batches a step, now there are 2"):
        train(tmp_path, loader=loader, resume=True, accumulate=2)
    with pytest.raises(ModelError, match=r"tricks \['clip_gradients', 'ema', 'halt'\], now"):
        train(tmp_path, loader=loader, resume=True)
    with pytest.raises(ModelError, match="trained with SGD, the recipe says AdamW"):
        train(tmp_path, loader=loader, resume=True, optimizer="adamw", more=[Halt(0, ask_to_stop)])
    with pytest.raises(ModelError, match="neither a run folder nor a checkpoint"):
        train(tmp_path / "b", resume_from=tmp_path / "nothing")
    bigger = TinyLoader(images=30)
    bigger.index = loader.index  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="6 batches an epoch, now there are 8"):
        train(tmp_path, loader=bigger, resume=True, more=[Halt(0, ask_to_stop)])


def test_another_model_is_refused(tmp_path: Path) -> None:
    from torch import nn

    train(tmp_path, epochs=1)
    model = TinyModel()
    model.more = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"was written by another model: .*more\.weight"):
        train(tmp_path, model=model, epochs=2, resume=True)


def test_with_the_loader_and_pictures_of_torso(tmp_path: Path, digits: Path) -> None:
    """Augmented pictures from files; 2 workers before the stop, none after it, and the other way round."""
    from torso.data import open_index
    from torso.data.loader import Loader
    from torso.data.transforms import TRANSFORMS
    from torso.structures import Batch, Losses

    class Grey(TinyModel):
        def losses(self, batch: Batch) -> Losses:
            return {"size": (self(batch.images).float() - batch.targets.boxes.mean() / 32).square().mean()}

    def loader(workers: int) -> Loader:
        edits = [TRANSFORMS["horizontal_flip"](), TRANSFORMS["color"]()]
        index = open_index(digits)
        return Loader(index, edits, size=(32, 32), batch=5, workers=workers, seed=4, shuffle=True)

    def life(run: Path, workers: int, **options: Any) -> tuple[str, dict[str, Any]]:
        torch.manual_seed(7)
        return train(run, model=Grey(), loader=loader(workers), epochs=2, **options)

    expected, result = life(tmp_path / "straight", 0)
    assert result["step"] >= 6
    for before, after in ((2, 0), (0, 2)):
        run = tmp_path / str(before)
        with pytest.raises(Preempted):
            life(run, before, more=[Halt(2, ask_to_stop)])
        assert checkpoint.load(run / "checkpoints" / "last")[1]["fingerprint"] == loader(0).index.fingerprint
        assert life(run, after, resume=True, more=[Halt(0, ask_to_stop)])[0] == expected

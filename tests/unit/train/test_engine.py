"""The loop: what one step is, what an evaluation may not do, and when training stops."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.unit.train.tiny import Halt, TinyLoader, TinyModel, noisy_evaluator, train
from torso.config import TorsoError
from torso.structures import Batch, Losses
from torso.train import checkpoint, engine, optim
from torso.train.log import Log
from torso.train.nonfinite import NonFiniteError
from torso.train.run_folder import RunFolder
from torso.train.schedules import MultiStep
from torso.train.seed import seed_everything
from torso.train.signals import Preempted
from torso.train.tricks import EMA, ClipGradients


def fit(run: Path, model: nn.Module, loader: Any, **options: Any) -> dict[str, Any]:
    optimizer = torch.optim.SGD(optim.groups(model, 0.1, 0.01), momentum=0.9)
    settings: dict[str, Any] = {"epochs": 2, "precision": "fp32", "log": Log(quiet=True), "run": RunFolder(run)}
    run.mkdir(parents=True, exist_ok=True)
    return engine.fit(model, loader, optimizer, MultiStep([1], warmup=3), **(settings | options))


class PlainModel(TinyModel):
    """Neither batch norm nor dropout: the gradient of a batch is the mean of those of its halves."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(6, 4))


def test_it_is_the_loop_one_would_write(tmp_path: Path) -> None:
    """Against thirty lines of plain torch, with clipping and a mean, to the bit."""
    torch.manual_seed(1)
    model = TinyModel()
    plain = copy.deepcopy(model).to(memory_format=torch.channels_last).train()
    clip, mean = ClipGradients(0.5), EMA(0.9, tau=3)
    fit(tmp_path, model, TinyLoader(), accumulate=4, tricks=[clip, mean], seed=3)

    epochs = [list(TinyLoader().epoch(epoch)) for epoch in range(2)]
    seed_everything(3)
    optimizer = torch.optim.SGD(optim.groups(plain, 0.1, 0.01), momentum=0.9)
    averaged = copy.deepcopy(plain)
    step = 0
    for epoch, batches in enumerate(epochs):
        for group in (batches[:4], batches[4:]):
            optimizer.zero_grad()
            for batch in group:
                (sum(plain.losses(batch).values(), torch.zeros(())) / len(group)).backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            for options in optimizer.param_groups:
                warm = 0.001 + 0.999 * step / 3 if step < 3 else 1.0
                options["lr"] = 0.1 * warm * 0.1**epoch
            optimizer.step()
            step += 1
            decay = 0.9 * (1 - math.exp(-step / 3))
            with torch.no_grad():
                for value, weight in zip(averaged.parameters(), plain.parameters(), strict=True):
                    value.lerp_(weight, 1 - decay)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    for (name, value), ours in zip(averaged.named_parameters(), mean.mean.parameters(), strict=True):
        assert torch.allclose(value, ours, rtol=1e-6, atol=1e-8), name


@pytest.mark.parametrize("images", [24, 20])
def test_accumulation_is_a_larger_batch(tmp_path: Path, images: int) -> None:
    """Also in the last step of an epoch, which has fewer batches (20 pictures: 3 + 2 of 4)."""
    torch.manual_seed(0)
    parts = PlainModel()
    whole = copy.deepcopy(parts)
    fit(tmp_path / "a", parts, TinyLoader(images, batch=4), accumulate=3)
    fit(tmp_path / "b", whole, TinyLoader(images, batch=12))
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, parts.state_dict()[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("ema", [True, False])
def test_evaluation_leaves_no_trace(tmp_path: Path, ema: bool) -> None:
    """Neither of one that leaves the model in train mode, nor of an ordinary one, which leaves it in eval mode."""
    expected = train(tmp_path / "a", evaluator=None, ema=ema)[0]
    assert train(tmp_path / "b", ema=ema)[0] == expected
    assert train(tmp_path / "c", ema=ema, evaluator=lambda model: {"AP": 0.0})[0] == expected


@pytest.mark.parametrize("leaves", [True, False])
def test_modes_are_restored_one_by_one(tmp_path: Path, leaves: bool) -> None:
    """A frozen batch norm that the user put into eval mode stays in it."""

    class Frozen(TinyModel):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self.backbone[1].eval()
            return self

    def evaluator(model: nn.Module) -> dict[str, float]:
        for module in model.modules():
            module.training = leaves
        return {"AP": 0.0}

    model = Frozen()
    fit(tmp_path, model, TinyLoader(), evaluator=evaluator)
    assert model.training
    assert model.head[0].training
    assert not model.backbone[1].training
    assert torch.equal(model.backbone[1].running_mean, torch.zeros(6))


def test_the_mean_is_evaluated_without_gradients(tmp_path: Path) -> None:
    trick = EMA(0.9, tau=0)
    asked: list[nn.Module] = []

    def evaluator(model: nn.Module) -> dict[str, float]:
        assert not torch.is_grad_enabled()
        asked.append(model)
        return {"AP": len(asked) % 2}

    result = fit(tmp_path, TinyModel(), TinyLoader(), tricks=[trick], evaluator=evaluator, epochs=4)
    assert all(model is trick.mean for model in asked)
    assert result["best"] == {"metric": "AP", "value": 1.0, "epoch": 1, "step": 6}
    best = checkpoint.best(tmp_path / "checkpoints")
    assert best is not None
    assert best.name == "step-00000006"
    assert not torch.equal(checkpoint.weights(best)["head.1.bias"], checkpoint.load(best)[0]["model"]["head.1.bias"])


def test_evaluate_every(tmp_path: Path) -> None:
    epochs: list[int] = []
    run = RunFolder(tmp_path)

    def evaluator(model: nn.Module) -> dict[str, float]:
        epochs.append(len(run.read_results()) + 1)
        return {"AP": math.nan}

    result = fit(tmp_path, TinyModel(), TinyLoader(), epochs=5, evaluate_every=2, evaluator=evaluator)
    assert epochs == [2, 4, 5]
    assert result["best"] is None  # NaN is better than nothing, but not than no number
    assert [row["AP"] for row in run.read_results()] == [""] * 5


def test_a_metric_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TorsoError, match="chosen by 'mAP', but the evaluator gives AP, AR"):
        fit(tmp_path, TinyModel(), TinyLoader(), evaluator=noisy_evaluator, best="mAP")


class Breaking(TinyModel):
    """Its size loss is infinite when it sees a certain picture."""

    def losses(self, batch: Batch) -> Losses:
        losses = super().losses(batch)
        if 13 in batch.index.tolist() and self.armed:
            losses["size"] = losses["size"] / 0.0
        return losses

    armed = False


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    class Armed(Halt):
        def stepped(self, model: nn.Module, step: int) -> None:
            model.armed = step >= 6

    model = Breaking()
    with pytest.raises(NonFiniteError, match=r"at step \d+: size = inf, on images \[.*13.*\] of the index") as error:
        fit(tmp_path, model, TinyLoader(), tricks=[Armed(0, None)], save_every=1)
    assert error.value.code == 1
    place = next(tmp_path.glob("nan-*"))
    info = json.loads((place / "info.json").read_text())
    assert place.name == f"nan-{info['step']}"
    assert 13 in info["images"]
    assert info["losses"]["size"] == "inf"

    found = checkpoint.latest_valid(tmp_path / "checkpoints")
    assert found is not None
    tensors, state = checkpoint.load(found)
    assert state["progress"]["step"] == info["step"] - 1
    assert all(torch.equal(tensors["model"][name], value) for name, value in model.named_parameters())
    kept = load_file(place / "batch.safetensors")
    assert kept["index"].tolist() == info["images"]
    again = Breaking()
    again.load_state_dict(load_file(place / "model.safetensors"))
    assert kept["images"].dtype == torch.uint8
    assert RunFolder(tmp_path).get_state()["status"] == "failed"


def test_the_first_module_that_breaks_is_named(tmp_path: Path) -> None:
    class Dividing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 0.0

    model = TinyModel()
    model.head = nn.Sequential(nn.Linear(6, 5), Dividing(), nn.Linear(5, 4))
    with pytest.raises(NonFiniteError, match=r"The first module to give such a number is head\.1\."):
        fit(tmp_path, model, TinyLoader())
    assert not checkpoint.latest_valid(tmp_path / "checkpoints")


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    model = TinyModel()

    def spoil() -> None:
        with torch.no_grad():
            model.head[1].weight[0, 0] = math.nan

    with pytest.raises(NonFiniteError, match=r"not finite after step 6: head\.1\.weight"):
        fit(tmp_path, model, TinyLoader(), tricks=[Halt(6, spoil)], save_every=5)
    found = checkpoint.latest_valid(tmp_path / "checkpoints")
    assert found is not None
    assert found.name == "step-00000005"


def test_a_signal_during_evaluation_does_not_wait(tmp_path: Path) -> None:
    def slow(model: nn.Module) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("evaluation went on")

    with pytest.raises(Preempted, match="during evaluation"):
        train(tmp_path, evaluator=slow)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert RunFolder(tmp_path).get_state() == {
        "status": "stopped",
        "epoch": 0,
        "step": 6,
        "best": None,
        "error": "stopped during evaluation; everything is saved: `torso resume` goes on from here",
    }
    assert train(tmp_path, resume=True)[0] == train(tmp_path / "straight")[0]


def test_an_evaluation_that_a_signal_broke_is_a_stop(tmp_path: Path) -> None:
    """The evaluator's own workers die of a signal to the group, perhaps before this process hears of it."""

    def broken(model: nn.Module) -> dict[str, float]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise RuntimeError("DataLoader worker is killed by signal: Terminated")

    with pytest.raises(Preempted, match="during evaluation"):
        train(tmp_path, evaluator=broken)
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "b", evaluator=lambda model: {"AP": 1 / 0})


def test_workers_end_with_the_training(tmp_path: Path) -> None:
    """Also when an error ends it: the loader's generator is closed."""
    ended: list[bool] = []

    class Noting(TinyLoader):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            try:
                yield from super().epoch(epoch, start)
            finally:
                ended.append(True)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        fit(tmp_path, TinyModel(), Noting(), tricks=[Halt(2, fail)])
    assert ended == [True], error.traceback  # though every frame of the loop is still held by this


def test_metrics_and_results(tmp_path: Path) -> None:
    """A row's loss is the mean of its step, an epoch's the mean over its batches; the norm is that before clipping."""
    seen: list[float] = []

    class Listening(TinyModel):
        def losses(self, batch: Batch) -> Losses:
            losses = super().losses(batch)
            seen.append(losses["class"].item())
            return losses

    norms: list[float] = []

    class Measuring(ClipGradients):
        def gradients(self, model: nn.Module) -> None:
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            norms.append(math.sqrt(sum(float(g.double().square().sum()) for g in gradients)))
            super().gradients(model)

    fit(tmp_path, Listening(), TinyLoader(), tricks=[Measuring(0.1)], accumulate=2, log_every=2, epochs=2)
    run = RunFolder(tmp_path)
    rows = run.read_metrics()
    assert [(row["step"], row["epoch"]) for row in rows] == [(2, 1), (4, 2), (6, 2)]
    for row in rows:
        at = 2 * row["step"]
        assert row["losses"]["class"] == pytest.approx(sum(seen[at - 2 : at]) / 2, rel=1e-6)
        assert row["loss"] == pytest.approx(sum(row["losses"].values()))
        assert row["gradient_norm"] == pytest.approx(norms[row["step"] - 1], rel=1e-5)
    assert [row["lr"] for row in rows] == pytest.approx([0.1 * (0.001 + 0.999 / 3), 0.01, 0.01])
    assert [float(row["class"]) for row in run.read_results()] == pytest.approx(
        [sum(seen[:6]) / 6, sum(seen[6:]) / 6], rel=1e-5
    )
    assert run.get_state() == {"status": "done", "epoch": 2, "step": 6, "best": None}


def test_what_a_checkpoint_says_of_itself(tmp_path: Path) -> None:
    about = {"classes": ["猫", "dog"], "recipe": {"model": {"name": "tiny"}}}
    fit(tmp_path, TinyModel(), TinyLoader(), about=about)
    found = checkpoint.latest_valid(tmp_path / "checkpoints")
    assert found is not None
    assert checkpoint.load(found)[1]["about"] == about
    assert json.loads((found / "manifest.json").read_text(encoding="utf-8"))["classes"] == ["猫", "dog"]


class Short(TinyLoader):
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return iter([])


def test_a_loader_that_breaks_its_promise(tmp_path: Path) -> None:
    with pytest.raises(TorsoError, match="promised 6 batches an epoch and gave 0"):
        fit(tmp_path, TinyModel(), Short())


@pytest.mark.parametrize("option", [{"epochs": 0}, {"accumulate": 0}, {"evaluate_every": 0}])
def test_nothing_to_train(tmp_path: Path, option: dict[str, int]) -> None:
    with pytest.raises(TorsoError, match="nothing to train"):
        fit(tmp_path, TinyModel(), TinyLoader(), **option)
    with pytest.raises(TorsoError, match="0 batches"):
        fit(tmp_path, TinyModel(), TinyLoader(images=0))


def test_a_full_disk_ends_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torso.train import disk

    def full(what: str, path: Path) -> None:
        if "results" in path.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "probe", full)
    with pytest.raises(TorsoError, match=r"cannot be written: No space left on device\. .*torso resume"):
        fit(tmp_path, TinyModel(), TinyLoader())
    assert checkpoint.latest_valid(tmp_path / "checkpoints") is not None


def test_parameters_learn(tmp_path: Path) -> None:
    """Over one batch the loss falls to nearly nothing."""

    class Same(TinyLoader):
        def __len__(self) -> int:
            return 40

        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            return repeat(next(iter(super().epoch(0))))

    model = PlainModel()
    model.backbone = nn.Sequential(nn.Flatten(), nn.Linear(243, 6), nn.ReLU(), nn.Unflatten(1, (6, 1, 1)))
    result = fit(tmp_path, model, Same(images=4, batch=4), epochs=2, log_every=1)
    assert RunFolder(tmp_path).read_metrics()[0]["losses"]["class"] > 1
    assert result["losses"]["class"] < 0.7

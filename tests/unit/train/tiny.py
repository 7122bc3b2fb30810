"""A model, a loader and a run so small that a whole training takes a second, with all that makes resuming hard."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from torso.data.workers import prepare, shielded
from torso.structures import Batch, Losses, Targets
from torso.train import engine, optim
from torso.train.log import Log
from torso.train.run_folder import RunFolder
from torso.train.schedules import Cosine, MultiStep, Schedule
from torso.train.tricks import EMA, ClipGradients, Trick


class TinyModel(nn.Module):
    """Batch norm (buffers), dropout (generators), a backbone and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, 2, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 4))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images.float() / 255)
        return self.head(features.mean((2, 3)))  # [B, 4]

    def losses(self, batch: Batch) -> Losses:
        logits = self(batch.images).float()
        assert batch.targets.classes is not None
        return {
            "class": nn.functional.cross_entropy(logits, batch.targets.classes),
            "size": 0.01 * logits.square().mean(),
        }


class Pictures(Dataset[tuple[Tensor, int, int]]):
    """Noise that depends only on (seed, epoch, index); torch's global generator in a worker is never asked."""

    def __init__(self, size: int, epoch: int) -> None:
        self.size, self.epoch = size, epoch

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> tuple[Tensor, int, int]:
        generator = torch.Generator().manual_seed(1000 * self.epoch + row)
        return torch.randint(0, 256, (3, 9, 9), dtype=torch.uint8, generator=generator), row % 4, row


def collate(samples: list[tuple[Tensor, int, int]]) -> Batch:
    images, classes, rows = zip(*samples, strict=True)
    size = len(samples)
    return Batch(
        images=torch.stack(images).contiguous(memory_format=torch.channels_last),
        targets=Targets.of_classes(torch.tensor(classes)),
        index=torch.tensor(rows),
        to_source=torch.eye(3, dtype=torch.float64).expand(size, 3, 3),
        source_size=torch.full((size, 2), 9),
    )


class TinyLoader:
    """The contract of a loader, with a note of every (epoch, row) that it gave."""

    def __init__(self, images: int = 22, batch: int = 4, workers: int = 0, seen: Path | None = None) -> None:
        self.images, self.batch, self.workers, self.seen = images, batch, workers, seen

    def __len__(self) -> int:
        return (self.images + self.batch - 1) // self.batch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = torch.randperm(self.images, generator=torch.Generator().manual_seed(epoch)).tolist()
        groups = [order[at : at + self.batch] for at in range(0, self.images, self.batch)][start:]
        # No generator of its own: iterating draws from the global one, which the engine must not let through.
        loader = DataLoader(
            Pictures(self.images, epoch),
            batch_sampler=groups,  # type: ignore[arg-type]
            collate_fn=collate,
            num_workers=self.workers,
            multiprocessing_context="fork" if self.workers else None,  # as torso's own loader
            worker_init_fn=prepare,  # as torso's own loader, and so is the shield
        )
        with shielded():
            batches = iter(loader)
        yield from batches


class Recording(TinyModel):
    """Writes down what was trained on, at the moment it is."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def losses(self, batch: Batch) -> Losses:
        self.rows += batch.index.tolist()
        return super().losses(batch)


class Halt(Trick):
    """Asks for a stop, or does something worse, after a certain step."""

    name = "halt"

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def stepped(self, model: nn.Module, step: int) -> None:
        if step == self.step:
            self.act()


def noisy_evaluator(model: nn.Module) -> dict[str, float]:
    """A metric; and the rudest guest: it draws from every generator, and leaves the model in train mode."""
    import random

    import numpy as np

    torch.rand(7), random.random(), np.random.rand(3)  # noqa: NPY002
    weight = model.get_parameter("head.1.weight")
    assert not model.training
    model.train()
    return {"AP": float(weight.double().abs().sum()), "AR": 0.5}


def fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is such a thing. A killed process leaves there what it would leave on a disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def train(run: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    """A whole small training; returns the digest of what would be shipped, weights and mean together."""
    torch.manual_seed(7)
    model = options.pop("model", None) or TinyModel()
    lr = options.pop("lr", 0.05)
    kind = options.pop("optimizer", "sgd")
    curve: Schedule = {"cosine": Cosine(warmup=3), "multistep": MultiStep([1, 2], warmup=3)}[
        options.pop("schedule", "cosine")
    ]
    tricks: list[Trick] = [ClipGradients(norm=1.0), *([EMA(0.9, tau=4)] if options.pop("ema", True) else [])]
    tricks += options.pop("more", [])
    groups = optim.groups(model, lr, 0.01, backbone_factor=0.1)
    optimizer = torch.optim.SGD(groups, lr, momentum=0.9) if kind == "sgd" else torch.optim.AdamW(groups, lr)
    folder = RunFolder(run)
    folder.path.mkdir(parents=True, exist_ok=True)
    if options.pop("resume", False):
        options["resume_from"] = folder
    settings = {"epochs": 3, "evaluator": noisy_evaluator, "precision": "fp32", "log": Log(quiet=True), "log_every": 2}
    result = engine.fit(
        model,
        options.pop("loader", None) or TinyLoader(),
        optimizer,
        curve,
        run=folder,
        tricks=tricks,
        **(settings | options),
    )
    digests = [fingerprint(model), *(fingerprint(trick.mean) for trick in tricks if isinstance(trick, EMA))]
    return ":".join(digests), result

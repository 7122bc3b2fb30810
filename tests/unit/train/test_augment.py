"""Transforms on the device: what a run learns from is what they made, and it is the same after a resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from torso.config import RecipeError
from torso.data.transforms.mosaic import Mosaic
from torso.data.transforms.on_device import OnDevice
from torso.recipes.recipe import Recipe
from torso.recipes.run import train
from torso.structures import Batch, Targets
from torso.train.tricks import Augment, Trick


def batch() -> Batch:
    images = (
        torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).view(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    )
    boxes = torch.tensor([[[0.0, 0, 3, 4]], [[1.0, 2, 8, 8]]])
    flags = torch.ones(2, 1, dtype=torch.bool)
    targets = Targets(boxes, torch.zeros(2, 1, dtype=torch.int64), flags, ~flags)
    eye = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    return Batch(images, targets, torch.arange(2), eye, torch.full((2, 2), 8))


@pytest.mark.part("trick/augment", "transform/on_device")
def test_it_gives_the_transform_the_batch_and_the_epoch() -> None:
    class Brighter(nn.Module):
        def forward(self, given: Batch, epoch: int) -> Batch:
            return replace(given, images=given.images + epoch)

    assert torch.equal(Augment(Brighter()).batch(batch(), 3).images, batch().images + 3)
    assert Trick().batch(given := batch(), 1) is given


@pytest.mark.part("trick/augment")
def test_a_flip_flips_pictures_and_boxes() -> None:
    done = Augment(OnDevice({"RandomHorizontalFlip": {"p": 1.0}})).batch(batch(), 0)
    assert torch.equal(done.images, batch().images.flip(-1))
    assert torch.equal(done.targets.boxes[:, 0], torch.tensor([[5.0, 0, 8, 4], [0, 2, 7, 8]]))


@pytest.mark.part("trick/augment")
def test_what_is_no_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="augment needs a layer such as on_device, got Mosaic"):
        Augment(Mosaic())  # type: ignore[arg-type]


@pytest.mark.part("trick/augment")
def test_a_recipe_augments_on_the_device(digits: Path, tmp_path: Path) -> None:
    """Two runs are alike, and unlike one without."""
    small = [
        f"data.path={digits}",
        "data.size=64",
        "data.batch=4",
        "data.workers=0",
        "train.epochs=1",
        "data.transforms=[]",
    ]
    trick = "train.tricks=[{name: augment, transform: {name: on_device, steps: {RandomHorizontalFlip: {p: 0.5}}}}]"
    weights = []
    for number, overrides in enumerate(([trick], [trick], ["train.tricks=[]"])):
        run = train("demo", [*small, "train.precision=fp32", *overrides], runs=tmp_path / str(number), quiet=True)[
            "run"
        ]
        weights.append((Path(run) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.part("trick/augment")
def test_an_unknown_step_is_told_with_its_place() -> None:
    with pytest.raises((RecipeError, ValueError), match="no transform 'Flap'"):
        Recipe.load(
            "demo", ["train.tricks=[{name: augment, transform: {name: on_device, steps: {Flap: {}}}}]"]
        ).train.build()

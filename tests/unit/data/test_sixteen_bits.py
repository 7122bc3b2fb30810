"""Scans of 16 bits: kept to the network where a recipe says so, divided by 257 otherwise (row 6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torso.config import TorsoError
from torso.data import open_index
from torso.data.decode import decode
from torso.data.loader import Loader
from torso.data.transforms import TRANSFORMS
from torso.nn.normalize import NormalizePixels
from torso.recipes.recipe import Recipe
from torso.recipes.sources import judging_loader, open_split, training_loader

SIDE = 64


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ramps of 4,096 different values, in two classes."""
    folder = tmp_path_factory.mktemp("scans")
    ramp = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 16
    for split in ("train", "val"):
        for name, values in (("up", ramp), ("down", ramp[::-1].copy())):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(values).save(place / f"{number}.png")
    return folder


def test_a_ramp_keeps_its_values_to_the_tensor(scans: Path) -> None:
    (batch,) = Loader(open_index(scans), size=(SIDE, SIDE), batch=4, bits=16).epoch(0)
    assert batch.images.dtype == torch.uint16
    assert len(batch.images[0, 0].int().unique()) == SIDE * SIDE
    normalised = NormalizePixels((0, 0, 0), (1, 1, 1))(batch.images)
    assert len(normalised[0, 0].unique()) >= 1000
    assert 0 <= normalised.min() < normalised.max() <= 1


def test_without_asking_a_value_is_divided_by_257(scans: Path) -> None:
    file = open_index(scans).file(0)
    deep = np.asarray(Image.open(file)).astype(np.float64)
    assert np.array_equal(decode(file)[..., 0], np.rint(deep / 257))
    assert np.array_equal(decode(file, bits=16)[..., 0], deep)


def test_pictures_of_8_bits_are_what_they_were_times_257(digits: Path) -> None:
    file = open_index(digits).file(0)
    assert np.array_equal(decode(file, bits=16), decode(file).astype(np.int64) * 257)


@pytest.mark.parametrize(
    "names", [["letterbox"], ["affine"], ["horizontal_flip", "color"], ["cutout"], ["rotation"], ["mosaic", "affine"]]
)
def test_views_draw_the_same_in_16_bits_as_in_8(digits: Path, names: list[str]) -> None:
    index = open_index(digits)
    transforms = [TRANSFORMS[name]() for name in names]
    shallow, deep = (
        next(Loader(index, transforms, size=(96, 96), batch=4, shuffle=True, bits=bits).epoch(0)) for bits in (8, 16)
    )
    difference = (deep.images.float() / 257 - shallow.images.float()).abs()
    assert difference.max() <= 1.5  # each is rounded in its own units
    assert torch.equal(deep.targets.boxes, shallow.targets.boxes)


def test_filters_say_that_they_want_8_bits(digits: Path) -> None:
    loader = Loader(open_index(digits), [TRANSFORMS["equalize"](p=1.0)], size=(64, 64), batch=4, bits=16)
    with pytest.raises(TorsoError, match=r"data\.bits=16: .* works on 8 bits only"):
        next(loader.epoch(0))


def test_workers_share_16_bits(scans: Path) -> None:
    index = open_index(scans)
    alone, shared = (next(Loader(index, size=(32, 32), batch=4, bits=16, workers=n).epoch(0)) for n in (0, 1))
    assert torch.equal(alone.images.int(), shared.images.int())


def test_a_recipe_trains_and_judges_on_them(scans: Path) -> None:
    words = [
        f"data.path={scans}",
        "data.bits=16",
        "data.size=32",
        "data.batch=4",
        "data.workers=0",
        "data.resize=[resize]",
    ]
    recipe = Recipe.load("classifier", ["model.backbone.model=resnet18", "data.transforms=[]", *words])
    data = recipe.data.build()
    index = open_split(data, "train")
    model = recipe.model.build(num_classes=2)
    batch = next(training_loader(data, index, 0).epoch(0))
    sum(model.losses(batch).values()).backward()
    judged = next(judging_loader(data, index).epoch(0))
    assert judged.images.dtype == torch.uint16
    assert model.eval().predict(judged.images).isfinite().all()

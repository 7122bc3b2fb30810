"""Transforms made of others, named sets, and torchvision's on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from tests.unit.data.augmented import sampled, seeded
from tests.unit.data.pictures import noise, small_index
from torso.config import RecipeError, TorsoError
from torso.data.draws import generator_of
from torso.data.loader import Loader
from torso.data.scene import mixes
from torso.data.transforms.compose import Joint, OneOf, RandomApply
from torso.data.transforms.crops import IoUCrop, RandomCrop
from torso.data.transforms.erase import RandomErasing
from torso.data.transforms.geometry import HorizontalFlip, Letterbox, Resize, VerticalFlip
from torso.data.transforms.mosaic import Mosaic
from torso.data.transforms.on_device import OnDevice
from torso.data.transforms.pixelwise import Invert, Posterize
from torso.data.transforms.presets import preset
from torso.data.views import View
from torso.recipes.recipe import Recipe
from torso.structures import Batch, Targets

VIEW = View.of((60, 44), (60, 44))
NAMES = (
    "yolo", "yolo_mosaic", "ssd", "ssdlite", "large_scale_jitter", "imagenet", "auto_augment", "rand_augment",
    "trivial_augment", "cifar",
)  # fmt: skip


@pytest.mark.part("transform/compose", "transform/joint")
def test_parts_run_in_order_and_see_the_objects() -> None:
    both = Joint([HorizontalFlip(1.0), RandomErasing(1.0, where="objects", fill=(1, 2, 3))])
    assert both.sees_boxes
    assert not Joint([HorizontalFlip()]).sees_boxes
    boxes = np.array([[2, 5, 22, 40]], float)
    canvas, found = sampled(noise(60, 44), boxes, [both], (60, 44))
    assert found.boxes.tolist() == [[38, 5, 58, 40]]
    ys, xs = np.nonzero((canvas == (1, 2, 3)).all(-1))
    assert xs.min() >= 38  # inside the object where it is after the flip
    assert xs.max() < 58
    assert ys.min() >= 5


@pytest.mark.part("transform/random_apply")
def test_all_or_none() -> None:
    parts = RandomApply([HorizontalFlip(1.0), VerticalFlip(1.0)], p=0.25)
    drawn = [np.diag(parts(VIEW, seeded(seed)).matrix).tolist() for seed in range(400)]
    assert {tuple(one) for one in drawn} == {(1, 1, 1), (-1, -1, 1)}
    assert abs(sum(one[0] == -1 for one in drawn) - 100) < 30
    assert RandomApply([Resize()], p=1.0).fits
    assert not RandomApply([Resize()], p=0.5).fits
    assert RandomApply([IoUCrop()]).sees_boxes


@pytest.mark.part("transform/one_of")
def test_one_of_several() -> None:
    parts = OneOf([HorizontalFlip(1.0), VerticalFlip(1.0), Posterize(2, 1.0)], (1.0, 2.0, 1.0))
    kinds = []
    for seed in range(400):
        view = parts(VIEW, seeded(seed))
        kinds.append((view.matrix[0, 0], view.matrix[1, 1], len(view.filters)))
    counts = [kinds.count(kind) for kind in ((-1, 1, 0), (1, -1, 0), (1, 1, 1))]
    assert sum(counts) == 400
    assert np.abs(np.array(counts) - (100, 200, 100)).max() < 35
    assert OneOf([Resize(), Letterbox()]).fits
    assert not OneOf([Resize(), Invert()]).fits
    with pytest.raises(ValueError, match="Mosaic"):
        OneOf([Mosaic()])


@pytest.mark.part("transform/preset")
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_trains(name: str, tmp_path: Path) -> None:
    index = small_index(tmp_path, 8, (48, 40))
    loader = Loader(index, [preset(name)], size=(64, 64), batch=4, seed=3, workers=0)
    batches = list(loader.epoch(0))
    assert sum(len(batch) for batch in batches) == 8
    for batch in batches:
        assert batch.images.shape[1:] == (3, 64, 64)
        sides = (batch.targets.boxes[..., 2:] - batch.targets.boxes[..., :2])[batch.targets.valid]
        assert (sides > 1).all()
        assert batch.targets.boxes.min() >= 0
        assert batch.targets.boxes.max() <= 64
    again = list(Loader(index, [preset(name)], size=(64, 64), batch=4, seed=3, workers=0).epoch(0))
    assert all(torch.equal(one.images, two.images) for one, two in zip(batches, again, strict=True))
    other = list(loader.epoch(1))
    assert not all(torch.equal(one.images, two.images) for one, two in zip(batches, other, strict=True))


@pytest.mark.part("transform/preset")
def test_presets_hold_what_their_names_say() -> None:
    names = {name: [type(part).__name__ for part in preset(name).transforms] for name in NAMES}
    assert names["ssd"] == ["Photometric", "ZoomOut", "IoUCrop", "HorizontalFlip"]
    assert names["imagenet"] == ["RandomResizedCrop", "HorizontalFlip"]
    assert "RandAugment" in names["rand_augment"]
    assert [name for name in NAMES if any(map(mixes, preset(name).transforms))] == ["yolo_mosaic"]
    assert any(isinstance(part, RandomCrop) for part in preset("cifar").transforms)


RECIPE = """
base: retinanet_lite
data:
  path: nowhere
  transforms:
    - {name: preset, of: ssd}
    - {name: random_erasing, p: 1, fill: [0, 0, 0], where: both}
    - {name: one_of, transforms: [{name: blur, p: 1}, {name: noise, kind: poisson, p: 1}], weights: [1, 3]}
    - {name: random_apply, p: 0.2, transforms: [grayscale, {name: elastic, sigma: 6}]}
    - {name: rotation, degrees: [-5, 5]}
    - {name: hide_and_seek, sizes: [0, 16]}
"""


@pytest.mark.part("transform/preset", "transform/random_apply", "transform/one_of")
def test_a_recipe_says_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    one, two, three, *_ = Recipe.load(str(path)).data.build()["transforms"]
    assert type(one.transforms[0]).__name__ == "Photometric"
    assert two.fill == (0, 0, 0)
    assert three.parts[1].kind == "poisson"
    path.write_text(RECIPE.replace("of: ssd", "of: sdd"))
    with pytest.raises(RecipeError, match=r"mine.yaml:6.*did you mean 'ssd'"):
        Recipe.load(str(path))
    path.write_text(RECIPE.replace("sigma: 6", "sigma: 1"))
    with pytest.raises(RecipeError, match=r"mine.yaml:9.*fold"):
        Recipe.load(str(path)).data.build()


def batch_of(count: int = 3) -> Batch:
    """Pictures of noise with a box, its mask and its two corners as keypoints."""
    images = torch.from_numpy(np.stack([noise(40, 30, seed) for seed in range(count)])).permute(0, 3, 1, 2)
    boxes = torch.zeros(count, 8, 4)
    boxes[:, 0] = torch.tensor([4.0, 6.0, 20.0, 18.0])
    valid = torch.zeros(count, 8, dtype=torch.bool)
    valid[:, 0] = True
    masks = torch.zeros(count, 8, 30, 40, dtype=torch.bool)
    masks[:, 0, 6:18, 4:20] = True
    keypoints = torch.zeros(count, 8, 2, 3)
    keypoints[:, 0] = torch.tensor([[4.5, 6.5, 2.0], [19.5, 17.5, 1.0]])
    targets = Targets(
        boxes=boxes,
        labels=torch.zeros(count, 8, dtype=torch.int64),
        valid=valid,
        ignore=torch.zeros_like(valid),
        masks=masks,
        keypoints=keypoints,
        segments=masks[:, 0].to(torch.uint8),
    )
    eye = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    return Batch(images, targets, torch.arange(count) + 10, eye, torch.tensor([[40, 30]] * count))


@pytest.mark.part("transform/on_device")
def test_torchvision_on_a_batch_takes_everything_along() -> None:
    batch = batch_of()
    flipped = OnDevice({"RandomHorizontalFlip": {"p": 1.0}})(batch)
    assert torch.equal(flipped.images, batch.images.flip(-1))
    assert flipped.images.is_contiguous(memory_format=torch.channels_last)
    assert flipped.targets.boxes[:, 0].tolist() == [[20, 6, 36, 18]] * 3
    assert torch.equal(flipped.targets.masks, batch.targets.masks.flip(-1))
    assert torch.equal(flipped.targets.segments, batch.targets.segments.flip(-1))
    assert flipped.targets.keypoints[0, 0].tolist() == [[35.5, 6.5, 2], [20.5, 17.5, 1]]
    turned = OnDevice({"RandomRotation": {"degrees": [180, 180]}})(batch)
    assert np.allclose(turned.targets.keypoints[0, 0], [[35.5, 23.5, 2], [20.5, 12.5, 1]], atol=1e-4)
    assert torch.equal(flipped.targets.valid, batch.targets.valid)
    assert not flipped.targets.boxes[~flipped.targets.valid].any()


@pytest.mark.part("transform/on_device")
def test_each_picture_has_its_own_seed_and_the_global_one_stays() -> None:
    state = torch.get_rng_state()
    steps = OnDevice({"ColorJitter": {"brightness": 0.5, "hue": 0.3}, "RandomRotation": {"degrees": 20.0}}, seed=5)
    batch = batch_of()
    one, two = steps(batch, epoch=1), steps(batch, epoch=1)
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, steps(batch, epoch=2).images)
    assert torch.equal(state, torch.get_rng_state())
    # By hand: the same seed before the same transforms.
    with torch.random.fork_rng():
        torch.manual_seed(generator_of(5, 1, 11).initial_seed())
        theirs = v2.Compose([v2.ColorJitter(0.5, hue=0.3), v2.RandomRotation(20.0)])(tv_tensors.Image(batch.images[1]))
    assert torch.equal(one.images[1], theirs)


@pytest.mark.part("transform/on_device")
def test_objects_that_leave_become_padding() -> None:
    moved = OnDevice({"RandomAffine": {"degrees": 0.0, "translate": [0.9, 0.9]}}, seed=1)(batch_of(12))
    gone = ~moved.targets.valid[:, 0]
    assert 0 < gone.sum() < 12
    assert not moved.targets.boxes[gone].any()
    with pytest.raises(ValueError, match="no transform 'Resise'"):
        OnDevice({"Resise": {}})
    with pytest.raises(ValueError, match="RandomRotation"):
        OnDevice({"RandomRotation": {"angle": 3.0}})
    with pytest.raises(TorsoError, match="size"):
        OnDevice({"Resize": {"size": [10, 10]}})(batch_of())

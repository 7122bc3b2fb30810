from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator
from torchvision.transforms import v2

from tests.unit.data.pictures import noise, save, small_index
from tests.unit.data.scenes import drawn, index_of, scene_of
from torso.config import TorsoError
from torso.data.builder import Builder, Object
from torso.data.draws import beta
from torso.data.index import Index
from torso.data.loader import Loader
from torso.data.samples import Samples
from torso.data.transforms import TRANSFORMS, Letterbox

SIZE = (48, 32)
MixUp, MixUpBoxes, CutMix = (TRANSFORMS[name] for name in ("mixup", "mixup_boxes", "cutmix"))


def classified(folder: Path, count: int = 6) -> Index:
    builder = Builder(folder, ("a", "b", "c"), task="classify")
    for number in range(count):
        path = save(noise(*SIZE, seed=number), folder / f"{number}.png")
        builder.image(path, SIZE, number, number % 3)
    return builder.finish()


def shares(index: Index, scene: object) -> np.ndarray:
    """The probabilities that a batch would hold."""
    found = np.zeros(len(index.classes))
    for label, share in Samples._classes(type("", (), {"index": index})(), scene):  # type: ignore[arg-type]
        found[label] += share
    return found


def theirs(mix: torch.nn.Module, share: float, one: int, two: int) -> tuple[np.ndarray, np.ndarray]:
    """torchvision's answer for the first of two pictures, with the share given."""
    images = torch.stack([torch.from_numpy(noise(*SIZE, seed=n)).permute(2, 0, 1) for n in (one, two)]).double()
    mix._dist = type("", (), {"sample": lambda *_: torch.tensor(share)})()
    images, labels = mix(images, torch.tensor([one % 3, two % 3]))
    return images[0].permute(1, 2, 0).numpy(), labels[0].numpy()


@pytest.mark.part("transform/mixup")
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mix_up_equals_torchvision(tmp_path: Path, alpha: float) -> None:
    index = classified(tmp_path)
    for seed in range(12):
        share = beta(Generator().manual_seed(seed), alpha)
        canvas, scene, _ = drawn(index, scene_of(index, 1, [Letterbox(), MixUp(alpha)], SIZE, [5], seed))
        expected, labels = theirs(v2.MixUp(alpha=alpha, num_classes=3), share, 1, 5)
        assert np.abs(canvas - expected).max() <= 1
        assert np.abs(shares(index, scene) - labels).max() < 1e-6


@pytest.mark.part("transform/cutmix")
def test_cut_mix_equals_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = classified(tmp_path)
    for seed in range(25):
        generator = Generator().manual_seed(seed)
        share = beta(generator, 1.0)
        centre = [torch.randint(side, (1,), generator=generator) for side in SIZE]
        canvas, scene, _ = drawn(index, scene_of(index, 1, [Letterbox(), CutMix()], SIZE, [5], seed))
        with monkeypatch.context() as patch:
            draws = iter(centre)
            patch.setattr(torch, "randint", lambda *_, draws=draws, **__: next(draws))
            expected, labels = theirs(v2.CutMix(num_classes=3), share, 1, 5)
        assert np.array_equal(canvas, expected)
        assert np.abs(shares(index, scene) - labels).max() < 1e-6


@pytest.mark.part("transform/mixup")
@pytest.mark.part("transform/cutmix")
def test_a_batch_of_mixed_pictures_has_probabilities(tmp_path: Path) -> None:
    index = classified(tmp_path, 12)
    for mix in (MixUp(1.0), CutMix()):
        loader = Loader(index, [mix], size=SIZE, batch=4, shuffle=True, mix_until=1)
        for batch in loader.epoch(0):
            probabilities = batch.targets.probabilities
            assert probabilities is not None
            assert probabilities.shape == (4, 3)
            assert torch.allclose(probabilities.sum(1), torch.ones(4))
            assert torch.equal(probabilities.argmax(1), batch.targets.classes)
        assert all(batch.targets.probabilities is None for batch in loader.epoch(1))


def test_the_share_follows_the_beta_distribution() -> None:
    for alpha in (0.2, 1.5):
        drawn_shares = np.array([beta(Generator().manual_seed(seed), alpha) for seed in range(3000)])
        assert abs(drawn_shares.mean() - 0.5) < 0.03
        assert abs(drawn_shares.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


@pytest.mark.part("transform/mixup_boxes")
def test_both_pictures_keep_their_objects_and_weigh_as_much_as_they_show(tmp_path: Path) -> None:
    index = small_index(tmp_path)
    for seed in range(6):
        share = beta(Generator().manual_seed(seed), 1.5)
        scene = scene_of(index, 3, [Letterbox(), MixUpBoxes()], SIZE, [6], seed)
        canvas, _, objects = drawn(index, scene)
        blend = share * noise(*SIZE, seed=3) + (1 - share) * noise(*SIZE, seed=6)
        assert np.abs(canvas - blend).max() <= 1
        assert objects.rows.tolist() == [3, 4, 5, 7, 8]
        assert np.allclose(objects.boxes, index.boxes[objects.rows])
        assert np.allclose(objects.weights, [share] * 3 + [1 - share] * 2)
        plain = drawn(index, scene_of(index, 3, [Letterbox(), MixUpBoxes(weighted=False)], SIZE, [6], seed))[2]
        assert (plain.weights == 1).all()
        assert np.array_equal(plain.boxes, objects.boxes)


@pytest.mark.part("transform/mixup_boxes")
def test_weights_of_objects_reach_the_batch(tmp_path: Path) -> None:
    index = small_index(tmp_path)
    batch = next(Loader(index, [MixUpBoxes()], size=SIZE, batch=5, seed=1).epoch(0))
    weights, present = batch.targets.weights, batch.targets.valid | batch.targets.ignore
    assert weights is not None
    assert weights.shape == batch.targets.labels.shape
    assert ((weights > 0) == present).all()
    assert (weights[present] < 1).all()
    assert next(Loader(index, [MixUpBoxes(weighted=False)], size=SIZE, batch=5).epoch(0)).targets.weights is None


def overlaid(folder: Path, boxes: list[tuple[float, float, float, float]], **mask: object) -> Index:
    """A white picture with objects, and a black one with one object all over it."""
    below = [Object(box, 0, mask=mask.get("mask")) for box in boxes]  # type: ignore[arg-type]
    above = [Object((10.0, 10.0, 90.0, 70.0), 1)]
    pictures = [np.full((80, 100, 3), value, np.uint8) for value in (255, 0)]
    return index_of(folder, pictures, [below, above])


@pytest.mark.part("transform/cutmix")
def test_objects_under_the_rectangle_shrink_to_what_is_left(tmp_path: Path) -> None:
    from torso.data.transforms.mix import overlaid as over

    boxes = [
        (30.0, 20.0, 60.0, 50.0),  # its right half is hidden: the rest is a rectangle
        (30.0, 20.0, 50.5, 30.25),  # 5.5 of 20.5 columns are hidden
        (50.0, 30.0, 70.0, 40.0),  # all hidden: dropped
        (41.0, 10.0, 70.0, 65.0),  # its middle is hidden: the box stays
        (0.0, 0.0, 20.0, 20.0),  # far away
    ]
    index = overlaid(tmp_path, boxes)
    lower, upper = (scene_of(index, row, [Letterbox()], (100, 80), []) for row in (0, 1))
    canvas, _, objects = drawn(index, over(lower, upper, (45, 15, 80, 60), classes=False))
    assert (canvas[15:60, 45:80] == 0).all()
    assert (canvas == 0).sum() == 3 * 45 * 35
    assert objects.rows.tolist() == [0, 1, 3, 4, 5]
    assert np.allclose(
        objects.boxes,
        [(30, 20, 45, 50), (30, 20, 45, 30.25), boxes[3], boxes[4], (45, 15, 80, 60)],
    )
    assert objects.labels.tolist() == [0, 0, 0, 0, 1]
    assert (objects.weights == 1).all()


@pytest.mark.part("transform/cutmix")
def test_masks_under_the_rectangle_lose_what_is_hidden(tmp_path: Path) -> None:
    from torso.data.transforms.mix import overlaid as over

    triangle = [[20.0, 20.0, 60.0, 20.0, 20.0, 60.0]]
    index = overlaid(tmp_path, [(20.0, 20.0, 60.0, 60.0)], mask=triangle)
    lower, upper = (scene_of(index, row, [Letterbox()], (100, 80), []) for row in (0, 1))
    whole = drawn(index, lower, mask_stride=1)[2]
    _, _, objects = drawn(index, over(lower, upper, (20, 10, 80, 40), classes=False), mask_stride=1)
    assert objects.masks is not None
    assert whole.masks is not None
    expected = whole.masks[0].copy()
    expected[10:40, 20:80] = False
    assert np.array_equal(objects.masks[0], expected)
    # What is left of the triangle is narrower than what was hidden.
    right = np.flatnonzero(expected.any(0))[-1] + 1
    assert np.abs(objects.boxes[0] - (20, 40, right, 60)).max() <= 1
    assert objects.masks[1].sum() == 60 * 30


def test_canvases_of_different_sizes_are_explained(tmp_path: Path) -> None:
    pictures = [noise(*SIZE), noise(40, 40)]
    index = index_of(tmp_path, pictures, [[], []])
    for name in ("mixup", "mixup_boxes", "cutmix"):
        with pytest.raises(TorsoError, match=f"{name} mixes canvases of one size.*put it after what fits the canvas"):
            scene_of(index, 0, [TRANSFORMS[name]()], SIZE, [1])


@pytest.mark.parametrize("name", ["mixup", "mixup_boxes", "cutmix", "copy_paste", "small_object_copy_paste", "mosaic"])
def test_a_probability_of_nothing_changes_nothing(tmp_path: Path, name: str) -> None:
    index = small_index(tmp_path)
    transforms = [Letterbox(), TRANSFORMS[name](p=0.0)]
    one, two = (drawn(index, scene_of(index, 3, steps, SIZE, []))[0] for steps in (transforms, transforms[:1]))
    assert np.array_equal(one, two)

"""AutoAugment, RandAugment and TrivialAugment against torchvision's tables and functions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from tests.unit.data.augmented import BOXES, apart, painted, pixels_of, plain, sampled, seeded, tensor
from tests.unit.data.pictures import noise, smooth
from torso.data.transforms import policies
from torso.data.transforms.policies import (
    OPERATIONS,
    SIGNED,
    SPACE,
    WIDE,
    AutoAugment,
    RandAugment,
    TrivialAugment,
    magnitude,
)
from torso.data.transforms.policies_learned import LEARNED
from torso.data.views import View, move

SIZE = (61, 40)
GEOMETRIC = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}


@pytest.mark.part("transform/auto_augment", "transform/rand_augment", "transform/trivial_augment")
@pytest.mark.parametrize(
    ("theirs", "space", "bins"),
    [
        (v2.AutoAugment._AUGMENTATION_SPACE, SPACE, 10),
        (v2.RandAugment._AUGMENTATION_SPACE, SPACE, 31),
        (v2.TrivialAugmentWide._AUGMENTATION_SPACE, WIDE, 31),
    ],
    ids=["auto", "rand", "trivial"],
)
def test_strengths_are_those_of_torchvision(theirs: dict, space: dict, bins: int) -> None:
    assert set(theirs) <= set(OPERATIONS)
    for name, (magnitudes, signed) in theirs.items():
        assert (name in SIGNED) == signed
        table = magnitudes(bins, SIZE[1], SIZE[0])
        expected = [0.0] * bins if table is None else table.tolist()
        ours = [magnitude(name, step, bins, SIZE, space) for step in range(bins)]
        assert np.allclose(ours, expected, atol=1e-4), name


@pytest.mark.part("transform/auto_augment")
@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_learned_pairs_are_those_of_torchvision(policy: str) -> None:
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy(policy))._policies
    assert [[(name, p, step or 0) for name, p, step in pair] for pair in theirs] == [
        list(pair) for pair in LEARNED[policy]
    ]


@pytest.mark.part("transform/auto_augment", "transform/rand_augment", "transform/trivial_augment")
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_one_operation_equals_torchvision(name: str) -> None:
    their = v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR, fill=0)
    for pixels in (smooth(*SIZE), noise(*SIZE)):
        for sign in (1, -1) if name in SIGNED else (1,):
            for step in (3, 8):
                strength = sign * magnitude(name, step, 10, SIZE, SPACE)
                view = OPERATIONS[name](plain(pixels), strength)
                expected = their._apply_image_or_video_transform(
                    tensor(pixels), name, strength, v2.InterpolationMode.BILINEAR, their._fill
                )
                compared = painted(np.full_like(pixels, 255), plain(pixels).then(view.matrix)).min(-1) == 255
                assert compared.mean() > 0.4
                assert apart(painted(pixels, view), pixels_of(expected))[compared].max() <= 1, (name, strength)
                assert (not np.array_equal(view.matrix, np.eye(3))) == (name in GEOMETRIC)


@pytest.mark.part("transform/rand_augment")
def test_boxes_follow_the_geometric_operations() -> None:
    for name in GEOMETRIC:
        strength = magnitude(name, 9, 10, SIZE, SPACE)
        view = OPERATIONS[name](View.of(SIZE, SIZE), strength)
        moved = move(BOXES, view.matrix)
        assert np.abs(moved - BOXES).max() > 2
    assert np.allclose(move(BOXES, OPERATIONS["TranslateX"](View.of(SIZE, SIZE), 7.9).matrix) - BOXES, [7, 0, 7, 0])


def counted(transform: object, monkeypatch: pytest.MonkeyPatch, draws: int) -> tuple[Counter, list[tuple[str, float]]]:
    """How often each operation came, and with what strengths."""
    called: list[tuple[str, float]] = []

    def noted(name: str) -> object:
        return lambda view, x: (called.append((name, x)), view)[1]

    monkeypatch.setattr(policies, "OPERATIONS", {name: noted(name) for name in OPERATIONS})
    for seed in range(draws):
        transform(View.of(SIZE, SIZE), seeded(seed))
    return Counter(name for name, _ in called), called


@pytest.mark.part("transform/rand_augment")
def test_rand_augment_draws_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, called = counted(RandAugment(2, 9), monkeypatch, 700)
    assert sum(counts.values()) == 1400
    assert set(counts) == set(v2.RandAugment._AUGMENTATION_SPACE)
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    angles = [x for name, x in called if name == "Rotate"]
    assert set(np.round(angles, 6)) == {-9.0, 9.0}
    assert stats.binomtest(sum(angle > 0 for angle in angles), len(angles), 0.5).pvalue > 0.001
    assert {x for name, x in called if name == "Posterize"} == {7.0}


@pytest.mark.part("transform/trivial_augment")
def test_trivial_augment_draws_one_of_any_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, called = counted(TrivialAugment(), monkeypatch, 1400)
    assert sum(counts.values()) == 1400
    assert set(counts) == set(v2.TrivialAugmentWide._AUGMENTATION_SPACE)
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    angles = np.array([x for name, x in called if name == "Rotate"])
    assert len(set(np.round(angles, 3))) > 30
    assert 100 < np.abs(angles).max() <= 135


@pytest.mark.part("transform/auto_augment")
def test_auto_augment_takes_each_pair_with_its_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, _ = counted(AutoAugment("svhn"), monkeypatch, 1000)
    expected: Counter = Counter()
    for pair in LEARNED["svhn"]:
        for name, p, _ in pair:
            expected[name] += p / len(LEARNED["svhn"]) * 1000
    for name, count in expected.items():
        assert abs(counts[name] - count) < 5 * np.sqrt(count), name


@pytest.mark.part("transform/auto_augment", "transform/rand_augment", "transform/trivial_augment")
def test_policies_run_on_pictures_with_objects() -> None:
    pixels = noise(*SIZE)
    for transform in (AutoAugment(fill=128), RandAugment(fill=128), TrivialAugment(fill=128)):
        shown = [sampled(pixels, BOXES, [transform], SIZE, seed) for seed in range(30)]
        assert all(canvas.shape == (SIZE[1], SIZE[0], 3) for canvas, _ in shown)
        assert len({canvas.tobytes() for canvas, _ in shown}) > 15
        assert len({found.boxes.tobytes() for _, found in shown}) > 5
    assert torch.get_rng_state() is not None

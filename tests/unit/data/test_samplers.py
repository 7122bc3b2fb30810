"""Samplers: pure functions, of constant length, with the properties of the libraries' own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.utils import data as peer

from torso.config import DataError, RecipeError, Spec, spec
from torso.data.builder import Builder, Object
from torso.data.draws import generator_of
from torso.data.index import Index
from torso.data.samplers import SAMPLERS, Random, Sequential, Subset, Weighted
from torso.data.samplers.presence import Presence, repeated, whole
from torso.data.samplers.sampler import drawn

OPTIONS: dict[str, dict[str, Any]] = {"weighted": {"weights": {"a": 3.0, "c": 0.5}}}
SIZED = ("batch", "aspect_ratio", "distributed")


def labelled(counts: list[int]) -> Index:
    """A classification index with so many pictures of classes a, b, c, ..."""
    builder = Builder(Path("/data"), tuple("abcdefgh"[: len(counts)]), task="classify")
    for label, count in enumerate(counts):
        for number in range(count):
            builder.image(Path(f"/data/{label}/{number}.png"), (40 + number % 30, 50), f"{label}/{number}", label)
    return builder.finish()


def boxed(pictures: list[list[int]], **flags: bool) -> Index:
    """A detection index whose pictures show these classes."""
    builder = Builder(Path("/data"), tuple("abcdefgh"))
    for number, labels in enumerate(pictures):
        path = Path(f"/data/{number}.png")
        builder.image(path, (30 + number % 40, 50), number)
        builder.objects([Object((k, 0, k + 5, 9), label, **flags) for k, label in enumerate(labels)], path)
    return builder.finish()


def made(name: str, index: Index, **options: Any) -> Any:
    sized = {"batch_size": 4} if name in SIZED else {}
    return SAMPLERS[name](index, **OPTIONS.get(name, {}), **sized, **options)


@pytest.mark.part(
    "sampler/sequential", "sampler/random", "sampler/subset", "sampler/weighted", "sampler/over", "sampler/under",
    "sampler/class_balanced", "sampler/repeat_factor", "sampler/aspect_ratio", "sampler/batch", "sampler/distributed",
)  # fmt: skip
@pytest.mark.parametrize("index", [labelled([9, 4, 2]), boxed([[0], [0, 1], [0, 0, 2], [], [2], [0]])])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_sampler_is_a_pure_function_of_seed_and_epoch(name: str, index: Index) -> None:
    one, two = made(name, index), made(name, index)
    before = torch.get_rng_state()
    late = one.rows(3, 7)  # asked for out of turn, as a resumed run does
    for epoch in range(12):
        rows = two.rows(3, epoch)
        assert rows.dtype == np.int64
        assert rows.shape == (len(two),)
        assert 0 <= rows.min() <= rows.max() < len(index)
        assert np.array_equal(rows, one.rows(3, epoch))
    assert np.array_equal(late, two.rows(3, 7))
    assert torch.equal(before, torch.get_rng_state())
    changing = [two.rows(3, 0).tolist() != other.tolist() for other in (two.rows(3, 1), two.rows(4, 0))]
    assert changing == ([False] * 2 if name == "sequential" else [True] * 2)


def test_what_a_caller_does_with_the_rows_changes_nothing() -> None:
    index = labelled([9, 4, 2])
    for name in SAMPLERS:
        sampler = made(name, index)
        first = sampler.rows(0, 0)
        kept = first.copy()
        first[:] = -1
        assert np.array_equal(sampler.rows(0, 0), kept), name


@pytest.mark.part("sampler/sequential")
def test_sequential_is_torchs() -> None:
    index = labelled([3, 4])
    assert Sequential(index).rows(1, 2).tolist() == list(peer.SequentialSampler(range(len(index))))


@pytest.mark.part("sampler/random")
@pytest.mark.parametrize("num_samples", [None, 3, 11, 22, 25])
def test_a_random_order_is_torchs_from_the_same_generator(num_samples: int | None) -> None:
    index = labelled([5, 6])
    sampler = Random(index, num_samples=num_samples)
    for epoch in range(5):
        theirs = peer.RandomSampler(range(11), num_samples=num_samples, generator=drawn(7, epoch))
        assert sampler.rows(7, epoch).tolist() == list(theirs)
    assert np.array_equal(Random(index).rows(7, 2), torch.randperm(11, generator=generator_of(7, 2, -1)).numpy())


@pytest.mark.part("sampler/random")
def test_with_replacement_every_picture_is_as_likely_as_any() -> None:
    sampler = Random(labelled([8]), replacement=True, num_samples=4000)
    rows = sampler.rows(0, 0)
    theirs = list(peer.RandomSampler(range(8), replacement=True, num_samples=4000, generator=drawn(0, 0)))
    assert chisquare(np.bincount(rows, minlength=8)).pvalue > 0.01
    assert chisquare(np.bincount(theirs, minlength=8)).pvalue > 0.01
    assert len(set(Random(labelled([8]), replacement=True).rows(0, 0).tolist())) < 8


@pytest.mark.part("sampler/random")
def test_every_order_of_four_is_as_likely_as_any() -> None:
    sampler = Random(labelled([4]))
    found = [tuple(sampler.rows(5, epoch).tolist()) for epoch in range(2400)]
    counts = [found.count(one) for one in set(found)]
    assert len(counts) == 24
    assert chisquare(counts).pvalue > 0.01


@pytest.mark.part("sampler/subset")
def test_a_subset_is_torchs_from_the_same_generator() -> None:
    index, rows = labelled([20]), [3, 17, 4, 4, 11]
    for epoch in range(5):
        theirs = list(peer.SubsetRandomSampler(rows, generator=drawn(2, epoch)))
        assert Subset(index, rows=rows).rows(2, epoch).tolist() == theirs
    assert Subset(index, rows=rows, shuffle=False).rows(2, 0).tolist() == rows


@pytest.mark.part("sampler/subset")
def test_a_fraction_is_the_same_pictures_in_every_epoch_and_run() -> None:
    index = labelled([40])
    chosen = {tuple(sorted(Subset(index, fraction=0.3).rows(seed, epoch))) for seed in (0, 1) for epoch in (0, 1)}
    (only,) = chosen
    assert len(set(only)) == 12
    assert tuple(sorted(Subset(index, fraction=0.3, choice=1).rows(0, 0))) != only
    assert len(Subset(index)) == 40


@pytest.mark.part("sampler/weighted")
@pytest.mark.parametrize("replacement", [True, False])
def test_weighted_is_torchs_from_the_same_generator(replacement: bool) -> None:
    index, weights = labelled([5]), [0.1, 5.0, 0.0, 1.0, 2.0]
    sampler = Weighted(index, weights, num_samples=4, replacement=replacement)
    for epoch in range(20):
        theirs = peer.WeightedRandomSampler(weights, 4, replacement, generator=drawn(0, epoch))
        rows = sampler.rows(0, epoch).tolist()
        assert rows == list(theirs)
        assert 2 not in rows


@pytest.mark.part("sampler/weighted")
def test_weights_of_classes_are_probabilities() -> None:
    index = labelled([6, 2, 4])
    sampler = Weighted(index, {"b": 4.0, "c": 0.5}, num_samples=3200)
    counts = np.bincount(sampler.rows(0, 0), minlength=12)
    expected = np.array([1.0] * 6 + [4.0] * 2 + [0.5] * 4)
    assert chisquare(counts, expected / expected.sum() * 3200).pvalue > 0.01


@pytest.mark.part("sampler/weighted")
def test_the_largest_weight_of_the_classes_on_a_picture_counts() -> None:
    index = boxed([[0, 1], [1], [], [2]])
    weights = Weighted(index, {"a": 7.0, "b": 3.0})._weights
    assert weights.tolist() == [7.0, 3.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("random", {"num_samples": 0}, "num_samples: expected at least 1, came 0"),
        ("subset", {"rows": [1, 99]}, r"rows: expected some of 0\.\.6, came 1\.\.99"),
        ("subset", {"rows": []}, "came none"),
        ("subset", {"fraction": 0}, "fraction: expected more than 0"),
        ("weighted", {"weights": [1.0]}, "expected one for each of 7 pictures, came 1"),
        ("weighted", {"weights": [0.0] * 7}, "not all of them 0"),
        ("weighted", {"weights": [-1.0] * 7}, "from 0 up"),
        ("weighted", {"weights": {"aa": 1.0}}, "there is no class 'aa'; did you mean 'a'"),
        ("weighted", {"weights": [1.0] * 3 + [0.0] * 4, "replacement": False}, "at most the 3 pictures with a weight"),
        ("over", {"ratio": 1.5}, "ratio: expected more than 0 and at most 1, came 1.5"),
        ("under", {"ratio": 0}, "ratio: expected"),
        ("class_balanced", {"beta": 2}, "beta: expected 0 to 1"),
        ("repeat_factor", {"threshold": 0}, "threshold: expected"),
        ("aspect_ratio", {"batch_size": 4, "edges": [2.0, 1.0]}, "edges: expected rising numbers"),
        ("aspect_ratio", {"batch_size": 0}, "batch_size: expected at least 1"),
        ("batch", {"batch_size": 0}, "batch_size: expected at least 1"),
        ("batch", {"batch_size": 8}, "a full batch of 8 needs as many pictures, there are 7"),
        ("distributed", {"batch_size": 4, "rank": 2, "world_size": 2}, r"rank: expected 0\.\.1, came 2"),
        ("distributed", {"batch_size": 4, "world_size": 2, "drop_last": True}, "a step of 8 needs as many"),
    ],
)
def test_a_wrong_option_is_explained(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SAMPLERS[name](labelled([4, 3]), **options)


@pytest.mark.parametrize("name", ["over", "under", "class_balanced", "repeat_factor"])
@pytest.mark.parametrize("index", [boxed([[], []]), boxed([[0], [1]], difficult=True)])
def test_without_labels_there_is_nothing_to_balance(name: str, index: Index) -> None:
    with pytest.raises(DataError, match="use sampler=random"):
        SAMPLERS[name](index)


def built(tree: Any, **wired: Any) -> Any:
    found: Spec = spec("sampler", tree, "recipe:1")
    return found.build(**{"index": labelled([9, 4, 2]), "batch_size": 4} | wired)


def test_a_recipe_names_samplers_and_what_they_wrap() -> None:
    index = labelled([9, 4, 2])
    for name in SAMPLERS:
        ours = built({"name": name} | OPTIONS.get(name, {}))
        assert np.array_equal(ours.rows(0, 1), made(name, index).rows(0, 1)), name
    nested = built(
        {"name": "aspect_ratio", "edges": [1.0], "sampler": {"name": "repeat_factor", "threshold": 0.9}}, index=index
    )
    maker = partial(SAMPLERS["repeat_factor"], threshold=0.9)
    assert np.array_equal(nested.rows(0, 0), SAMPLERS["aspect_ratio"](index, maker, batch_size=4).rows(0, 0))
    deep = built({"name": "distributed", "world_size": 2, "sampler": {"name": "batch", "last": "fill"}}, index=index)
    assert deep.sampler.batch_size == 8


def test_a_recipe_cannot_type_what_the_data_say() -> None:
    for key in ("index", "batch_size"):
        with pytest.raises(RecipeError, match="decided by the other parts"):
            built({"name": "batch", key: 3})
    with pytest.raises(RecipeError, match=r"recipe:1: sampler.*threshold: expected more than 0"):
        built({"name": "repeat_factor", "threshold": -1})


@given(st.lists(st.floats(0, 5), min_size=1, max_size=30), st.integers(0, 50))
def test_rounding_at_random_keeps_the_sum(expected: list[float], seed: int) -> None:
    values = np.array(expected)
    numbers = whole(values, drawn(seed, 0))
    parts = values - np.floor(values)
    assert numbers.sum() == np.floor(values).sum() + round(float(parts.sum()))
    assert ((numbers == np.floor(values)) | (numbers == np.floor(values) + 1)).all()


def test_rounding_at_random_is_right_on_average() -> None:
    expected = np.array([0.1, 0.25, 1.9, 2.0, 0.75, 3.4, 0.6])  # 9 in all
    means = np.mean([whole(expected, drawn(0, epoch)) for epoch in range(4000)], axis=0)
    assert means == pytest.approx(expected, abs=0.03)
    assert whole(np.zeros(3), drawn(0, 0)).tolist() == [0, 0, 0]


@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 9))
def test_repeats_are_even(members: int, count: int, seed: int) -> None:
    counts = np.bincount(repeated(np.arange(members), count, drawn(seed, 0)), minlength=members)
    assert counts.sum() == count
    assert counts.max() - counts.min() <= 1


def test_a_class_is_counted_once_a_picture_and_only_where_it_is_learned() -> None:
    presence = Presence.of(boxed([[0, 0, 1], [0], [], [2, 1, 0]]))
    assert presence.counts.tolist() == [3, 2, 1, 0, 0, 0, 0, 0]
    assert list(zip(presence.rows.tolist(), presence.labels.tolist(), strict=True)) == [
        (0, 0), (0, 1), (1, 0), (3, 0), (3, 1), (3, 2),
    ]  # fmt: skip
    assert presence.rarest(4).tolist() == [1, 0, -1, 2]
    assert Presence.of(boxed([[3]] * 2 + [[4]])).rarest(3).tolist() == [3, 3, 4]

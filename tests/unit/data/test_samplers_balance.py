"""Samplers that look at classes, against imbalanced-learn and the formula of the paper."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from tests.unit.data.test_samplers import boxed, labelled
from torso.data.index import Index
from torso.data.samplers import AspectRatio, Batches, ClassBalanced, Over, Random, RepeatFactor, Sequential, Under

LONG_TAIL = [40, 12, 5, 1]


def shown(index: Index, rows: np.ndarray) -> list[int]:
    assert index.image_labels is not None
    return np.bincount(index.image_labels[rows], minlength=len(index.classes)).tolist()


def imbalanced(name: str, labels: np.ndarray, **options: object) -> list[int]:
    """What imbalanced-learn makes of the same classes."""
    pytest.importorskip("imblearn", reason="needs imbalanced-learn: pip install torso[classic]")

    import imblearn.over_sampling
    import imblearn.under_sampling

    module = imblearn.over_sampling if "Over" in name else imblearn.under_sampling
    sampler = getattr(module, name)(random_state=0, **options)
    resampled = sampler.fit_resample(np.arange(len(labels))[:, None], labels)[1]
    return np.bincount(resampled).tolist()


@pytest.mark.part("sampler/over", "sampler/under")
@pytest.mark.parametrize("counts", [LONG_TAIL, [7, 7, 7], [3, 9]])
def test_classes_are_as_many_as_imbalanced_learn_makes_them(counts: list[int]) -> None:
    index = labelled(counts)
    assert index.image_labels is not None
    over, under = Over(index), Under(index)
    for epoch in range(3):
        assert shown(index, over.rows(0, epoch)) == imbalanced("RandomOverSampler", index.image_labels)
        assert shown(index, under.rows(0, epoch)) == imbalanced("RandomUnderSampler", index.image_labels)


@pytest.mark.part("sampler/over", "sampler/under")
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
def test_a_ratio_of_two_classes_is_imbalanced_learns_strategy(ratio: float) -> None:
    index = labelled([40, 10])
    assert index.image_labels is not None
    for ours, name in ((Over, "RandomOverSampler"), (Under, "RandomUnderSampler")):
        theirs = imbalanced(name, index.image_labels, sampling_strategy=ratio)
        assert shown(index, ours(index, ratio=ratio).rows(0, 0)) == pytest.approx(theirs, abs=0.5)


@pytest.mark.part("sampler/over")
def test_over_sampling_leaves_no_picture_out_and_repeats_evenly() -> None:
    index = labelled(LONG_TAIL)
    counts = np.bincount(Over(index).rows(0, 0), minlength=len(index))
    assert counts.min() == 1
    assert counts[52:57].tolist() == [8] * 5
    assert set(counts[40:52].tolist()) == {3, 4}
    assert counts[57] == 40


@pytest.mark.part("sampler/under")
def test_under_sampling_sees_everything_in_time() -> None:
    index = labelled([30, 3])
    sampler = Under(index)
    seen = [sampler.rows(0, epoch) for epoch in range(200)]
    assert all(len(set(rows.tolist())) == len(rows) == 6 for rows in seen)
    counts = np.bincount(np.concatenate(seen), minlength=33)
    assert counts[30:].tolist() == [200] * 3
    assert chisquare(counts[:30]).pvalue > 0.01


@pytest.mark.part("sampler/over", "sampler/under")
def test_pictures_with_boxes_count_for_the_rarest_class_on_them() -> None:
    # a on 6 pictures, b on 3, c on 1: groups of 3 (a alone), 2 (b) and 1 (c), and two empty pictures.
    index = boxed([[0], [0], [0], [0, 1], [0, 1], [0, 1, 2], [], []])
    over = np.bincount(Over(index).rows(0, 0), minlength=8)
    assert [over[:3].sum(), over[3:5].sum(), over[5]] == [3, 3, 3]
    assert over[6:].tolist() == [1, 1]
    under = np.bincount(Under(index).rows(0, 0), minlength=8)
    assert [under[:3].sum(), under[3:5].sum(), under[5], under[6:].sum()] == [1, 1, 1, 1]


@pytest.mark.part("sampler/class_balanced")
def test_every_class_is_asked_for_equally_often() -> None:
    index = labelled(LONG_TAIL)
    rows = ClassBalanced(index, num_samples=400).rows(0, 0)
    assert shown(index, rows) == [100] * 4
    counts = np.bincount(rows, minlength=len(index))
    for first, last in ((0, 40), (40, 52), (52, 57)):
        assert counts[first:last].max() - counts[first:last].min() <= 1
    uneven = [shown(index, ClassBalanced(index, num_samples=10).rows(0, epoch)) for epoch in range(400)]
    assert all(sum(counts) == 10 and set(counts) == {2, 3} for counts in uneven)
    assert np.mean(uneven, axis=0) == pytest.approx([2.5] * 4, abs=0.1)


@pytest.mark.part("sampler/class_balanced")
def test_beta_leads_from_the_classes_own_shares_to_equal_ones() -> None:
    index = labelled([60, 30, 10])
    assert shown(index, ClassBalanced(index, beta=0).rows(0, 0)) == [60, 30, 10]
    # The effective number of n samples is (1 - beta^n) / (1 - beta); a picture weighs its inverse.
    beta, counts = 0.9, np.array([60, 30, 10])
    weight = (1 - beta) / (1 - beta**counts)
    expected = 6000 * counts * weight / (counts * weight).sum()
    found = shown(index, ClassBalanced(index, num_samples=6000, beta=beta).rows(0, 0))
    assert found == pytest.approx(expected, abs=1)


@pytest.mark.part("sampler/class_balanced")
def test_a_picture_comes_for_each_of_its_classes() -> None:
    index = boxed([[0], [0], [0, 1], []])
    rows = Counter(ClassBalanced(index, num_samples=600).rows(0, 0).tolist())
    assert rows == {0: 100, 1: 100, 2: 400}


@pytest.mark.part("sampler/repeat_factor")
def test_factors_are_those_of_the_paper() -> None:
    pictures = [[0]] * 88 + [[0, 1]] * 8 + [[2, 0]] * 2 + [[]] * 2  # of 100: a on 98, b on 8, c on 2
    index = boxed(pictures)
    factors = RepeatFactor(index, threshold=0.32).factors
    expected = [1.0] * 88 + [np.sqrt(0.32 / 0.08)] * 8 + [np.sqrt(0.32 / 0.02)] * 2 + [1.0] * 2
    assert factors == pytest.approx(expected)
    counts = np.bincount(RepeatFactor(index, threshold=0.32).rows(0, 0), minlength=100)
    assert counts.tolist() == [1] * 88 + [2] * 8 + [4] * 2 + [1] * 2
    assert RepeatFactor(index).factors.tolist() == [1.0] * 100


@pytest.mark.part("sampler/repeat_factor")
def test_pictures_come_as_often_as_their_factor_on_average_in_epochs_of_one_length() -> None:
    index = boxed([[0]] * 30 + [[1, 0]] * 5 + [[2]] * 1)
    sampler = RepeatFactor(index, threshold=0.4)
    epochs = [sampler.rows(1, epoch) for epoch in range(3000)]
    assert {len(rows) for rows in epochs} == {len(sampler)} == {round(sampler.factors.sum())}
    means = np.bincount(np.concatenate(epochs), minlength=36) / len(epochs)
    # Five pictures at 1.69 and one at 3.79 make 4.24 extra ones: four, shared in proportion.
    extra = sampler.factors - np.floor(sampler.factors)
    assert means == pytest.approx(np.floor(sampler.factors) + extra * (4 / extra.sum()), abs=0.03)
    first = np.bincount(epochs[0], minlength=36)
    assert ((first == np.floor(sampler.factors)) | (first == np.floor(sampler.factors) + 1)).all()


@pytest.mark.part("sampler/aspect_ratio")
def test_batches_hold_pictures_of_similar_shape() -> None:
    index = labelled([30, 23])  # 40..69 wide, 50 high
    sampler = AspectRatio(index, batch_size=4, edges=[1.0, 1.2])
    ratios = index.sizes[:, 0] / index.sizes[:, 1]
    group = np.digitize(ratios, [1.0, 1.2])
    full = sum(np.bincount(group) // 4)
    for epoch in range(5):
        rows = sampler.rows(0, epoch)
        assert sorted(rows.tolist()) == list(range(53))
        batches = np.split(rows, range(4, 53, 4))
        assert all(len(set(group[batch])) == 1 for batch in batches[:full])
        rest = np.concatenate(batches[full:])
        assert (np.diff(ratios[rest]) >= 0).all()
        assert len(set(group[batches[0]]) | set(group[batches[1]]) | set(group[batches[2]])) > 1 or epoch


@pytest.mark.part("sampler/aspect_ratio")
def test_a_batch_comes_when_its_group_is_complete() -> None:
    index = labelled([12])  # 40..51 wide: the last two are wide
    rows = AspectRatio(index, Sequential, batch_size=2, edges=[0.84, 1.0]).rows(0, 0)
    assert rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    mixed = AspectRatio(index.select([0, 11, 1, 10, 2, 9, 3]), Sequential, batch_size=2).rows(0, 0)
    assert mixed.tolist() == [0, 2, 1, 3, 4, 5, 6] or mixed.tolist() == [0, 2, 1, 3, 4, 6, 5]


@pytest.mark.part("sampler/batch")
@pytest.mark.parametrize("last", ["drop", "keep"])
def test_batches_are_torchs(last: str) -> None:
    from torch.utils.data import BatchSampler

    index = labelled([11])
    ours = Batches(index, Random, batch_size=4, last=last)  # type: ignore[arg-type]
    for epoch in range(3):
        theirs = list(BatchSampler(Random(index).rows(0, epoch).tolist(), 4, drop_last=last == "drop"))
        assert [batch.tolist() for batch in ours.batches(0, epoch)] == theirs
        assert ours.rows(0, epoch).tolist() == [row for batch in theirs for row in batch]


@pytest.mark.part("sampler/batch")
def test_a_last_batch_of_one_is_dropped_or_filled_from_the_start() -> None:
    index = labelled([9])
    dropped, filled = (Batches(index, batch_size=4, last=last) for last in ("drop", "fill"))  # type: ignore[arg-type]
    assert [len(batch) for batch in dropped.batches(0, 0)] == [4, 4]
    rows = filled.rows(0, 0).tolist()
    assert [len(batch) for batch in filled.batches(0, 0)] == [4, 4, 4]
    assert rows[9:] == rows[:3]
    assert len(Batches(labelled([3]), batch_size=8, last="fill")) == 8
    assert [len(batch) for batch in Batches(index, batch_size=3).batches(0, 0)] == [3, 3, 3]

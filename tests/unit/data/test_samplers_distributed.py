"""Shares of an epoch: equal steps on each rank, the same pictures a step as one process, and exact resume."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.data.test_samplers import boxed, labelled
from torso.data.samplers import AspectRatio, Distributed, Random, RepeatFactor, Sampler, Sequential, Shares, Under

COUNTS = st.integers(1, 60)
WORLDS = st.integers(1, 5)
SIZES = st.integers(1, 7)


def steps_of(count: int, batch: int, world: int, drop_last: bool) -> list[list[list[int]]]:
    """The positions of each step on each rank."""
    shares = [Shares(count, batch, rank, world, drop_last) for rank in range(world)]
    assert len({share.steps for share in shares}) == 1
    return [[list(share.positions(step)) for share in shares] for step in range(shares[0].steps)]


@pytest.mark.part("sampler/distributed")
@given(COUNTS, SIZES, WORLDS, st.booleans())
def test_ranks_see_in_a_step_what_one_process_sees(count: int, batch: int, world: int, drop_last: bool) -> None:
    alone = steps_of(count, batch * world, 1, drop_last)
    together = steps_of(count, batch, world, drop_last)
    assert len(alone) == len(together)
    for (one,), ranks in zip(alone, together, strict=True):
        assert len({len(rank) for rank in ranks}) == 1
        assert len(ranks[0]) >= 1
        flat = [position for rank in ranks for position in rank]
        assert flat[: len(one)] == one
        assert len(flat) - len(one) < world
        assert all(position >= count for position in flat[len(one) :])


@pytest.mark.part("sampler/distributed")
@given(COUNTS, SIZES, WORLDS)
def test_repeats_are_known_and_leaving_them_out_leaves_each_picture_once(count: int, batch: int, world: int) -> None:
    index = labelled([count])
    kept: list[int] = []
    for rank in range(world):
        share = Distributed(index, batch_size=batch, rank=rank, world_size=world)
        assert share.repeated.shape == (len(share),)
        assert share.repeated.sum() == share.shares.repeats
        assert not share.repeated[: len(share) - share.shares.repeats].any()
        kept += share.rows(0, 3)[~share.repeated].tolist()
    assert sorted(kept) == list(range(count))


def test_repeats_come_from_the_start_as_torchs_do() -> None:
    from torch.utils.data import DistributedSampler

    index = labelled([11])
    ours = [Distributed(index, Sequential, batch_size=1, rank=rank, world_size=4).rows(0, 0) for rank in range(4)]
    theirs = [list(DistributedSampler(range(11), 4, rank, shuffle=False)) for rank in range(4)]
    assert [rows.tolist() for rows in ours] == theirs
    dropped = [list(DistributedSampler(range(11), 4, rank, shuffle=False, drop_last=True)) for rank in range(4)]
    for rank in range(4):
        share = Distributed(index, Sequential, batch_size=1, rank=rank, world_size=4, drop_last=True)
        assert share.rows(0, 0).tolist() == dropped[rank]


def test_a_last_step_of_one_picture() -> None:
    """Nine pictures, four a step: dropped, or one on each rank and not a rank without any."""
    assert [len(one) for one in steps_of(9, 2, 2, True)[-1]] == [2, 2]
    assert steps_of(9, 2, 2, False)[-1] == [[8], [9]]
    assert steps_of(9, 4, 1, False)[-1] == [[8]]
    assert steps_of(9, 4, 1, True)[-1] == [[4, 5, 6, 7]]
    assert steps_of(2, 1, 5, False) == [[[0], [1], [2], [3], [4]]]


def samplers() -> list[Sampler]:
    index = boxed([[0]] * 23 + [[0, 1]] * 4 + [[2]] * 2 + [[]] * 2)
    return [
        Random(index),
        Random(index, replacement=True),
        RepeatFactor(index, threshold=0.3),
        Under(index),
        AspectRatio(index, partial(RepeatFactor, threshold=0.3), batch_size=6),
    ]


@pytest.mark.part("sampler/distributed")
@pytest.mark.parametrize("sampler", samplers(), ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_crash_and_a_resume_at_any_step_lose_and_repeat_nothing(sampler: Sampler, world: int) -> None:
    def seen(epoch: int, rank: int, first: int, last: int | None = None) -> list[tuple[int, int]]:
        share = Shares(len(sampler), 6 // world, rank, world)
        rows = sampler.rows(11, epoch)
        steps = range(first, share.steps if last is None else last)
        return [(epoch, int(rows[at % len(rows)])) for step in steps for at in share.positions(step)]

    steps = Shares(len(sampler), 6 // world, 0, world).steps
    for rank in range(world):
        straight = seen(0, rank, 0) + seen(1, rank, 0)
        for stop in range(2 * steps):
            epoch, step = divmod(stop, steps)
            before = [pair for done in range(epoch) for pair in seen(done, rank, 0)] + seen(epoch, rank, 0, step)
            after = seen(epoch, rank, step) + [pair for left in range(epoch + 1, 2) for pair in seen(left, rank, 0)]
            assert before + after == straight
            assert Counter(before + after) == Counter(straight)


def test_a_wrapped_sampler_makes_batches_of_all_ranks() -> None:
    index = labelled([40])
    shares = [
        Distributed(index, partial(AspectRatio, edges=[1.0]), batch_size=2, rank=rank, world_size=3)
        for rank in range(3)
    ]
    alone = AspectRatio(index, batch_size=6).rows(0, 0)
    first = np.concatenate([share.rows(0, 0)[:2] for share in shares])
    assert first.tolist() == alone[:6].tolist()

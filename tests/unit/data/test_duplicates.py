"""Pictures that are the same or almost are found, and pictures that are alike are not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from tests.data_faults.plan import pixels
from torso.data.decode import decode
from torso.data.doctor import duplicates
from torso.data.doctor.duplicates import near, same, traits


def compressed(image: Image.Image, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return decode(buffer.getvalue())


def variants(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What happens to pictures on their way from one folder to another."""
    image = Image.fromarray(array)
    width, height = image.size
    yield "quality 30", compressed(image, 30)
    yield "half", compressed(image.resize((width // 2, height // 2)), 80)
    yield "a third", compressed(image.resize((width // 3, height // 3)), 60)
    yield "twice", compressed(image.resize((width * 2, height * 2)), 80)
    yield "square", compressed(image.resize((416, 416)), 80)
    yield "brighter", compressed(ImageEnhance.Brightness(image).enhance(1.15), 80)
    yield "darker", compressed(ImageEnhance.Brightness(image).enhance(0.7), 80)
    yield "contrast", compressed(ImageEnhance.Contrast(image).enhance(1.3), 80)


def pairs_of(arrays: list[np.ndarray]) -> list[tuple[int, int]]:
    every = [traits(np.ascontiguousarray(array)) for array in arrays]
    codes, thumbs = np.array([one.code for one in every], np.uint64), np.array([one.thumb for one in every])
    pairs, whole = near(codes, thumbs, [row for row, one in enumerate(every) if not one.flat])
    assert whole
    return pairs


@pytest.mark.parametrize("seed", range(12))
def test_variants_of_a_pattern_are_found_and_other_patterns_are_not(seed: int) -> None:
    others = [pixels(500 + number, (320, 240)) for number in range(20)]
    own = pixels(seed, (320, 240))
    for name, variant in variants(own):
        assert pairs_of([own, *others, variant]) == [(0, 21)], name


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("raccoon", {("11", "116"), ("120", "83"), ("21", "45"), ("65", "98")}),  # 21 and 45 differ in compression
        ("bccd", {("00037", "00038")}),  # the same field of view, focused again
        ("trashnet", set()),
    ],
)
def test_real_sets_have_the_pairs_that_they_have(shared_data: Path, folder: str, expected: set) -> None:
    """Photographs of the same things before the same background are alike, and yet not near duplicates."""
    files = sorted((shared_data / folder).rglob("*.jpg"))
    pairs = pairs_of([decode(file) for file in files])
    names = [
        tuple(sorted(files[row].stem.rpartition("-" if folder == "raccoon" else "_")[2] for row in p)) for p in pairs
    ]
    assert set(names) == {tuple(sorted(pair)) for pair in expected}


def test_variants_of_real_pictures_are_found(shared_data: Path) -> None:
    files = (
        sorted(shared_data.joinpath("raccoon").rglob("*.jpg"))[:9]
        + sorted(shared_data.joinpath("bccd").rglob("*.jpg"))[:9]
    )
    for file in files:
        own = decode(file)
        for name, variant in variants(own):
            assert pairs_of([own, variant]) == [(0, 1)], (file.name, name)


def test_flat_pictures_are_like_nothing() -> None:
    black, grey = np.zeros((60, 80, 3), np.uint8), np.full((60, 80, 3), 99, np.uint8)
    assert traits(black).flat
    assert traits(grey).flat
    assert pairs_of([black, grey, black]) == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), near_by=st.integers(0, 12))
def test_the_banded_search_finds_what_comparing_all_pairs_finds(seed: int, near_by: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << 63, 60, dtype=np.uint64)
    for row in range(0, 40, 2):  # copies with some bits turned over
        bits = rng.choice(63, near_by, replace=False)
        codes[row + 1] = codes[row] ^ np.uint64(sum(1 << int(bit) for bit in bits))
    found, whole = duplicates._candidates(codes)
    expected = [
        [i, j]
        for i in range(60)
        for j in range(i + 1, 60)
        if bin(int(codes[i]) ^ int(codes[j])).count("1") <= duplicates.NEAR_BITS
    ]
    assert whole
    assert found.tolist() == expected


def test_a_wrong_bit_in_every_band_but_one_is_no_way_to_hide() -> None:
    for free in range(9):
        wrong = sum(1 << (7 * band + band % 7) for band in range(9) if band != free)
        found, _ = duplicates._candidates(np.array([5, 5 ^ wrong], np.uint64))
        assert found.tolist() == [[0, 1]], free


def test_bits_are_counted_without_numpy_2_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 63, (5, 7), dtype=np.uint64)
    counted = duplicates._bits(values)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert duplicates._bits(values).tolist() == counted.tolist()


def test_the_search_says_when_it_was_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_CANDIDATES", 100)
    codes = np.zeros(50, np.uint64)
    thumbs = np.random.default_rng(0).integers(0, 256, (50, duplicates.THUMB, duplicates.THUMB), dtype=np.uint8)
    pairs, whole = near(codes, thumbs, range(50))
    assert not whole
    assert pairs == []  # noise: equal codes alone make no duplicates


def test_equal_digests_are_grouped_and_empty_ones_are_not() -> None:
    assert same([b"a", b"", b"b", b"a", b"", b"b", b"a"]) == [[0, 3, 6], [2, 5]]

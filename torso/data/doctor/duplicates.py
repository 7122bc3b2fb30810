"""Pictures that are the same or almost: found by a hash that survives recompressing, resizing and brightening.

The hash has 63 bits: the signs, against their median, of the lowest 8 x 8 DCT coefficients of the grey picture at
32 x 32, without the mean. Two pictures are candidates from ``NEAR_BITS`` differing bits down, and near duplicates when
their thumbnails correlate by at least ``NEAR_CORRELATION``. On photographs of waste, raccoons and blood cells,
recompressed (quality 30), shrunk (to a third), squeezed, darkened, brightened or of more contrast, hashes differ in at
most 8 bits and thumbnails correlate by more than 0.95; of 150,000 pairs of different pictures none comes that close.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NEAR_BITS = 8
NEAR_CORRELATION = 0.95
THUMB = 24
FLAT = 3.0  # standard deviation in grey levels below which a picture shows nothing to compare
MAX_CANDIDATES = 5_000_000

_BANDS, _BAND_BITS = NEAR_BITS + 1, 7  # nine bands of seven bits: with eight bits wrong, one band is still right
_TILE = 1024
_GRID = 32
_FREQUENCIES = 8

Grey = NDArray[np.uint8]
Codes = NDArray[np.uint64]


class Traits(NamedTuple):
    """What is kept of a picture for comparing."""

    code: int
    thumb: Grey  # [THUMB, THUMB]
    flat: bool


def traits(pixels: NDArray[np.uint8]) -> Traits:
    """Traits of ``[H, W, 3]`` pixels."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    grid = cv2.resize(grey, (_GRID, _GRID), interpolation=cv2.INTER_AREA).astype(np.float64)
    thumb = cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return Traits(_code(grid), np.asarray(thumb, np.uint8), bool(grid.std() < FLAT))


def _basis() -> NDArray[np.float64]:
    """Rows of the DCT-II: ``[_FREQUENCIES, _GRID]``."""
    k = np.arange(_FREQUENCIES)[:, None]
    n = np.arange(_GRID)[None]
    scale = np.sqrt(np.where(k == 0, 1, 2) / _GRID)
    basis: NDArray[np.float64] = scale * np.cos(np.pi * (2 * n + 1) * k / (2 * _GRID))
    return basis


_DCT = _basis()


def _code(grid: NDArray[np.float64]) -> int:
    coefficients = (_DCT @ grid @ _DCT.T).ravel()[1:]
    bits = coefficients > np.median(coefficients)
    return int(sum(1 << at for at, bit in enumerate(bits.tolist()) if bit))


def same(digests: Sequence[bytes]) -> list[list[int]]:
    """Groups of rows with equal digests, in order; an empty digest is like no other."""
    rows: dict[bytes, list[int]] = {}
    for row, digest in enumerate(digests):
        if digest:
            rows.setdefault(digest, []).append(row)
    return [group for group in rows.values() if len(group) > 1]


def near(codes: Codes, thumbs: Grey, rows: Iterable[int]) -> tuple[list[tuple[int, int]], bool]:
    """Pairs ``(i, j)``, ``i < j``, of near duplicates among ``rows``; and whether all candidates were looked at.

    Args:
        codes: ``[N]`` hashes.
        thumbs: ``[N, THUMB, THUMB]``.
        rows: the pictures to compare, those that are flat or copies left out.
    """
    among = np.array(sorted(rows), np.int64)
    pairs, whole = _candidates(codes[among])
    kept: list[tuple[int, int]] = []
    for start in range(0, len(pairs), 16 * _TILE):
        some = among[pairs[start : start + 16 * _TILE]]
        alike = _correlation(thumbs[some[:, 0]], thumbs[some[:, 1]]) >= NEAR_CORRELATION
        kept += [(int(i), int(j)) for i, j in some[alike]]
    return sorted(kept), whole


def _candidates(codes: Codes) -> tuple[NDArray[np.int64], bool]:
    """Pairs ``[K, 2]`` whose codes differ in at most ``NEAR_BITS`` bits."""
    found = [np.zeros((0, 2), np.int64)]
    count = 0
    for band in range(_BANDS):
        keys = (codes >> np.uint64(_BAND_BITS * band)) & np.uint64((1 << _BAND_BITS) - 1)
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in np.split(order, edges):
            for pairs in _close(codes, bucket):
                found.append(pairs)
                count += len(pairs)
                if count > MAX_CANDIDATES:
                    return np.unique(np.concatenate(found), axis=0), False
    return np.unique(np.concatenate(found), axis=0), True


def _close(codes: Codes, bucket: NDArray[np.int64]) -> Iterable[NDArray[np.int64]]:
    """Close pairs within a bucket, tile by tile so that memory stays small."""
    for top in range(0, len(bucket), _TILE):
        rows = bucket[top : top + _TILE]
        for left in range(top, len(bucket), _TILE):
            columns = bucket[left : left + _TILE]
            i, j = np.nonzero(_bits(codes[rows][:, None] ^ codes[columns][None]) <= NEAR_BITS)
            pairs = np.stack([rows[i], columns[j]], axis=1)
            yield pairs[pairs[:, 0] < pairs[:, 1]]  # order within a bucket is stable, so each pair comes once


_BYTE_BITS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def _bits(values: Codes) -> NDArray[np.uint8]:
    """How many bits are set."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counted: NDArray[np.uint8] = np.bitwise_count(values)
        return counted
    return np.asarray(_BYTE_BITS[values[..., None].view(np.uint8)].sum(-1), np.uint8)


def _correlation(a: Grey, b: Grey) -> NDArray[np.float32]:
    """Correlation of thumbnails, pair by pair: it does not see brightness or contrast."""
    left, right = (block.reshape(len(block), -1).astype(np.float32) for block in (a, b))
    left -= left.mean(1, keepdims=True)
    right -= right.mean(1, keepdims=True)
    size = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    product: NDArray[np.float32] = (left * right).sum(1) / np.maximum(size, 1e-6)
    return product

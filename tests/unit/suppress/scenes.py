"""Boxes to suppress, and the plainest way to do it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from torso.boxes.prefix import at_hand
from torso.boxes.suppress import BESIDE, SUPPRESSORS
from torso.structures import Detections

Scene = tuple[Tensor, Tensor, Tensor]
Overlaps = Callable[[list[float], list[float]], bool]

OF_CANDIDATES = sorted(set(SUPPRESSORS) - set(BESIDE))


def greedy(boxes: Tensor, scores: Tensor, labels: Tensor, overlapping: Overlaps, per_class: bool) -> list[int]:
    """Greedy suppression of one picture as the paper tells it."""
    order = sorted((i for i in range(len(scores)) if scores[i] > 0), key=lambda i: (-scores[i].item(), i))
    kept: list[int] = []
    for i in order:
        if all(
            (per_class and labels[i] != labels[j]) or not overlapping(boxes[i].tolist(), boxes[j].tolist())
            for j in kept
        ):
            kept.append(i)
    return kept


def shared_and_union(a: list[float], b: list[float]) -> tuple[float, float]:
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared, (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared


def iou_of(a: list[float], b: list[float]) -> float:
    shared, union = shared_and_union(a, b)
    return shared / union if union > 0 else 0.0


def overlaps_by(limit: float) -> Overlaps:
    """IoU above ``limit``, exactly: boxes must be whole numbers."""

    def overlaps(a: list[float], b: list[float]) -> bool:
        shared, union = shared_and_union(a, b)
        return union > 0 and shared > limit * union

    return overlaps


@st.composite
def scenes(draw: st.DrawFn, most: int = 12) -> Scene:
    """[1, K] boxes on a coarse grid with few scores and classes: overlaps, duplicates and ties are the rule."""
    count = draw(st.integers(0, most))
    found = []
    for _ in range(count):
        x, y, w, h = (draw(st.integers(low, high)) for low, high in ((0, 8), (0, 8), (1, 8), (1, 8)))
        found.append([x, y, x + w, y + h])
    scores = [draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])) for _ in range(count)]
    labels = [draw(st.integers(0, 2)) for _ in range(count)]
    return (
        torch.tensor(found, dtype=torch.float32).reshape(1, count, 4),
        torch.tensor(scores).reshape(1, count),
        torch.tensor(labels, dtype=torch.int64).reshape(1, count),
    )


def crowd(batch: int, count: int, seed: int = 0) -> Scene:
    """Random boxes whose corners are whole and whose scores repeat."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 100, (batch, count, 2), generator=generator)
    side = torch.randint(1, 40, (batch, count, 2), generator=generator)
    scores = torch.randint(0, 50, (batch, count), generator=generator) / 50
    labels = torch.randint(0, 4, (batch, count), generator=generator)
    return torch.cat([low, low + side], dim=-1).float(), scores, labels


def smooth(batch: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Scene:
    """Random boxes in 0..1 without ties."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(batch, count, 2, generator=generator, dtype=dtype) * 0.7
    side = torch.rand(batch, count, 2, generator=generator, dtype=dtype) * 0.25 + 0.05
    scores = torch.rand(batch, count, generator=generator, dtype=dtype)
    return torch.cat([low, low + side], dim=-1), scores, torch.randint(0, 3, (batch, count), generator=generator)


def fitting(part: nn.Module, scene: Scene) -> Scene:
    """The scene with what else the part wants to know of a box."""
    boxes, scores, labels = scene
    more = 4 * len(getattr(part, "extra", ()))
    generator = torch.Generator().manual_seed(7)
    return torch.cat([boxes, torch.randn(*scores.shape, more, generator=generator)], dim=-1), scores, labels


def rows(found: Detections, picture: int = 0) -> list[tuple[float, ...]]:
    """The detections of a picture as plain numbers."""
    n = int(found.valid[picture].sum())
    assert found.valid[picture, :n].all(), "detections come before padding"
    table = torch.cat([found.boxes[picture], found.scores[picture, :, None], found.labels[picture, :, None]], dim=1)
    assert not table[n:].any(), "padding is zeros"
    return [tuple(row) for row in table[:n].tolist()]


def expected(scene: Scene, kept: list[int]) -> list[tuple[float, ...]]:
    """Rows ``kept`` of the first picture of a scene, as `rows` tells them."""
    boxes, scores, labels = (tensor[0] for tensor in scene)
    return [(*boxes[i].tolist(), scores[i].item(), labels[i].item()) for i in kept]


def without_numbers(part: Callable[..., Any], scene: Sequence[Any]) -> Any:
    """The answer as a graph that is traced gives it, which may not look at single numbers."""
    modules = sys.modules["torso.boxes.candidates"], sys.modules["torso.boxes.greedy"], sys.modules["torso.boxes.soft"]
    for module in modules:
        module.at_hand = lambda *_: False
    try:
        return part(*scene)
    finally:
        for module in modules:
            module.at_hand = at_hand

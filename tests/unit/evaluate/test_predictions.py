"""From the network's pixels to original pixels, and through files."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.evaluate.worlds import make_index
from torso.config import DataError
from torso.evaluate.predictions import Predictions, back_to_source, collect
from torso.structures import Batch, Detections, Targets


class FakeLoader:
    """Two pictures of different size, letterboxed to 100 x 100, the second twice."""

    def __init__(self):
        self.scale = {0: 0.5, 1: 0.25}
        self.size = {0: (200, 100), 1: (400, 400)}

    def epoch(self, epoch, start=0):
        assert (epoch, start) == (0, 0)
        for rows in ([0, 1], [1]):
            matrices = [
                [[1 / self.scale[r], 0, -10 / self.scale[r]], [0, 1 / self.scale[r], 0], [0, 0, 1]] for r in rows
            ]
            yield Batch(
                images=torch.full((len(rows), 3, 100, 100), 7, dtype=torch.uint8),
                targets=Targets.of_classes(torch.zeros(len(rows), dtype=torch.int64)),
                index=torch.tensor(rows),
                to_source=torch.tensor(matrices, dtype=torch.float64),
                source_size=torch.tensor([self.size[r] for r in rows]),
            )


def say(images):
    """Every picture: one box inside, one that leaves the picture, one row of padding."""
    count = len(images)
    assert not torch.is_grad_enabled()
    return Detections(
        boxes=torch.tensor([[[20.0, 10, 40, 30], [0, 20, 200, 50], [0, 0, 0, 0]]]).expand(count, -1, -1),
        scores=torch.tensor([[0.9, 0.5, 0.0]]).expand(count, -1),
        labels=torch.tensor([[1, 0, 0]]).expand(count, -1),
        valid=torch.tensor([[True, True, False]]).expand(count, -1),
    )


def test_collect_maps_to_original_pixels_and_clips():
    found = collect(say, FakeLoader())
    assert found.image.tolist() == [0, 0, 1, 1]
    assert found.seen.tolist() == [0, 1]  # the second picture came twice and counts once
    assert found.labels.tolist() == [1, 0, 1, 0]
    np.testing.assert_allclose(
        found.boxes, [[20, 20, 60, 60], [0, 40, 200, 100], [40, 40, 120, 120], [0, 80, 400, 200]], atol=1e-9
    )
    np.testing.assert_allclose(found.scores, [0.9, 0.5, 0.9, 0.5], atol=1e-7)
    assert found.probabilities is None


def test_collect_probabilities():
    found = collect(lambda images: torch.tensor([[0.1, 0.9]]).expand(len(images), -1), FakeLoader())
    assert found.seen.tolist() == [0, 1]
    np.testing.assert_allclose(found.probabilities, [[0.1, 0.9]] * 2, atol=1e-7)
    assert len(found) == 0


@given(
    st.tuples(*[st.floats(-3, 3)] * 4, *[st.floats(-50, 50)] * 2),
    st.lists(st.floats(0, 100), min_size=4, max_size=4),
)
def test_back_to_source_is_the_hull_of_the_moved_corners(affine, box):
    a, b, c, d, e, f = affine
    x1, x2 = sorted(box[::2])
    y1, y2 = sorted(box[1::2])
    matrix = np.array([[[a, b, e], [c, d, f], [0, 0, 1]]])
    (left, top, right, bottom) = back_to_source(np.array([[x1, y1, x2, y2]]), matrix, np.array([[80, 60]]))[0]
    corners = [(a * x + b * y + e, c * x + d * y + f) for x in (x1, x2) for y in (y1, y2)]
    xs = [min(max(x, 0), 80) for x, _ in corners]
    ys = [min(max(y, 0), 60) for _, y in corners]
    np.testing.assert_allclose([left, top, right, bottom], [min(xs), min(ys), max(xs), max(ys)], atol=1e-9)


def test_to_coco_has_original_ids():
    index = make_index([[0, 0, 1, 2, 3, 5]], images=2, class_ids=(3, 7, 90))
    found = Predictions.of([1, 0], [[1.5, 2, 4, 6], [0, 0, 1, 1]], [0.25, 0.5], [2, 0])
    rows = found.to_coco(index)
    assert rows[0] == {"image_id": 1, "category_id": 90, "bbox": [1.5, 2.0, 2.5, 4.0], "score": 0.25}
    assert rows[1]["category_id"] == 3
    json.dumps(rows)
    named = Predictions.of(probabilities=[[0.1, 0.2, 0.7], [0.9, 0.1, 0.0]], seen=[1, 0]).to_coco(index)
    assert named[0] == {"image_id": 1, "category_id": 90, "score": 0.7}
    json.dumps(named)


def test_save_and_load_are_exact(tmp_path):
    rng = np.random.default_rng(0)
    for table in (None, rng.random((3, 4))):
        found = Predictions.of(
            [0, 0, 2], rng.random((3, 4)) * 1e3, rng.random(3), [1, 0, 1], seen=[2, 1, 0], probabilities=table
        )
        again = Predictions.load(found.save(tmp_path / "预 测.json"))
        for name in ("image", "boxes", "scores", "labels", "seen", "probabilities"):
            one, other = getattr(found, name), getattr(again, name)
            assert (one is None and other is None) or (np.array_equal(one, other) and one.dtype == other.dtype)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}', "\x80"])
def test_load_refuses_other_files(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="not a file of predictions"):
        Predictions.load(path)


def test_merge_counts_a_padded_picture_once():
    parts = [
        Predictions.of([0, 2], [[0, 0, 1, 1]] * 2, [0.5, 0.6], [0, 0], seen=[0, 2]),
        Predictions.of([1, 0], [[0, 0, 2, 2]] * 2, [0.7, 0.8], [0, 0], seen=[1, 0]),
    ]
    merged = Predictions.merge(parts)
    assert merged.image.tolist() == [0, 2, 1]
    assert sorted(merged.seen.tolist()) == [0, 1, 2]
    assert len(Predictions.merge([])) == 0

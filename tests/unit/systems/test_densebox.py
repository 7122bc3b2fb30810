"""DenseBox's head, cell by cell, and what its assigner and coder make of the one face of its paper."""

from __future__ import annotations

import pytest
import torch

from torso.heads import HEADS
from torso.recipes.recipe import Recipe
from torso.structures import DenseOutput, Targets


@pytest.mark.part("head/densebox")
def test_every_cell_goes_through_two_layers_of_its_own_for_classes_and_boxes():
    torch.manual_seed(0)
    head = HEADS["densebox"]([6], 3, [2], 4, ["iou"], channels=5).double().eval()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    found = head([x])
    cells = x.permute(0, 2, 3, 1).reshape(2, 12, 6)
    for tower, last, size, answer in (
        (head.class_tower, head.class_logits, 3, found.logits),
        (head.box_tower, head.box_deltas, 4, found.deltas),
        (head.box_tower, head.branches["iou"], 1, found.extra["iou"][..., None]),
    ):
        hidden = (cells @ tower[0].weight[:, :, 0, 0].T + tower[0].bias).clamp(min=0)
        expected = hidden @ last.weight[:, :, 0, 0].T + last.bias
        torch.testing.assert_close(answer, expected.reshape(2, 24, size))


@pytest.mark.part("head/densebox")
def test_half_of_the_channels_between_them_are_dropped_in_training_only():
    torch.manual_seed(0)
    head = HEADS["densebox"]([6], 3, [1], channels=400)
    x = torch.rand(1, 6, 8, 8)
    hidden = head.train().class_tower(x)
    before = head.eval().class_tower(x)
    kept = hidden[before > 0] > 0
    assert 0.45 < float(kept.float().mean()) < 0.55
    torch.testing.assert_close(hidden[hidden > 0], 2 * before[hidden > 0])


@pytest.mark.part("recipe/densebox")
def test_a_face_of_50_px_is_a_circle_of_positives_with_a_grey_ring():
    """Radius 0.3 of the face in the map of 60 x 60, then 2 cells of neither; distances in faces."""
    model = Recipe.load("densebox", without_data=True).model
    prior, coder = model.args["prior"].build(strides=[4]), model.args["coder"].build()
    boxes, strides = prior([(60, 60)])
    face = torch.tensor([[[97.0, 87.0, 147.0, 137.0]]])
    there = torch.ones(1, 1, dtype=torch.bool)
    none = torch.zeros(1, 3600, 1)
    output = DenseOutput(none, boxes[None], boxes[None], boxes, (3600,), {}, strides, (240, 240))
    assigned = model.args["assigner"].build()(output, Targets(face, there.long() * 0, there, ~there))
    for p in range(3600):
        x, y = (p % 60 + 0.5) * 4, (p // 60 + 0.5) * 4
        away = ((x - 122) ** 2 + (y - 112) ** 2) ** 0.5
        assert bool(assigned.positive[0, p]) == (away < 0.3 * 50)
        assert bool(assigned.negative[0, p]) == (away >= 0.3 * 50 + 2 * 4)
    p = 28 * 60 + 30
    assert assigned.positive[0, p]
    expected = torch.tensor([122 - 97, 114 - 87, 147 - 122, 137 - 114]) / 50
    torch.testing.assert_close(coder.encode(face[0], boxes[p : p + 1], strides[p : p + 1])[0], expected)

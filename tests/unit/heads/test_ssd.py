"""SSD's parts where they differ from SSD300: other levels, branches, classes, sizes of pictures, frozen stages."""

from __future__ import annotations

import math

import pytest
import torch

from torso.backbones.ssd_vgg import SSDVGG
from torso.boxes.candidates import candidates_of_classes
from torso.boxes.default_boxes import DefaultBoxes, HandPicked
from torso.config import ModelError
from torso.heads import SSD
from torso.necks import SSDExtra

close = torch.testing.assert_close


@pytest.mark.part("head/ssd")
def test_levels_may_differ_in_channels_and_priors() -> None:
    head = SSD([4, 6], 3, [2, 5], branches=["iou", "variance"])
    features = [torch.rand(2, 4, 3, 3), torch.rand(2, 6, 2, 2)]
    output = head(features)
    assert output.logits.shape == (2, 9 * 2 + 4 * 5, 3)
    assert output.extra["iou"].shape == (2, 38)
    assert output.extra["variance"].shape == (2, 38, 4)
    maps = head.box_deltas[1](features[1])  # [2, 5 * 4, 2, 2]
    assert torch.equal(output.deltas[1, 18 + 5 * 2 + 3], maps[1, 12:16, 1, 0])  # the third cell's fourth prior


@pytest.mark.part("head/ssd")
def test_new_classes_leave_the_boxes_alone() -> None:
    head = SSD([4, 6], 3, [2, 5], prior_probability=0.1)
    features = [torch.zeros(1, 4, 3, 3), torch.zeros(1, 6, 2, 2)]
    close(head(features).logits.sigmoid(), torch.full((1, 38, 3), 0.1))
    before = [layer.weight for layer in head.box_deltas]
    head.reset_classes(7)
    close(head(features).logits.sigmoid(), torch.full((1, 38, 7), 0.1))
    assert all(a is b.weight for a, b in zip(before, head.box_deltas, strict=True))


@pytest.mark.part("neck/ssd_extra")
def test_the_finest_level_has_the_length_that_is_learned() -> None:
    neck = SSDExtra([6, 8], [8, 16], widths=[4], scale=7.0)
    features = [torch.randn(2, 6, 5, 5), torch.randn(2, 8, 3, 3)]
    levels = neck(features)
    close(levels[0].norm(dim=1), torch.full((2, 5, 5), 7.0))
    assert torch.equal(levels[1], features[1])
    assert levels[2].shape == (2, 4, 2, 2)
    plain = SSDExtra([6, 8], [8, 16], widths=[4], normalized=0)(features)
    assert torch.equal(plain[0], features[0])


@pytest.mark.part("neck/ssd_extra")
def test_unpadded_levels_and_pictures_that_are_too_small_for_them() -> None:
    neck = SSDExtra([4], [64], widths=[4, 4], unpadded=[100, 300])
    assert neck.strides == [64, 100, 300]
    assert [tuple(x.shape[-2:]) for x in neck([torch.rand(1, 4, 5, 5)])] == [(5, 5), (3, 3), (1, 1)]
    assert [tuple(x.shape[-2:]) for x in neck([torch.rand(1, 4, 2, 1)])] == [(2, 1), (1, 1), (1, 1)]
    with pytest.raises(ValueError, match="makes 1 more, but normalized is 1 and unpadded"):
        SSDExtra([4], [64], widths=[4], unpadded=[100, 300])


@pytest.mark.part("backbone/ssd_vgg")
def test_poolings_round_up_and_stages_freeze() -> None:
    body = SSDVGG(scale=0.125, frozen_stages=1)
    assert [tuple(x.shape[1:]) for x in body(torch.rand(1, 3, 150, 140))] == [(64, 19, 18), (128, 10, 9)]
    frozen = [name for name, p in body.named_parameters() if not p.requires_grad]
    assert frozen == [f"body.features.{place}.{end}" for place in (0, 2) for end in ("weight", "bias")]
    with pytest.raises(ModelError, match="0 to 4 stages"):
        SSDVGG(scale=0.125, frozen_stages=5)


@pytest.mark.part("backbone/ssd_vgg")
def test_names_of_weights_are_torchvisions() -> None:
    from torchvision.models import vgg16

    with torch.device("meta"):
        theirs, ours = vgg16(weights=None).features.state_dict(), SSDVGG().body["features"].state_dict()
    assert {name: x.shape for name, x in theirs.items()} == {name: x.shape for name, x in ours.items()}


@pytest.mark.part("prior/hand_picked")
def test_hand_picked_shapes_sit_in_the_middle_of_their_cells() -> None:
    prior = HandPicked([10, 20], shapes=[[(4, 8), (2, 2)], [(30, 10)]])
    boxes, strides = prior([(1, 2), (1, 1)])
    assert prior.per_cell == [2, 1]
    assert boxes.tolist() == [[3, 1, 7, 9], [4, 4, 6, 6], [13, 1, 17, 9], [14, 4, 16, 6], [-5, 5, 25, 15]]
    assert strides.tolist() == [[10, 10]] * 4 + [[20, 20]]


@pytest.mark.part("prior/hand_picked", "prior/default_boxes")
def test_shapes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="each of the 2 levels"):
        HandPicked([8, 16], shapes=[[(8, 8)]])
    with pytest.raises(ValueError, match="above 0"):
        HandPicked([8], shapes=[[(8, 0)]])
    with pytest.raises(ValueError, match="one size more than the 2 levels"):
        DefaultBoxes([8, 16], sizes=[8, 16])


@pytest.mark.part("prior/default_boxes")
def test_default_boxes_without_sizes_follow_the_strides() -> None:
    prior = DefaultBoxes([8, 16, 32, 64], scale=3.0)
    assert prior.per_cell == [4, 6, 4, 4]
    sides = (prior.cell1[:, 2:] - prior.cell1[:, :2]).tolist()
    root = math.sqrt(2)
    expected = [[48, 48], [48 * root, 48 * root], [48 * root, 48 / root], [48 / root, 48 * root]]
    close(torch.tensor(sides[:4]), torch.tensor(expected))


@pytest.mark.part("recipe/ssd")
@pytest.mark.parametrize("topk", [3, 20])  # fewer than there are priors, and more
def test_the_best_of_each_class_are_candidates(topk: int) -> None:
    scores = torch.rand(2, 12, 3, generator=torch.Generator().manual_seed(0))
    boxes = torch.rand(2, 12, 4)
    found = candidates_of_classes(scores, boxes, threshold=0.4, topk=topk)
    assert found[1].shape == (2, 3 * topk)
    for i in range(2):
        mine = [(label, score, box) for box, score, label in zip(*(x[i].tolist() for x in found), strict=True) if score]
        wanted = []
        for label in range(3):
            ranked = sorted(range(12), key=lambda p, c=label: -float(scores[i, p, c]))[:topk]
            wanted += [(label, float(scores[i, p, label]), boxes[i, p].tolist()) for p in ranked]
        assert sorted(mine) == sorted(row for row in wanted if row[1] > 0.4)


@pytest.mark.part("neck/ssd_extra")
def test_a_cell_without_activations_stays_finite() -> None:
    neck = SSDExtra([4], [8], widths=[])
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    neck([x])[0].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()

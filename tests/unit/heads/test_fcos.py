"""What FCOS's head has beside torchvision's: a scale a level, and branches on either tower."""

from __future__ import annotations

import pytest
import torch

from torso.heads import FCOS

FEATURES = [torch.rand(2, 16, 8, 8), torch.rand(2, 16, 4, 4)]


@pytest.mark.part("head/fcos")
def test_each_level_scales_its_boxes() -> None:
    head = FCOS([16, 16], 3, [1, 1], branches=["centerness"])
    plain = head(FEATURES)
    assert head.scales is not None
    with torch.no_grad():
        head.scales.copy_(torch.tensor([2.0, 3.0]))
    scaled = head(FEATURES)
    torch.testing.assert_close(scaled.deltas[:, :64], plain.deltas[:, :64] * 2)
    torch.testing.assert_close(scaled.deltas[:, 64:], plain.deltas[:, 64:] * 3)
    assert torch.equal(scaled.logits, plain.logits)
    assert torch.equal(scaled.extra["centerness"], plain.extra["centerness"])


@pytest.mark.part("head/fcos")
@pytest.mark.parametrize(("tower", "other"), [("box", "class"), ("class", "box")])
def test_branches_learn_on_the_tower_that_is_asked_for(tower: str, other: str) -> None:
    head = FCOS([16, 16], 3, [1, 1], branches=["centerness"], branches_on=tower)
    head(FEATURES).extra["centerness"].sum().backward()
    assert all(p.grad is not None for p in getattr(head, f"{tower}_tower").parameters())
    assert all(p.grad is None for p in getattr(head, f"{other}_tower").parameters())


@pytest.mark.part("head/fcos")
def test_scores_begin_at_the_prior_and_norms_have_groups_of_eight() -> None:
    head = FCOS([64, 64], 3, [1, 1], prior_probability=0.02)
    scores = head([torch.zeros(2, 64, 8, 8), torch.zeros(2, 64, 4, 4)]).logits.sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, 0.02))
    norms = [layer for layer in head.modules() if isinstance(layer, torch.nn.GroupNorm)]
    assert [norm.num_groups for norm in norms] == [8] * 8

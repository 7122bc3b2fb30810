"""The other forms of RPN's and EfficientDet's heads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torso import testing
from torso.boxes.level_nms import LevelNMS
from torso.heads import RPN, EfficientDet

FEATURES = [torch.rand(2, 8, 8, 8), torch.rand(2, 8, 4, 4)]


@pytest.mark.part("head/efficientdet")
def test_levels_share_convolutions_but_not_norms() -> None:
    head = EfficientDet([8, 8], 3, [1, 1], depth=2)
    twins = EfficientDet([8], 3, [1], depth=2)
    coarse = {}
    for name, value in head.state_dict().items():
        tower, part, *place = name.split(".")
        if part != "norms":
            coarse[name] = value
        elif place[1] == "1":  # the second level's are the only ones of a head of one level
            coarse[".".join([tower, part, place[0], "0", *place[2:]])] = value
    twins.load_state_dict(coarse)
    both, alone = head.train()(FEATURES), twins.train()([FEATURES[1]])
    torch.testing.assert_close(both.logits[:, 64:], alone.logits)
    moved = [head.class_tower.norms[0][level].running_mean for level in (0, 1)]
    assert not torch.equal(*moved), "each level has statistics of its own"


@pytest.mark.part("head/efficientdet")
@pytest.mark.parametrize("options", [{"separable": False}, {"norm": None}, {"separable": False, "norm": None}])
def test_full_convolutions_and_no_norm(options: dict) -> None:
    testing.check_head(lambda **wired: EfficientDet(**wired, depth=1, **options))
    depthwise = [x for x in EfficientDet([8], 3, [1], **options).modules() if isinstance(x, nn.Conv2d) and x.groups > 1]
    assert bool(depthwise) == options.get("separable", True)


@pytest.mark.part("head/rpn")
def test_one_class_begins_undecided_and_branches_share_the_tower() -> None:
    head = RPN([8, 8], 1, [3, 3], depth=2, branches=["iou"])
    assert head([torch.zeros(1, 8, 2, 2)] * 2).logits.sigmoid().eq(0.5).all()
    head(FEATURES).extra["iou"].sum().backward()
    assert all(p.grad is not None for p in head.tower.parameters())


@pytest.mark.part("suppress/level_nms")
def test_levels_and_classes_leave_each_other_alone() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]]).expand(6, 4)
    level = torch.tensor([[0.0], [0], [1], [1], [0], [2]])
    labels = torch.tensor([[0, 0, 0, 1, 1, 1]])
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]])
    found = LevelNMS(0.5, 6)(torch.cat([box, level], 1)[None], scores, labels)
    torch.testing.assert_close(found.scores, torch.tensor([[0.9, 0.7, 0.6, 0.5, 0.4, 0.0]]))
    assert found.labels.tolist() == [[0, 0, 1, 1, 1, 0]]
    assert found.boxes.shape == (1, 6, 4)

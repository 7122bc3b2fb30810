"""Which regions a second stage learns from, and what they learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torso.assigners import MaxIoU
from torso.assigners.draw import Draw, Drawn, regions_output, with_objects
from torso.assigners.mining import OHEM, Random
from torso.assigners.sampled import Sampled
from torso.boxes.coders import Delta
from torso.boxes.overlap import pairwise_iou
from torso.boxes.roi import RoIAlign
from torso.criteria import DenseCriterion
from torso.heads import RoIBox
from torso.losses import CrossEntropy, SmoothL1
from torso.models.two_stage import Stage
from torso.structures import Assignment, Targets

SIZE, CLASSES, REGIONS = (64, 64), 3, 40

pytestmark = pytest.mark.part("sample/random", "assigner/max_iou", "head/roi_box")
close = torch.testing.assert_close


def boxes_of(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 40
    return torch.cat([low, low + 6 + torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 18], dim=-1)


def case() -> tuple[Tensor, Tensor, Targets]:
    """Regions of three pictures, the last rows padding; objects: six, one of them ignored; none; two."""
    boxes, objects = boxes_of(3, REGIONS), boxes_of(3, 6, seed=1)
    valid = torch.arange(REGIONS).expand(3, -1) < torch.tensor([[40], [30], [4]])
    there = torch.arange(6).expand(3, -1) < torch.tensor([[6], [0], [2]])
    ignore = there & (torch.arange(6) == 5)
    labels = torch.randint(0, CLASSES, (3, 6), generator=torch.Generator().manual_seed(2))
    boxes[0, :8] = objects[0, 5] + torch.tensor([1.0, 0, -1, 0])  # in the ignored region
    return boxes * valid[..., None], valid, Targets(objects, labels, there & ~ignore, ignore)


def drawn(count: int = 16, share: float = 0.25, **changed: float) -> tuple[Drawn, Tensor, Tensor, Targets]:
    boxes, valid, targets = case()
    boxes, valid = with_objects(boxes, valid, targets)
    torch.manual_seed(3)
    draw = Draw(MaxIoU(0.5, 0.5, low_quality=False), Random(count, share))
    return draw(boxes, valid, targets, SIZE), boxes, valid, targets


def test_so_many_of_each_picture_are_drawn_the_positive_ones_first() -> None:
    found, _, _, targets = drawn()
    assert found.boxes.shape == (3, 16, 4)
    counts = found.positive.sum(dim=1)
    assert counts.tolist() == [4, 0, 2], "a quarter of them at most"
    order = torch.arange(16)
    assert torch.equal(found.positive, order < counts[:, None])
    assert found.valid.sum(dim=1).tolist() == [16, 16, 6], "of four regions and two objects no more can be drawn"
    assert torch.equal(found.valid, order < found.valid.sum(dim=1, keepdim=True))
    overlap = pairwise_iou(targets.boxes, found.boxes).masked_fill(~targets.valid[..., None], -1)
    assert (overlap.amax(dim=1)[found.positive] >= 0.5).all()
    assert (overlap.amax(dim=1)[found.valid & ~found.positive] < 0.5).all()
    assert torch.equal(found.matched[found.positive], overlap.argmax(dim=1)[found.positive])


def test_fewer_regions_than_asked_for_are_all_drawn() -> None:
    found, boxes, _, _ = drawn(count=1000, share=1.0)
    assert found.boxes.shape == boxes.shape


def test_ignored_regions_and_padding_are_never_drawn() -> None:
    found, boxes, valid, targets = drawn(count=1000, share=1.0)
    learned = [{tuple(box) for box in b[v].tolist()} for b, v in zip(found.boxes, found.valid, strict=True)]
    there = [{tuple(box) for box in b[v].tolist()} for b, v in zip(boxes, valid, strict=True)]
    crowd, (left, top, right, bottom) = targets.boxes[0, 5], boxes[0].unbind(dim=-1)
    shared = (torch.minimum(right, crowd[2]) - torch.maximum(left, crowd[0])).clamp(min=0)
    shared = shared * (torch.minimum(bottom, crowd[3]) - torch.maximum(top, crowd[1])).clamp(min=0)
    inside = shared >= 0.5 * (right - left) * (bottom - top)
    best = pairwise_iou(targets.boxes[0][targets.valid[0]], boxes[0]).amax(dim=0)
    assert int((inside & (best < 0.5)).sum()) >= 8, "the case has such regions"
    assert learned[0] == there[0] - {tuple(box) for box in boxes[0][inside & (best < 0.5)].tolist()}
    assert learned[1:] == there[1:]
    assert all((0.0, 0.0, 0.0, 0.0) not in each for each in learned)


def test_objects_are_regions_themselves() -> None:
    boxes, valid, targets = case()
    more, real = with_objects(boxes, valid, targets)
    assert torch.equal(more[:, REGIONS:], targets.boxes)
    assert torch.equal(real[:, REGIONS:], targets.valid)
    found, *_ = drawn(count=100, share=1.0)
    for i in (0, 2):
        wanted = targets.boxes[i][targets.valid[i]]
        assert (pairwise_iou(wanted, found.boxes[i][found.positive[i]]).amax(dim=1) > 1 - 1e-9).all()


def test_pictures_do_not_see_each_other() -> None:
    boxes, valid, targets = case()
    draw = Draw(MaxIoU(0.5, 0.5, low_quality=False), First())
    together = draw(boxes, valid, targets, SIZE)
    for i in range(3):
        rows = slice(i, i + 1)
        one = Targets(targets.boxes[rows], targets.labels[rows], targets.valid[rows], targets.ignore[rows])
        alone = draw(boxes[rows], valid[rows], one, SIZE)
        for a, b in zip(together, alone, strict=True):
            assert torch.equal(a[rows], b)


class First(nn.Module):
    """The first of those that learn, for tests that draw twice."""

    by_priors, count = True, 12

    def forward(self, assigned: Assignment, *_: object) -> Sampled:
        both = assigned.positive | assigned.negative
        taken = both & (both.cumsum(dim=1) <= self.count)
        return Sampled(assigned.positive & taken, assigned.negative & taken)


@pytest.mark.part("criterion/dense")
@pytest.mark.parametrize("num_boxes", [1, CLASSES])
@pytest.mark.parametrize("low_quality", [False, True])
def test_heads_that_look_at_drawn_regions_learn_as_if_they_saw_all(num_boxes: int, low_quality: bool) -> None:
    """The same losses and gradients, be the draw made before the head looks or in the criterion."""
    torch.manual_seed(0)
    boxes, valid, targets = case()
    boxes, valid = with_objects(boxes, valid, targets)
    assigner, coder = MaxIoU(0.5, 0.5, low_quality=low_quality), Delta((10, 10, 5, 5))
    parts = CrossEntropy(), SmoothL1(), coder

    def stage(draw: Draw | None, sample: nn.Module | None) -> Stage:
        criterion = DenseCriterion(assigner, *parts, average="samples", sample=sample)
        return Stage(RoIAlign([8], size=3), head, coder, criterion, draw)

    head = RoIBox([4], CLASSES + 1, 4, num_boxes, 3, channels=8).double()
    nn.init.normal_(head.box_deltas.weight, std=0.3)
    features = [torch.rand(3, 4, 8, 8, dtype=torch.float64)]
    first, second = stage(Draw(assigner, First()), None), stage(None, First())
    rows = first.draw(boxes, valid, targets, SIZE)
    assert rows.positive.any()
    assert rows.positive.sum() < (assigner(regions_output(boxes, valid, SIZE), targets).positive & valid).sum()
    losses, gradients = [], []
    for one, (where, real, told) in ((first, (rows.boxes, rows.valid, rows)), (second, (boxes, valid, None))):
        head.zero_grad()
        losses.append(one.losses(one(features, where, real, SIZE), targets, told))
        sum(losses[-1].values()).backward()
        gradients.append([p.grad.clone() for p in head.parameters()])
    assert set(losses[0]) == {"class", "box"}
    for name, loss in losses[0].items():
        assert loss > 0
        close(loss, losses[1][name], rtol=1e-12, atol=0)
    close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


def test_who_asks_what_a_head_says_cannot_draw() -> None:
    with pytest.raises(ValueError, match="regions are drawn before a head looks at them, which OHEM"):
        Draw(MaxIoU(), OHEM())


def test_drawing_is_one_graph() -> None:
    boxes, valid, targets = case()
    draw = Draw(MaxIoU(0.5, 0.5, low_quality=False), Random(8))
    report = torch._dynamo.explain(draw)(boxes, valid, targets, SIZE)
    assert report.graph_break_count == 0, report.break_reasons

"""Samplers that choose, against sorting in plain Python; SSD's whole loss against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.unit.parts import slow
from tests.unit.sample.cases import case, listed
from torso.assigners import MaxIoU
from torso.assigners.sample import OHEM, SAMPLES, SOHEM, HardNegative, Random
from torso.boxes.coders import Delta
from torso.criteria import DenseCriterion
from torso.losses import CrossEntropy, Focal, SmoothL1
from torso.structures import Assignment, DenseOutput, Targets


def counted(*masks: Tensor) -> list[list[int]]:
    return [mask.sum(dim=1).tolist() for mask in masks]


@pytest.mark.part("sample/random")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 7, 20, 40, 256])
def test_random_takes_what_was_asked_for_and_all_where_there_are_fewer(count, share):
    assigned, *rest = case(0, (5, 0, 14))
    chosen = Random(count, share)(assigned, *rest)
    assert not (chosen.positive & ~assigned.positive).any()
    assert not (chosen.negative & ~assigned.negative).any()
    for image in range(3):
        there = int(assigned.positive[image].sum()), int(assigned.negative[image].sum())
        positives = min(there[0], int(count * share))
        assert int(chosen.positive[image].sum()) == positives
        assert int(chosen.negative[image].sum()) == min(there[1], count - positives)
    if count == 256:
        assert torch.equal(chosen.negative, assigned.negative)


@pytest.mark.part("sample/random")
def test_random_draws_every_prior_equally_often_by_torchs_generator():
    assigned, *rest = case(0, (14,))
    sampler, times = Random(10, 0.5), 400
    torch.manual_seed(3)
    hits = torch.zeros(2, 49)
    for _ in range(times):
        chosen = sampler(assigned, *rest)
        hits += torch.stack([chosen.positive[0], chosen.negative[0]])
    for mask, hit in ((assigned.positive, hits[0]), (assigned.negative, hits[1])):
        chance = 5 / int(mask.sum())
        deviation = (times * chance * (1 - chance)) ** 0.5
        assert ((hit[mask[0]] - times * chance).abs() < 5 * deviation).all()
    torch.manual_seed(3)
    first = sampler(assigned, *rest)
    again = sampler(assigned, *rest)
    torch.manual_seed(3)
    same = sampler(assigned, *rest)
    assert torch.equal(first.negative, same.negative)
    assert not torch.equal(first.negative, again.negative), "each step draws anew"


@pytest.mark.part("sample/random")
def test_random_takes_as_many_as_torchvision():
    from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

    assigned, *rest = case(1, (5, 0, 14))
    labels = [assigned.positive[i].double() - (~(assigned.positive | assigned.negative))[i].double() for i in range(3)]
    for count, share in ((12, 0.5), (30, 0.25), (256, 0.5)):
        theirs = BalancedPositiveNegativeSampler(count, share)(labels)
        ours = Random(count, share)(assigned, *rest)
        sums = [[int(mask.sum()) for mask in masks] for masks in theirs]
        assert counted(ours.positive, ours.negative) == sums


@pytest.mark.part("sample/hard_negative")
@pytest.mark.parametrize(("ratio", "least"), [(3.0, 0), (1.5, 0), (0.5, 4), (100.0, 0)])
def test_hard_negatives_are_the_costliest_of_each_picture(ratio, least):
    for seed in range(3):
        arguments = case(seed)
        assigned, cost = arguments[:2]
        chosen = HardNegative(ratio, least)(*arguments)
        assert torch.equal(chosen.positive, assigned.positive)
        for image, found in enumerate(listed(chosen.negative)):
            number = max(least, int(ratio * int(assigned.positive[image].sum())))
            ranked = sorted(listed(assigned.negative)[image], key=lambda p, i=image: -float(cost[i, p]))
            assert found == set(ranked[:number])


def ssd_case(counts: tuple[int, ...]) -> tuple[DenseOutput, Targets]:
    output, targets = slow.grid_case(5, counts, regions=0)
    generator = torch.Generator().manual_seed(8)
    logits = torch.randn(*output.logits.shape[:2], 4, generator=generator, dtype=torch.float64)
    return output._replace(logits=logits, background=True), targets


@pytest.mark.part("sample/hard_negative", "criterion/dense", "loss/cross_entropy", "loss/smooth_l1")
@pytest.mark.parametrize("counts", [(5, 0, 9), (1, 3, 2), (0, 0)])
def test_the_whole_loss_of_ssd_equals_torchvision(counts):
    """Matched by it; our coder, 3:1 mining and both losses, with gradients."""
    from torchvision.models.detection import _utils as det_utils
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD
    from torchvision.ops import box_iou

    output, targets = ssd_case(counts)
    logits, deltas = output.logits.requires_grad_(), output.deltas.requires_grad_()
    head = nn.Module()
    theirs = SSD(nn.Identity(), DefaultBoxGenerator([[2]]), (64, 64), 4, head=head, iou_thresh=0.5)
    given, matched = [], []
    for image, count in enumerate(counts):
        boxes, labels = targets.boxes[image, :count], targets.labels[image, :count]
        given.append({"boxes": boxes, "labels": labels + 1})  # their background is class 0
        if count:
            matched.append(det_utils.SSDMatcher(0.5)(box_iou(boxes, output.priors)))
        else:
            matched.append(torch.full((len(output.priors),), -1))
    said = {"cls_logits": logits.roll(1, dims=-1), "bbox_regression": deltas}
    expected = theirs.compute_loss(given, said, [output.priors] * len(counts), matched)

    match = torch.stack(matched)
    assigned = Assignment(match.clamp(min=0), match >= 0, match < 0)
    criterion = DenseCriterion(
        lambda *_: assigned, CrossEntropy(), SmoothL1(beta=1.0), Delta((10, 10, 5, 5)), sample=HardNegative()
    )
    found = criterion(output, targets)
    torch.testing.assert_close(found["class"], expected["classification"], rtol=1e-10, atol=0)
    torch.testing.assert_close(found["box"], expected["bbox_regression"], rtol=1e-10, atol=0)
    if any(counts):
        mine = torch.autograd.grad(sum(found.values()), [logits, deltas], retain_graph=True)
        other = torch.autograd.grad(sum(expected.values()), [logits, deltas])
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-14)


@pytest.mark.part("sample/ohem")
@pytest.mark.parametrize("box_weight", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("share", [None, 0.25])
@pytest.mark.parametrize("count", [1, 12, 60])
def test_ohem_takes_the_costliest(count, share, box_weight):
    for seed in range(3):
        arguments = case(seed)
        assigned, class_cost, box_cost = arguments[:3]
        chosen = OHEM(count, share, box_weight)(*arguments)
        for image in range(3):
            positives, negatives = listed(assigned.positive)[image], listed(assigned.negative)[image]
            cost = {p: float(class_cost[image, p]) for p in positives | negatives}
            for p in positives:
                cost[p] += box_weight * float(box_cost[image, p])
            ranked = sorted(cost, key=lambda p, cost=cost: -cost[p])
            if share is None:
                wanted = set(ranked[:count])
            else:
                first = [p for p in ranked if p in positives][: int(count * share)]
                wanted = {*first, *[p for p in ranked if p in negatives][: count - len(first)]}
            found = listed(chosen.positive)[image], listed(chosen.negative)[image]
            assert found == (wanted & positives, wanted & negatives)
            left = (positives | negatives) - wanted
            if share is None and wanted and left:
                assert min(cost[p] for p in wanted) >= max(cost[p] for p in left)


@pytest.mark.part("sample/s_ohem")
@pytest.mark.parametrize("shares", [None, (0.4, 0.3, 0.1, 0.2), (0.0, 0.0, 1.0, 0.0)])
@pytest.mark.parametrize("count", [5, 16, 200])
def test_strata_give_their_hardest_and_the_rest_goes_to_the_hardest_left(count, shares):
    bounds = (0.5, 1.0, 2.0)
    several = 0
    for seed in range(4):
        arguments = case(seed, (5, 0, 14))
        assigned, class_cost, box_cost = arguments[:3]
        chosen = SOHEM(count, bounds, shares)(*arguments)
        for image in range(3):
            positives, negatives = listed(assigned.positive)[image], listed(assigned.negative)[image]
            strata: list[list[int]] = [[], [], [], []]
            cost = {}
            for p in sorted(positives | negatives):
                of_class, of_box = float(class_cost[image, p]), float(box_cost[image, p]) if p in positives else 0.0
                cost[p] = of_class + of_box
                ratio = of_class / of_box if of_box else float("inf")
                strata[sum(ratio >= bound for bound in bounds)].append(p)
            wanted: set[int] = set()
            for number, stratum in enumerate(strata):
                held = sum(cost[p] for p in stratum) / sum(cost.values())
                quota = int(count * (held if shares is None else shares[number]) + 1e-9)
                wanted |= set(sorted(stratum, key=lambda p, cost=cost: -cost[p])[:quota])
            several += sum(bool(stratum) for stratum in strata) > 2
            rest = sorted(set(cost) - wanted, key=lambda p, cost=cost: -cost[p])
            wanted |= set(rest[: count - len(wanted)])
            found = listed(chosen.positive)[image] | listed(chosen.negative)[image]
            assert found == wanted
            assert len(found) == min(count, len(cost))
    assert several > 3, "the case must have several strata"


@pytest.mark.part("sample/s_ohem")
def test_one_stratum_is_ohem():
    arguments = case(2)
    one, plain = SOHEM(15, bounds=())(*arguments), OHEM(15)(*arguments)
    assert torch.equal(one.positive, plain.positive)
    assert torch.equal(one.negative, plain.negative)


@pytest.mark.part("sample/s_ohem")
def test_costs_of_one_kind_do_not_crowd_the_other_out():
    """Where box losses are large OHEM takes those alone; the stratum of negatives keeps its share."""
    assigned, class_cost, box_cost, *rest = case(0, (14,))
    box_cost = box_cost + 50
    count = int(assigned.positive.sum())
    plain = OHEM(count)(assigned, class_cost, box_cost, *rest)
    strata = SOHEM(count, shares=(0.5, 0.0, 0.0, 0.5))(assigned, class_cost, box_cost, *rest)
    assert not plain.negative.any()
    assert int(strata.negative.sum()) == count // 2


@pytest.mark.parametrize("counts", [(0,), (1,), (10,), (300,)])
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_sampling_in_an_objective_is_finite_and_waits_for_nothing(name, counts):
    sampler = SAMPLES[name](negatives=20, candidates=30) if name == "pisa" else SAMPLES[name]()
    output, targets = slow.grid_case(3, counts)
    logits, deltas = output.logits.requires_grad_(), output.deltas.requires_grad_()
    output = output._replace(boxes=Delta().decode(deltas, output.priors))
    criterion = DenseCriterion(MaxIoU(), Focal(), SmoothL1(), Delta(), sample=sampler)
    with slow.NoWaiting():
        losses = criterion(output, targets)
        sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    neither = ~(MaxIoU()(output, targets).positive | MaxIoU()(output, targets).negative)
    for each in (logits, deltas):
        assert each.grad is not None
        assert each.grad.isfinite().all()
        assert not each.grad[neither].any(), "nothing is learned in an ignored region"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Random(0), "at least one prior learns"),
        (lambda: OHEM(5, 1.5), "a share in 0..1"),
        (lambda: HardNegative(0), "ratio > 0"),
        (lambda: SOHEM(bounds=(1.0, 0.5)), "bounds rise"),
        (lambda: SOHEM(shares=(0.5, 0.5)), "4 shares"),
        (lambda: SAMPLES["pisa"](negatives=50, candidates=20), "negatives expected"),
    ],
)
def test_what_cannot_be_sampled(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""The loss of a region proposal network against torchvision's, and against the criterion of parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torso.assigners import MaxIoU
from torso.assigners.mining import Random
from torso.boxes.coders import Delta
from torso.criteria import DenseCriterion
from torso.criteria.targets import box_targets
from torso.losses import RPN, BinaryCrossEntropy, SmoothL1
from torso.testing import dense_case

pytestmark = pytest.mark.part("loss/rpn")


def case(sampled: bool = True) -> tuple[Tensor, Tensor]:
    """What two pictures of 50 priors say, and should: objects, nothing, and priors that were not sampled."""
    generator = torch.Generator().manual_seed(0)
    said = torch.randn(2, 50, 5, generator=generator, dtype=torch.float64)
    wanted = torch.randn(2, 50, 5, generator=generator, dtype=torch.float64) * 0.3
    wanted[..., 0] = torch.randint(-1 if sampled else 0, 2, (2, 50), generator=generator).double()
    return said, wanted


def test_value_and_gradient_equal_torchvision() -> None:
    from torchvision.models.detection.rpn import RegionProposalNetwork as Peer

    said, wanted = case()
    mine, theirs = said.clone().requires_grad_(), said.clone().requires_grad_()
    network = Peer(None, None, 0.7, 0.3, 256, 0.5, {}, {}, 0.7)
    network.fg_bg_sampler = lambda labels: ([x == 1 for x in labels], [x == 0 for x in labels])
    labels = list(wanted[..., 0])
    assert {x for row in labels for x in row.tolist()} == {-1.0, 0.0, 1.0}
    logits, deltas = theirs[..., :1].reshape(-1, 1), theirs[..., 1:].reshape(-1, 4)
    expected = sum(network.compute_loss(logits, deltas, labels, list(wanted[..., 1:])))
    loss = RPN()(mine, wanted, reduction="mean")
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward(), expected.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-15)
    assert not mine.grad[wanted[..., 0] < 0].any(), "what was not sampled teaches nothing"


def test_the_papers_weight_is_of_boxes_alone() -> None:
    said, wanted = case(sampled=False)
    one, ten = RPN()(said, wanted), RPN(box_weight=10)(said, wanted)
    there = wanted[..., 0] == 1
    assert torch.equal(one[~there], ten[~there])
    box = SmoothL1()(said[..., 1:], wanted[..., 1:])
    torch.testing.assert_close(ten[there], one[there] + 9 * box[there], rtol=1e-12, atol=0)


def test_nothing_sampled_costs_nothing() -> None:
    said, wanted = case()
    wanted[..., 0] = -1
    assert RPN()(said, wanted, reduction="mean") == 0


@pytest.mark.part("criterion/dense", "propose/rpn")
@pytest.mark.parametrize("count", [0, 1, 10])
def test_the_criterion_of_the_proposer_is_the_same(count: int) -> None:
    """Binary cross entropy and smooth L1 under ``dense`` with ``average: samples``, on what an assigner says."""
    output, targets = dense_case(count)
    output = output._replace(
        logits=output.logits[..., :1].double().requires_grad_(), deltas=output.deltas.double().requires_grad_()
    )
    targets, coder, assigner = targets.with_a_row(), Delta(), MaxIoU(0.4, 0.3)
    targets = type(targets)(targets.boxes, torch.zeros_like(targets.labels), targets.valid, targets.ignore)
    criterion = DenseCriterion(
        assigner, BinaryCrossEntropy(), SmoothL1(), coder, average="samples", sample=Random(32, 0.5)
    )
    torch.manual_seed(5)
    losses = criterion(output, targets)
    torch.manual_seed(5)
    assigned = assigner(output, targets)
    taken = Random(32, 0.5)(assigned, output.logits[..., 0], output.logits[..., 0], output, targets)
    assert taken.positive.any() == (count > 0)
    label = torch.where(taken.positive, 1.0, torch.where(taken.negative, 0.0, -1.0)).double()
    deltas = coder.encode(box_targets(assigned, targets, output.priors), output.priors)
    wanted = torch.cat([label[..., None], deltas.double()], dim=-1)
    loss = RPN()(torch.cat([output.logits, output.deltas], dim=-1), wanted, reduction="mean")
    torch.testing.assert_close(sum(losses.values()), loss, rtol=1e-6, atol=0)
    grads = [
        torch.autograd.grad(x, (output.logits, output.deltas), retain_graph=True) for x in (loss, sum(losses.values()))
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)

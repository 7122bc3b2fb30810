"""The contract checks go red for parts that break their contract."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torso import testing
from torso.assigners import MaxIoU
from torso.backbones import Tiny
from torso.boxes.suppress import BatchedNMS
from torso.heads import Retina
from torso.losses import L1, CrossEntropy, DistributionFocal, Focal, KLBox
from torso.necks import FPN


def small(**options) -> Tiny:
    return Tiny(widths=(4, 8), levels=(1, 2), **options)


def said(part: nn.Module, **attributes) -> nn.Module:
    for name, value in attributes.items():
        setattr(part, name, value)
    return part


class Passing(nn.Module):
    """One layer that learns; what breaks is in the subclasses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x)


class Unused(Passing):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(3, 3)


class RootOfNothing(Passing):
    def forward(self, x):
        return (self.layer(x) * 0).abs().sqrt()


class Forgetful(Passing):
    """Something it needs is not in the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.layer._register_state_dict_hook(lambda _m, state, prefix, _l: state.pop(f"{prefix}bias"))
        self.layer._register_load_state_dict_pre_hook(
            lambda state, prefix, *_: state.setdefault(f"{prefix}bias", torch.zeros(3))
        )


class Rolling(Passing):
    def forward(self, x):
        return self.layer(x) + torch.rand(())


class Breaking(Passing):
    def forward(self, x):
        return self.layer(x) if float(x.detach().sum()) > -1e9 else x


class Narrow(Passing):
    """Overflows in bfloat16 only."""

    def forward(self, x):
        y = self.layer(x)
        return y / 0 if y.dtype == torch.bfloat16 else y


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Unused, "idle.weight gets no gradient"),
        (RootOfNothing, "the gradient of layer.weight is not finite"),
        (Forgetful, "the state dict holds it all"),
        (Rolling, "the same input, the same output"),
        (Breaking, "graph breaks"),
        (Narrow, "bfloat16 gives finite outputs"),
    ],
)
def test_modules(part, message):
    testing.check_module(Passing(), lambda: (torch.rand(2, 3),))
    with pytest.raises(AssertionError, match=message):
        testing.check_module(part(), lambda: (torch.rand(2, 3),))


class Coarse(Tiny):
    """Loses the last row of an odd size."""

    def forward(self, images):
        return [x[..., :-1] for x in super().forward(images)]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda: said(small(), strides=[2, 8]), "the level of stride 8 should be"),
        (lambda: said(small(), channels=[4, 4]), "should be .*4, 16, 16.*, is .*8, 16, 16"),
        (lambda: said(small(), channels=[4, 8, 8], strides=[2, 4, 8]), "3 levels promised, 2 returned"),
        (lambda: said(small(), strides=[4, 2]), "from the finest to the coarsest"),
        (lambda: said(small(), strides=(2, 4)), "`strides` is a list of int"),
        (lambda: said(small(), channels=None), "`channels` is a list of int"),
        (lambda: said(small(), channels=[4]), "one channel count a stride"),
        (lambda: said(small(), mean=(0.5,)), "a backbone has `mean`, three numbers"),
        (lambda: Coarse(widths=(4, 8), levels=(1, 2)), "the level of stride 2 should be"),
    ],
)
def test_backbones(part, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_backbone(part())


class FloorFPN(FPN):
    """Coarser levels rounded down."""

    def forward(self, features):
        levels = super().forward(features)
        return [*levels[:-1], levels[-1][..., : max(1, levels[-2].shape[-1] // 2)]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c, s: said(FPN(c, s, channels=4), strides=[8, 16, 32, 64, 256]), "the level of stride 256 should be"),
        (lambda c, s: said(FPN(c, s, channels=4), channels=[5] * 5), "should be .*2, 5,"),
        (lambda c, s: FloorFPN(c, s, channels=4), "the level of stride 128 should be"),
        (lambda c, s: nn.Identity(), "`channels` is a list of int"),
    ],
)
def test_necks(make, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_neck(make)


class Transposed(Retina):
    def forward(self, features):
        output = super().forward(features)
        return output._replace(logits=output.logits.transpose(1, 2))


class FewDeltas(Retina):
    def forward(self, features):
        output = super().forward(features)
        return output._replace(deltas=output.deltas[:, 1:])


class Silent(Retina):
    def forward(self, features):
        return super().forward(features)._replace(extra={})


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (Silent, "the head says what it is asked for"),
        (Transposed, r"logits are \[B, P, C\]"),
        (FewDeltas, r"deltas are \[B, P, D\]"),
    ],
)
def test_heads(head, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_head(head)


class Assigner(MaxIoU):
    def __init__(self, **changes) -> None:
        super().__init__()
        self.changes = changes

    def forward(self, output, targets):
        assigned = super().forward(output, targets)
        return assigned._replace(**{k: change(assigned, targets) for k, change in self.changes.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negative": lambda a, t: ~a.positive}, "nothing is learned from a prior in an ignored region"),
        ({"negative": lambda a, t: torch.ones_like(a.positive)}, "not both positive and negative"),
        ({"matched": lambda a, t: a.matched.int()}, "int64"),
        ({"matched": lambda a, t: a.matched[0]}, r"fields are \[B, P\]"),
        (
            {"positive": lambda a, t: torch.ones_like(a.positive), "negative": lambda a, t: a.negative & False},
            "without objects nothing is positive",
        ),
        (
            {"matched": lambda a, t: a.matched * 0 + (3 if t.valid.shape[1] > 3 else 0)},
            "a positive prior learns a valid object, never padding",
        ),
        (
            {"negative": lambda a, t: a.negative & ~a.positive.any(dim=0)},
            "pictures do not see each other",
        ),
    ],
)
def test_assigners(changes, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_assigner(Assigner(**changes))


class Loss(L1):
    """L1 with something wrong in it."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong
        if wrong == "takes":
            self.takes = "boxen"

    def forward(self, prediction, target, weight=None, reduction="none", avg_factor=None):
        if self.wrong == "weight":
            weight = None
        if self.wrong == "factor":
            avg_factor = None
        if self.wrong == "shape" and reduction == "none":
            return (prediction - target).abs()
        if self.wrong == "gradient":
            prediction = prediction + (prediction * 0).abs().sqrt()
        loss = super().forward(prediction, target, weight, reduction, avg_factor)
        if self.wrong == "half":
            loss = loss.to(prediction.dtype)
        if self.wrong == "narrow" and prediction.dtype == torch.bfloat16:
            loss = loss / 0
        return loss + 1 if self.wrong == "empty" and len(prediction) == 0 else loss


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("takes", "a loss says with `takes` what it compares"),
        ("shape", "the unreduced loss is"),
        ("weight", "not close"),
        ("factor", "not close"),
        ("gradient", "gradients are finite"),
        ("half", "half precision is computed in float32"),
        ("narrow", "half precision gives finite losses"),
        ("empty", "no rows, no loss"),
    ],
)
def test_losses(wrong, message):
    testing.check_loss(Loss("nothing"))
    with pytest.raises(AssertionError, match=message):
        testing.check_loss(Loss(wrong))


class Doubled(CrossEntropy):
    """Counts mixed pictures twice."""

    def unreduced(self, prediction, target):
        return super().unreduced(prediction, target) * (1 + target.is_floating_point())


def test_a_loss_of_classes_takes_probabilities_too():
    testing.check_loss(CrossEntropy())
    with pytest.raises(AssertionError, match="a class and a probability of 1 cost the same"):
        testing.check_loss(Doubled())


class Deaf(KLBox):
    """Does not hear of variances."""

    def unreduced(self, prediction, target):
        deltas, variance = prediction.chunk(2, dim=-1)
        return (deltas - target).abs().sum(-1) + (variance * 0).sum(-1).sqrt()


class OneSide(DistributionFocal):
    def unreduced(self, prediction, target):
        return super().unreduced(prediction, target)[..., None].expand_as(target)


def test_losses_of_uncertain_boxes_and_of_distributions():
    for loss in (KLBox(), DistributionFocal()):
        testing.check_loss(loss)
    with pytest.raises(AssertionError, match="gradients are finite"):
        testing.check_loss(Deaf())
    with pytest.raises(AssertionError, match="the unreduced loss is"):
        testing.check_loss(OneSide())


def test_a_loss_that_is_not_a_loss():
    with pytest.raises(AssertionError, match="`takes`"):
        testing.check_loss(nn.L1Loss())
    testing.check_loss(Focal())


class Suppressor(nn.Module):
    def __init__(self, change, max_detections: int = 20) -> None:
        super().__init__()
        self.inner, self.change, self.max_detections = BatchedNMS(max_detections=20), change, max_detections

    def forward(self, boxes, scores, labels):
        return self.change(self.inner(boxes, scores, labels))


@pytest.mark.parametrize(
    ("change", "rows", "message"),
    [
        (lambda d: d, 30, r"boxes are \[B, max_detections, 4\]"),
        (lambda d: d._replace(labels=d.labels[:, 1:]), 20, r"fields are \[B, D\]"),
        (lambda d: d._replace(scores=d.scores.flip(1)), 20, "best first"),
        (lambda d: d._replace(valid=torch.ones_like(d.valid)), 20, "padding has score 0 and is not valid"),
        (lambda d: d._replace(boxes=d.boxes + 1), 20, "padding is zero"),
    ],
)
def test_suppressors(change, rows, message):
    testing.check_suppressor(Suppressor(lambda d: d))
    with pytest.raises(AssertionError, match=message):
        testing.check_suppressor(Suppressor(change, rows))

"""Every part of every role keeps its role's contract."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest
import torch

from tests.contracts.library import LIBRARY
from torso import testing
from torso.assigners import ASSIGNERS
from torso.backbones import BACKBONES
from torso.boxes.coders import CODERS
from torso.boxes.priors import PRIORS
from torso.boxes.roi import BESIDE as BESIDE_ROIS
from torso.boxes.roi import ROIS, PositionSensitive, RoIAlign
from torso.boxes.suppress import BESIDE, SUPPRESSORS
from torso.criteria import DenseCriterion
from torso.heads import HEADS
from torso.losses import L1, LOSSES, Focal
from torso.necks import NECKS

# The smallest member of each family, so that the walk is quick.
SMALL: dict[str, dict[str, Any]] = {
    "csp_darknet": {"width": 0.125},
    "timm_trunk": {"model": "resnet18"},
    "detnas": {"levels": (2, 3)},
    "hourglass": {"widths": (16, 24, 32), "repeats": (1, 1, 1), "channels": 16},
    "shufflenet_v1": {"groups": 8, "scale": 0.25},
    "spinenet": {"depth": "49S"},
    "ssd_vgg": {"scale": 0.125},
}


@pytest.mark.part("backbone/tiny")
@pytest.mark.parametrize("name", sorted(set(BACKBONES) - set(LIBRARY) - {"timm_trunk"}))
def test_backbones(name: str) -> None:
    testing.check_backbone(BACKBONES[name](**SMALL.get(name, {})))


@pytest.mark.part("backbone/timm_trunk")
def test_a_trunk_gives_one_vector() -> None:
    trunk = BACKBONES["timm_trunk"](**SMALL["timm_trunk"]).eval()
    (vector,) = trunk(torch.rand(2, 3, 64, 64))
    assert list(vector.shape) == [2, trunk.channels[0], 1, 1]


# Arguments that make a neck small; the options of each are walked in tests/unit/necks.
SMALL_NECKS: dict[str, dict[str, object]] = {
    "aspp": {"channels": 8},
    "bifpn": {"channels": 8, "repeats": 1},
    "channel_mapper": {"channels": 8},
    "fpn": {"channels": 8},
    "full_fpn": {"channels": 8, "repeats": 1},
    "matrix": {"channels": 8},
    "nasfpn": {"channels": 8, "repeats": 1},
    "pan": {"channels": 8},
    "rfb": {"channels": 8},
    "rfp": {"channels": 8},
    "ssd_extra": {"widths": (16, 8)},
    "sfam": {"channels": 4, "repeats": 2, "scales": 3},
    "unet": {"channels": 8},
    "yolov2": {"channels": 8, "passed": 4},
}


@pytest.mark.parametrize("name", sorted(NECKS))
def test_necks(name: str) -> None:
    testing.check_neck(lambda channels, strides: NECKS[name](channels, strides, **SMALL_NECKS.get(name, {})))


def heads_that_take(word: str) -> list[str]:
    return sorted(name for name, head in HEADS.items() if word in signature(head).parameters)


@pytest.mark.parametrize("name", heads_that_take("num_priors"))
def test_dense_heads(name: str) -> None:
    testing.check_head(HEADS[name])


SMALL_ROI_HEADS: dict[str, dict[str, Any]] = {
    "roi_box": {"channels": 8},
    "roi_crop": {"backbone": BACKBONES["tiny"](widths=(8,), levels=(1,))},
    "roi_stage": {"channels": 16, "blocks": 2},
}


@pytest.mark.part("head/roi_box", "head/roi_crop", "head/roi_stage")
@pytest.mark.parametrize("name", heads_that_take("num_boxes"))
def test_heads_of_regions(name: str) -> None:
    roi = (PositionSensitive if name == "rfcn" else RoIAlign)([8], size=4)

    def make(**wired: Any) -> torch.nn.Module:
        taken = {key: value for key, value in wired.items() if key in signature(HEADS[name]).parameters}
        return HEADS[name](**taken, **SMALL_ROI_HEADS.get(name, {}))

    testing.check_roi_head(make, roi, channels=3 if name == "roi_crop" else 8)  # pixels


@pytest.mark.part("roi/align", "roi/pool", "roi/position_sensitive")
@pytest.mark.parametrize("name", sorted(set(ROIS) - set(BESIDE_ROIS)))
def test_rois(name: str) -> None:
    testing.check_roi(lambda strides: ROIS[name](strides, size=3))


@pytest.mark.part("head/classify")
def test_classify_head() -> None:
    head = HEADS["classify"](in_channels=[4, 6], num_classes=3)
    testing.check_module(head, lambda: ([torch.rand(2, 4, 8, 8), torch.rand(2, 6, 4, 4)],))
    assert head([torch.rand(2, 4, 8, 8), torch.rand(2, 6, 4, 4)]).shape == (2, 3)


# "reduction" is the function that all of them are reduced by, listed for its page: it compares nothing.
@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"reduction"}))
def test_losses(name: str) -> None:
    testing.check_loss(LOSSES[name]())


@pytest.mark.part("assigner/max_iou")
@pytest.mark.parametrize("name", sorted(ASSIGNERS))
def test_assigners(name: str) -> None:
    testing.check_assigner(ASSIGNERS[name]())


@pytest.mark.parametrize("name", sorted(set(SUPPRESSORS) - set(BESIDE)))  # they take no candidates
def test_suppressors(name: str) -> None:
    testing.check_suppressor(SUPPRESSORS[name](max_detections=50))


@pytest.mark.part("prior/anchors")
@pytest.mark.parametrize("name", sorted(PRIORS))
def test_priors(name: str) -> None:
    prior = PRIORS[name](strides=[8, 16])
    boxes, strides = prior([(3, 4), (2, 2)])
    first, second = prior.per_cell
    assert boxes.shape == (12 * first + 4 * second, 4)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert strides.tolist() == [[8, 8]] * 12 * first + [[16, 16]] * 4 * second


@pytest.mark.parametrize("name", sorted(PRIORS))
def test_priors_on_cells_that_are_no_squares(name: str) -> None:
    prior = PRIORS[name](strides=[(8, 16), (16, 8)])  # (height, width)
    boxes, strides = prior([(2, 2), (1, 1)])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    first, second = prior.per_cell
    assert strides.tolist() == [[16, 8]] * 4 * first + [[8, 16]] * second  # (x, y)
    step = centre[3 * first] - centre[0]
    torch.testing.assert_close(step, torch.tensor([16.0, 8.0]))


# Coders whose prediction says more than a box, or no box outside a range: tests/unit/parts has their properties.
ONE_WAY: set[str] = {"distribution", "grid", "ltrb"}


@pytest.mark.part("coder/delta")
@pytest.mark.parametrize("name", sorted(CODERS))
def test_coders_give_the_boxes_back(name: str) -> None:
    coder = CODERS[name]()
    low = torch.rand(2, 50, 2, dtype=torch.float64) * 100
    boxes = torch.cat([low, low + torch.rand(2, 50, 2, dtype=torch.float64) * 60 + 0.5], dim=-1)
    priors = torch.tensor([[0.0, 0, 32, 32]], dtype=torch.float64).expand(50, 4)
    strides = torch.full((50, 2), 16.0, dtype=torch.float64)
    deltas = coder.encode(boxes, priors, strides)
    if name not in ONE_WAY:
        assert deltas.shape == (2, 50, coder.size)
        torch.testing.assert_close(coder.decode(deltas, priors, strides), boxes)
    assert coder.encode(torch.zeros(50, 4), priors.float(), strides.float()).isfinite().all()


@pytest.mark.part("criterion/dense")
@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("box_loss", ["l1", "smooth_l1", "giou"])
def test_dense_criterion_with_any_number_of_objects(count: int, box_loss: str) -> None:
    output, targets = testing.dense_case(count)
    logits, deltas = output.logits.requires_grad_(), output.deltas.requires_grad_()
    coder = CODERS["delta"]()
    output = output._replace(boxes=coder.decode(deltas, output.priors))
    losses = DenseCriterion(ASSIGNERS["max_iou"](), Focal(), LOSSES[box_loss](), coder)(output, targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert deltas.grad is None or deltas.grad.isfinite().all()
    if count == 0:
        assert losses["box"].detach() == 0
        assert losses["class"].detach() > 0


@pytest.mark.part("criterion/dense")
def test_nothing_is_learned_in_ignored_regions() -> None:
    output, targets = testing.dense_case(40)
    logits = output.logits.requires_grad_()
    assigner = ASSIGNERS["max_iou"]()
    DenseCriterion(assigner, Focal(), L1(), CODERS["delta"]())(output, targets)["class"].backward()
    assigned = assigner(output, targets)
    neither = ~(assigned.positive | assigned.negative)
    assert neither.any()
    assert logits.grad is not None
    assert not logits.grad[neither].any()
    assert logits.grad[~neither].all()


@pytest.mark.part("criterion/dense", "assigner/max_iou", "loss/focal")
def test_assignment_and_losses_are_one_graph() -> None:
    output, targets = testing.dense_case(12)
    criterion = DenseCriterion(ASSIGNERS["max_iou"](), Focal(), L1(), CODERS["delta"]())
    report = torch._dynamo.explain(criterion)(output, targets)
    assert report.graph_break_count == 0, report.break_reasons

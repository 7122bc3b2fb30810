"""Soft suppression and fusion against ensemble_boxes, Matrix NMS against the code in its paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from torso.boxes.suppress import MatrixNMS, SoftNMS, WeightedFusion
from torso.structures import Detections

peer = pytest.importorskip("ensemble_boxes")


def scene(seed: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in 0..1, which is what ensemble_boxes takes, of float64."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 0.6
    side = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 0.35 + 0.05
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.cat([low, low + side], dim=1), scores, torch.randint(0, 4, (count,), generator=generator)


def assert_same(found: Detections, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, tolerance: float) -> None:
    order = np.argsort(-scores, kind="stable")
    count = int(found.valid.sum())
    assert count == len(scores)
    np.testing.assert_allclose(found.scores[0, :count], scores[order], rtol=tolerance)
    np.testing.assert_allclose(found.boxes[0, :count], boxes[order], rtol=tolerance)
    np.testing.assert_array_equal(found.labels[0, :count], labels[order])


@pytest.mark.part("suppress/soft_nms")
@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("count", [1, 20, 400])
@pytest.mark.parametrize("overlap", [0.2, 0.5])
def test_soft_nms_is_that_of_ensemble_boxes(method, count, overlap):
    boxes, scores, labels = scene(count, count)
    # They return the first scores of what is left. The lowered ones are in the array of scores that they were given.
    kept, lowered, classes = [], [], []
    for label in labels.unique().tolist():
        rows = labels == label
        theirs = scores[rows].numpy().copy()
        dets = boxes[rows].numpy()
        from ensemble_boxes.ensemble_boxes_nms import cpu_soft_nms_float

        left = cpu_soft_nms_float(dets.copy(), theirs, overlap, 0.4, 0.01, {"linear": 1, "gaussian": 2}[method])
        kept.append(dets[left])
        lowered.append(theirs[theirs > 0.01])
        classes.append(np.full(len(left), label))
    found = SoftNMS(method, overlap, 0.4, 0.01, count)(boxes[None], scores[None], labels[None])
    assert_same(found, np.concatenate(kept), np.concatenate(lowered), np.concatenate(classes), 1e-9)


def answers(seed: int) -> list[Detections]:
    """Three models about the same objects: shaken boxes, other scores, some not seen."""
    boxes, _, labels = scene(seed, 60)
    generator = torch.Generator().manual_seed(seed + 1)
    found = []
    for _ in range(3):
        seen = torch.rand(60, generator=generator) > 0.3
        shaken = (boxes + torch.randn(boxes.shape, generator=generator, dtype=torch.float64) * 0.01).clamp(0, 1)
        scores = (torch.rand(60, generator=generator, dtype=torch.float64) * 0.9 + 0.05) * seen
        found.append(Detections(shaken[None], scores[None], labels[None], scores[None] > 0))
    return found


@pytest.mark.part("suppress/weighted_fusion", "suppress/ensemble")
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)], ids=["equal", "weighted"])
@pytest.mark.parametrize(
    ("confidence", "theirs"),
    [
        ("average", "avg"),
        ("max", "max"),
        ("box_and_model", "box_and_model_avg"),
        ("absent_model", "absent_model_aware_avg"),
    ],
)
def test_fusion_is_that_of_ensemble_boxes(confidence, theirs, weights):
    for seed in range(5):
        found = answers(seed)
        boxes, scores, labels = ([each[field][0][each.valid[0]].numpy() for each in found] for field in range(3))
        expected = peer.weighted_boxes_fusion(boxes, scores, labels, weights, iou_thr=0.55, conf_type=theirs)
        fused = WeightedFusion(0.55, confidence, weights, 180).fuse(found)
        assert len(expected[1]) < sum(map(len, scores)), "something was fused"
        assert_same(fused, *expected, 1e-5)  # they keep fused boxes in float32


@pytest.mark.part("suppress/weighted_fusion")
def test_fusion_of_one_model_is_that_of_ensemble_boxes():
    boxes, scores, labels = scene(3, 200)
    expected = peer.weighted_boxes_fusion([boxes.numpy()], [scores.numpy()], [labels.numpy()], iou_thr=0.4)
    assert_same(WeightedFusion(0.4)(boxes[None], scores[None], labels[None]), *expected, 1e-5)


@pytest.mark.part("suppress/soft_nms")
@pytest.mark.parametrize(("method", "number"), [("linear", 1), ("gaussian", 2)])
@pytest.mark.parametrize("count", [30, 3000])
def test_soft_nms_of_whole_pixels_is_that_of_opencv(method, number, count):
    import cv2

    boxes, scores, _ = scene(13, count)
    boxes = (boxes * 500).round().float()
    plain = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).int().tolist()
    lowered, left = cv2.dnn.softNMSBoxes(plain, scores.tolist(), 0.01, 0.3, top_k=200, sigma=0.4, method=number)
    found = SoftNMS(method, 0.3, 0.4, 0.01, 200, per_class=False)(
        boxes[None], scores.float()[None], torch.zeros(1, count, dtype=torch.int64)
    )
    left = np.ravel(left)
    assert_same(found, boxes[left].numpy(), np.ravel(lowered), np.zeros(len(left)), 1e-4)


@pytest.mark.part("suppress/soft_nms")
def test_soft_nms_over_all_classes_is_that_of_effdet():
    soft = pytest.importorskip("effdet.soft_nms")
    boxes, scores, _ = scene(7, 150)
    left, lowered = soft.soft_nms(boxes.float(), scores.float(), True, 0.4, 0.3, 0.01)
    found = SoftNMS("gaussian", 0.3, 0.4, 0.01, 150, per_class=False)(
        boxes.float()[None], scores.float()[None], torch.zeros(1, 150, dtype=torch.int64)
    )
    assert_same(found, boxes[left].float().numpy(), lowered.numpy(), np.zeros(len(left), dtype=np.int64), 1e-5)


@pytest.mark.part("suppress/matrix_nms")
@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_matrix_nms_is_what_solov2_computes(method):
    from torchvision.ops import box_iou

    boxes, scores, labels = scene(11, 120)
    order = scores.argsort(descending=True)
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    # The steps of the paper's Figure: everything as matrices over sorted boxes.
    overlap = (box_iou(boxes, boxes) * (labels[:, None] == labels)).triu(diagonal=1)
    worst = overlap.amax(dim=0).expand(120, 120).T
    if method == "linear":
        factor = ((1 - overlap) / (1 - worst)).amin(dim=0)
    else:
        factor = (torch.exp(-2 * overlap**2) / torch.exp(-2 * worst**2)).amin(dim=0)
    lowered = scores * factor
    left = lowered > 0.05
    found = MatrixNMS(method, 0.5, 0.05)(boxes[None], scores[None], labels[None])
    assert_same(found, boxes[left].numpy(), lowered[left].numpy(), labels[left].numpy(), 1e-9)

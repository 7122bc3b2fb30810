"""Suppression of one picture, 80 classes, 300 detections, against torchvision, ensemble_boxes and OpenCV.

Greedy suppression gives equal answers. Of soft suppression ensemble_boxes counts in float64 and cuts boxes to 0..1;
OpenCV takes whole pixels, where its answer is ours, and knows no classes, so it is called class by class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from ensemble_boxes import soft_nms
from measure import milliseconds, ratio, rounds, write
from torch import Tensor

from torso.boxes.suppress import NMS, BatchedNMS, SoftNMS

ROUNDS, SIDE, CLASSES, OVERLAP, MOST, SIGMA, SCORE = 15, 640, 80, 0.5, 300, 0.5, 0.001
SOFT_ROUNDS = 5
GAUSSIAN = 2  # of ensemble_boxes


def scene(count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    centre = torch.rand(count, 2, generator=generator) * SIDE
    half = torch.rand(count, 2, generator=generator) * 60 + 4
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return torch.cat([centre - half, centre + half], dim=1), torch.rand(count, generator=generator), labels


def tasks(count: int) -> dict[str, Callable[[], Tensor]]:
    """Both of each kind; every task returns the scores of the answer."""
    boxes, scores, labels = scene(count)
    batched, agnostic, batch = BatchedNMS(OVERLAP, MOST), NMS(OVERLAP, MOST), (boxes[None], scores[None], labels[None])
    return {
        "torso batched": lambda: batched(*batch).scores[0],
        "torchvision batched": lambda: scores[torchvision.ops.batched_nms(boxes, scores, labels, OVERLAP)[:MOST]],
        "torso agnostic": lambda: agnostic(*batch).scores[0],
        "torchvision agnostic": lambda: scores[torchvision.ops.nms(boxes, scores, OVERLAP)[:MOST]],
    }


def opencv(boxes: list[list[int]], scores: list[float]) -> Any:
    return cv2.dnn.softNMSBoxes(
        boxes, scores, SCORE, OVERLAP, top_k=MOST, sigma=SIGMA, method=cv2.dnn.SOFT_NMSMETHOD_SOFTNMS_GAUSSIAN
    )


def soft_tasks(count: int) -> dict[str, Callable[[], Any]]:
    """Gaussian soft suppression, within classes and over all; what is given to the others is made ready before."""
    boxes, scores, labels = scene(count)
    batch = boxes[None], scores[None], labels[None]
    batched = SoftNMS("gaussian", sigma=SIGMA, score=SCORE, max_detections=MOST)
    agnostic = SoftNMS("gaussian", sigma=SIGMA, score=SCORE, max_detections=MOST, per_class=False)
    shares, points, classes = (boxes / SIDE).clamp(0, 1).double().numpy(), scores.double().numpy(), labels.numpy()
    whole = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).round().int()
    groups = [(whole[rows].tolist(), scores[rows].tolist()) for rows in (labels == c for c in range(CLASSES))]
    together = whole.tolist(), scores.tolist()
    return {
        "torso soft batched": lambda: batched(*batch).scores[0],
        "ensemble_boxes soft batched": lambda: soft_nms([shares], [points], [classes], GAUSSIAN, OVERLAP, SIGMA, SCORE),
        "cv2 soft batched": lambda: [opencv(*group) for group in groups],
        "torso soft agnostic": lambda: agnostic(*batch).scores[0],
        "cv2 soft agnostic": lambda: opencv(*together),
    }


def check_soft(count: int) -> None:
    """OpenCV's answer on boxes of whole pixels is ours."""
    boxes, scores, _ = scene(count)
    found = SoftNMS("gaussian", sigma=SIGMA, score=SCORE, max_detections=MOST, per_class=False)(
        boxes.round()[None], scores[None], torch.zeros(1, count, dtype=torch.int64)
    )
    corners = boxes.round().int()
    lowered, _ = opencv(torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist(), scores.tolist())
    np.testing.assert_allclose(found.scores[0, : len(lowered)].numpy(), np.ravel(lowered), rtol=1e-4)


def main() -> None:
    results = {}
    for count in (1000, 10_000, 30_000):
        pair = tasks(count)
        for kind in ("batched", "agnostic"):
            ours, theirs = pair[f"torso {kind}"](), pair[f"torchvision {kind}"]()
            assert torch.equal(ours[: len(theirs)], theirs)
        check_soft(count)
        seconds = rounds(pair, ROUNDS, warm=2) | rounds(soft_tasks(count), SOFT_ROUNDS, warm=1)
        ratios = {
            f"ratio {kind}": ratio(seconds, f"torso {kind}", f"torchvision {kind}") for kind in ("batched", "agnostic")
        }
        for kind, peers in (("batched", ("ensemble_boxes", "cv2")), ("agnostic", ("cv2",))):
            # The best peer is the one beside which we are slowest.
            best = max(ratio(seconds, f"torso soft {kind}", f"{peer} soft {kind}") for peer in peers)
            ratios[f"ratio soft {kind}"] = best
        results[count] = {"milliseconds": {name: milliseconds(values) for name, values in seconds.items()}} | ratios
    write("nms", rounds=ROUNDS, soft_rounds=SOFT_ROUNDS, boxes=results)


if __name__ == "__main__":
    main()

"""From a head's output to detections, one picture of 640 px and 80 classes: torso's steps against torchvision's models.

Few of the random scores exceed the threshold, as in a trained network; both give the same boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from measure import milliseconds, ratio, rounds, write
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from torso.boxes.candidates import candidates, candidates_of_classes
from torso.boxes.coders import LTRB, Delta
from torso.boxes.convert import clip
from torso.boxes.suppress import BatchedNMS
from torso.structures import Detections

ROUNDS, CLASSES = 15, 80
Task = Callable[[], Any]


def model_of(name: str) -> Any:
    make = getattr(torchvision.models.detection, name)
    return make(weights=None, weights_backbone=None, num_classes=CLASSES + (name == "ssd300_vgg16")).eval()


def priors(model: Any, side: int, sides: list[int]) -> Tensor:
    maps = [torch.zeros(1, 1, each, each) for each in sides]
    found: Tensor = model.anchor_generator(ImageList(torch.zeros(1, 3, side, side), [(side, side)]), maps)[0]
    return found


def said(count: int, classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random class logits, deltas and centerness."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, count, classes, generator=generator)
    return logits, torch.randn(1, count, 4, generator=generator) * 0.2, torch.randn(1, count, 1, generator=generator)


def retinanet() -> tuple[Task, Task]:
    side, model = 640, model_of("retinanet_resnet50_fpn")
    sides = [80, 40, 20, 10, 5]
    counts, anchors = [each**2 * 9 for each in sides], priors(model, side, sides)
    logits, deltas, _ = said(len(anchors), CLASSES, 0)
    logits = logits - 6
    suppress, coder = BatchedNMS(0.5, 300), Delta()
    heads = {"cls_logits": list(logits.split(counts, 1)), "bbox_regression": list(deltas.split(counts, 1))}

    def ours() -> Detections:
        boxes = clip(coder.decode(deltas, anchors), side, side)
        return suppress(*candidates(logits.sigmoid(), boxes, counts, 0.05, 1000))

    return ours, lambda: model.postprocess_detections(heads, [list(anchors.split(counts))], [(side, side)])[0]


def fcos() -> tuple[Task, Task]:
    side, model = 640, model_of("fcos_resnet50_fpn")
    sides = [80, 40, 20, 10, 5]
    counts, points = [each**2 for each in sides], priors(model, side, sides)
    logits, deltas, centerness = said(len(points), CLASSES, 1)
    logits, deltas = logits - 4, deltas * 20
    suppress, coder = BatchedNMS(0.6, 100), LTRB("prior", "relu")
    heads = {
        "cls_logits": list(logits.split(counts, 1)),
        "bbox_regression": list(deltas.relu().split(counts, 1)),  # their head ends with it
        "bbox_ctrness": list(centerness.split(counts, 1)),
    }

    def ours() -> Detections:
        boxes = clip(coder.decode(deltas, points), side, side)
        scores = logits.sigmoid().sqrt() * centerness.sigmoid().sqrt()
        return suppress(*candidates(scores, boxes, counts, 0.2, 1000))

    return ours, lambda: model.postprocess_detections(heads, [list(points.split(counts))], [(side, side)])[0]


def ssd() -> tuple[Task, Task]:
    side, model = 300, model_of("ssd300_vgg16")
    sides = [38, 19, 10, 5, 3, 1]
    boxes = priors(model, side, sides)
    logits, deltas, _ = said(len(boxes), CLASSES + 1, 2)
    logits[..., 0] += 9  # their background is the first, ours the last
    own = torch.cat([logits[..., 1:], logits[..., :1]], dim=-1)
    suppress, coder = BatchedNMS(0.45, 200), Delta(weights=(10, 10, 5, 5))
    heads = {"cls_logits": logits, "bbox_regression": deltas}

    def ours() -> Detections:
        decoded = clip(coder.decode(deltas, boxes), side, side)
        return suppress(*candidates_of_classes(own.softmax(dim=-1)[..., :-1], decoded, 0.01, 400))

    return ours, lambda: model.postprocess_detections(heads, [boxes], [(side, side)])[0]


def main() -> None:
    results = {}
    for name, make in (("retinanet", retinanet), ("fcos", fcos), ("ssd", ssd)):
        ours, theirs = make()
        found, expected = ours(), theirs()
        count = len(expected["scores"])
        assert int(found.valid.sum()) == count, (name, int(found.valid.sum()), count)
        torch.testing.assert_close(found.scores[0, :count], expected["scores"], rtol=1e-5, atol=0)
        torch.testing.assert_close(found.boxes[0, :count], expected["boxes"], rtol=1e-5, atol=1e-3)
        seconds = rounds({"torso": ours, "torchvision": theirs}, ROUNDS, warm=2)
        results[name] = {
            "detections": count,
            "milliseconds": {task: milliseconds(values) for task, values in seconds.items()},
            "ratio": ratio(seconds, "torso", "torchvision"),
        }
    write("postprocess", rounds=ROUNDS, models=results)


if __name__ == "__main__":
    main()

"""Per-class suppression of one picture, 80 classes, IoU 0.5, 300 detections, against torchvision; equal answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from measure import milliseconds, ratio, rounds, write
from torch import Tensor

from torso.boxes.suppress import NMS, BatchedNMS

ROUNDS, SIDE, CLASSES, OVERLAP, MOST = 15, 640, 80, 0.5, 300


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


def main() -> None:
    results = {}
    for count in (1000, 10_000, 30_000):
        pair = tasks(count)
        for kind in ("batched", "agnostic"):
            ours, theirs = pair[f"torso {kind}"](), pair[f"torchvision {kind}"]()
            assert torch.equal(ours[: len(theirs)], theirs)
        seconds = rounds(pair, ROUNDS, warm=2)
        results[count] = {"milliseconds": {name: milliseconds(values) for name, values in seconds.items()}} | {
            f"ratio {kind}": ratio(seconds, f"torso {kind}", f"torchvision {kind}") for kind in ("batched", "agnostic")
        }
    write("nms", rounds=ROUNDS, boxes=results)


if __name__ == "__main__":
    main()

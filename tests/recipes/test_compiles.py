"""Every shipped detector at a small size: one graph each for network, losses and answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.recipes.models import CLASSES, DETECTORS, SIZE, small
from tests.recipes.small import SMALL
from torso.models import Detector
from torso.structures import Batch, DenseOutput, Targets


def batch_of(seed: int, objects: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    corner = torch.rand(2, objects, 2, generator=generator) * 80
    boxes = torch.cat([corner, corner + 8 + torch.rand(2, objects, 2, generator=generator) * 40], dim=-1)
    valid = torch.rand(2, objects, generator=generator) > 0.3
    labels = torch.randint(0, len(CLASSES), (2, objects), generator=generator)
    x, y = torch.arange(SIZE) + 0.5, torch.arange(SIZE)[:, None] + 0.5
    x0, y0, x1, y1 = boxes[..., None, None].unbind(dim=2)
    round_ones = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 < 1  # [B, M, H, W]
    targets = Targets(boxes, labels, valid, ~valid, masks=round_ones)
    return Batch(images, targets, torch.arange(2), torch.eye(3).expand(2, 3, 3), torch.full((2, 2), SIZE))


def leaves(output: DenseOutput) -> DenseOutput:
    """The same numbers as inputs that want gradients."""
    extra = {name: x.detach().requires_grad_() for name, x in output.extra.items()}
    logits, deltas, boxes = (x.detach().requires_grad_() for x in (output.logits, output.deltas, output.boxes))
    return output._replace(logits=logits, deltas=deltas, boxes=boxes, extra=extra)


def graphs(call: Any, inputs: list[tuple[Any, ...]]) -> int:
    """How often the compiler had to look, over several inputs of one size; a break in the graph is an error."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(call, fullgraph=True, backend=counter)
    for each in inputs:
        compiled(*each)
    return int(counter.frame_count)


def test_every_detector_has_a_small_form() -> None:
    assert set(DETECTORS) == set(SMALL)


@pytest.mark.parametrize("name", DETECTORS)
def test_network_losses_and_answer_are_one_graph_each(name: str) -> None:
    model = small(name)
    batches = [batch_of(seed) for seed in range(3)]
    assert graphs(model.train(), [(batch.images,) for batch in batches]) == 1
    if isinstance(model, Detector):
        outputs = [leaves(model(batch.images)) for batch in batches]
        assert graphs(model.criterion, [(o, b.targets) for o, b in zip(outputs, batches, strict=True)]) == 1
    else:  # regions are chosen between the losses
        assert graphs(model.losses, [(batch,) for batch in batches]) == 1
    with torch.no_grad():
        assert graphs(model.eval().predict, [(batch.images,) for batch in batches]) == 1

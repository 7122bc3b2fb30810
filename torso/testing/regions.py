"""What is checked of operations on regions, and of heads that look at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torso.structures import Features
from torso.testing.module import check_module


def check_roi_head(make: Callable[..., nn.Module], roi: nn.Module, num_classes: int = 3, channels: int = 8) -> None:
    """A head of regions gives ``[B, R, K]`` logits and ``[B, R, boxes * D]`` deltas, also for other classes.

    Args:
        make: called with ``in_channels``, ``num_classes``, ``coder_size``, ``num_boxes`` and ``region_size``.
        roi: cuts the regions out; one level of stride 8.
        num_classes: classes to try it with; the background comes on top.
        channels: of the level.
    """
    features, low = [torch.rand(2, channels, 8, 8)], torch.rand(2, 5, 2) * 40
    boxes = torch.cat([low, low + 4 + torch.rand(2, 5, 2) * 20], dim=-1)
    for each in (False, True):
        head: Any = make(
            in_channels=[channels],
            num_classes=num_classes + 1,
            coder_size=4,
            num_boxes=num_classes if each else 1,
            region_size=roi.size,
        )
        for classes in (num_classes, num_classes + 2):
            said = head(roi(head.maps(features), boxes))
            number = classes if each else 1
            assert head.num_boxes == number, "num_boxes is kept, and follows the classes where each has its own"
            assert said.logits.shape == (2, 5, classes + 1), f"logits are [B, R, K], got {list(said.logits.shape)}"
            assert said.deltas.shape == (2, 5, number * 4), f"deltas are [B, R, boxes * D], got {said.deltas.shape}"
            head.reset_classes(num_classes + 3)
        check_module(_OnMaps(head, roi), lambda: ([torch.rand(2, channels, 8, 8)], boxes))


def check_roi(make: Callable[[list[int]], nn.Module]) -> None:
    """An operation on regions has one size, whatever a box is, and no region sees another one or another picture.

    Padding and boxes outside are finite; it learns, compiles to one graph, and is exported for any number of
    pictures of any size.

    Args:
        make: constructs it from the strides of two levels.
    """
    part: Any = make([8, 16])
    channels = 2 * part.size**2  # also divisible among bins

    def features() -> Features:
        return [torch.rand(2, channels, side, side + 1, requires_grad=True) for side in (16, 8)]

    low = torch.rand(2, 12, 2) * 100
    boxes = torch.cat([low, low + torch.rand(2, 12, 2) ** 2 * 120], dim=-1)
    boxes[:, 8:] = torch.tensor([[0.0, 0, 0, 0], [40, 40, 40, 40], [-900, -900, -800, -700], [-50, 30, 500, 60]])
    levels = features()
    found = part(levels, boxes)
    shape = (2, 12, found.shape[2], part.size, part.size)
    assert found.shape == shape, f"regions are [B, R, C, size, size], got {list(found.shape)}"
    assert found.shape[2] in (2, channels), "C are the channels, or as many as each bin has"
    assert found.isfinite().all(), "padding and boxes outside of the picture are finite"
    gradients = torch.autograd.grad(found.square().sum(), levels, allow_unused=True)
    assert gradients[0] is not None, "features get a gradient"
    assert all(x.isfinite().all() for x in gradients if x is not None), "gradients are finite"
    swapped = part([x.flip(0) for x in levels], boxes.flip(0, 1))
    torch.testing.assert_close(swapped, found.flip(0, 1), msg="regions and pictures do not see each other")
    check_module(part, lambda: (features(), boxes))
    anything = torch.export.Dim.DYNAMIC
    shapes = ([dict.fromkeys((0, 2, 3), anything)] * 2, {0: anything})
    with torch.no_grad():
        program = torch.export.export(part, (features(), boxes), dynamic_shapes=shapes).module()
        levels = [torch.rand(3, channels, 2 * side, 3 * side) for side in (10, 5)]
        boxes = torch.cat([boxes, boxes[:1]])
        torch.testing.assert_close(program(levels, boxes), part(levels, boxes), msg="the export answers so too")


class _OnMaps(nn.Module):
    """A head of regions with what goes before it."""

    def __init__(self, head: nn.Module, roi: nn.Module) -> None:
        super().__init__()
        self.head, self.roi = head, roi

    def forward(self, features: Features, boxes: Tensor) -> Any:
        return self.head(self.roi(self.head.maps(features), boxes))  # type: ignore[operator]

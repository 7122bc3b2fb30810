"""Regions cut out by torso against torchvision's operators, in float64, with gradients to the features."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from torso.boxes.roi import PositionSensitive, RoIAlign, RoIPool, level_of

SIZE, STRIDE = 5, 8
HEIGHT, WIDTH = 25, 31  # cells

close = torch.testing.assert_close


def boxes_of(seed: int, batch: int = 2, count: int = 60) -> Tensor:
    """Boxes of all sizes and forms, across all borders and wholly outside, some on halves of cells, some empty."""
    generator = torch.Generator().manual_seed(seed)
    side = torch.tensor([WIDTH, HEIGHT]) * STRIDE
    centre = (torch.rand(batch, count, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2) * side
    half = torch.rand(batch, count, 2, generator=generator, dtype=torch.float64) ** 3 * side / 2
    boxes = torch.cat([centre - half, centre + half], dim=-1)
    boxes[:, ::5] = (boxes[:, ::5] / 4).round() * 4  # halves of cells are rounded
    boxes[:, 3] = 0
    boxes[:, 7, 2:] = boxes[:, 7, :2]
    return boxes


def listed(boxes: Tensor) -> Tensor:
    """As torchvision wants them: ``[B * R, 5]``, the number of the picture first."""
    number = torch.arange(len(boxes)).repeat_interleave(boxes.shape[1]).to(boxes)
    return torch.cat([number[:, None], boxes.flatten(0, 1)], dim=1)


Operator = Callable[[Tensor, Tensor], Tensor]


def compare(part: nn.Module, theirs: Operator, channels: int, taught: Operator | None = None) -> None:
    """The same numbers, and the same gradients for the features (those of ``taught`` where it is given)."""
    for seed in range(3):
        torch.manual_seed(seed)
        features = torch.randn(2, channels, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
        boxes = boxes_of(seed)
        found, expected = part([features], boxes).flatten(0, 1), theirs(features, listed(boxes))
        assert expected.abs().sum(dim=(1, 2, 3)).count_nonzero() > 80, "most boxes see something"
        close(found, expected, rtol=1e-9, atol=1e-11)
        weight = torch.randn_like(expected)
        (ours,) = torch.autograd.grad(found, features, weight)
        again = expected if taught is None else taught(features, listed(boxes))
        (there,) = torch.autograd.grad(again, features, weight)
        close(ours, there, rtol=1e-9, atol=1e-11)


@pytest.mark.part("roi/align")
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_align_is_torchvisions(ratio: int, aligned: bool) -> None:
    from torchvision.ops import roi_align

    part = RoIAlign([STRIDE], SIZE, ratio, aligned)
    compare(part, lambda x, boxes: roi_align(x, boxes, SIZE, 1 / STRIDE, ratio, aligned), channels=3)


@pytest.mark.part("roi/pool")
@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_pool_is_torchvisions(size: int) -> None:
    from torchvision.ops import roi_pool

    part = RoIPool([STRIDE], size, cells=64)
    compare(part, lambda x, boxes: roi_pool(x, boxes, size, 1 / STRIDE), channels=3)


@pytest.mark.part("roi/position_sensitive")
@pytest.mark.parametrize("ratio", [1, 2])
def test_position_sensitive_align_is_torchvisions(ratio: int) -> None:
    from torchvision.ops import ps_roi_align

    part = PositionSensitive([STRIDE], SIZE, "align", ratio)
    compare(part, lambda x, boxes: ps_roi_align(x, boxes, SIZE, 1 / STRIDE, ratio), channels=2 * SIZE**2)


@pytest.mark.part("roi/position_sensitive")
@pytest.mark.parametrize("size", [1, 3, 5])
def test_position_sensitive_pool_is_torchvisions(size: int) -> None:
    from torchvision.ops import ps_roi_pool

    def theirs(x: Tensor, boxes: Tensor) -> Tensor:
        # Its forward never looks at the last row and column, as its backward does: here they are further ones.
        return ps_roi_pool(functional.pad(x, (0, 1, 0, 1)), boxes, size, 1 / STRIDE)

    def taught(x: Tensor, boxes: Tensor) -> Tensor:
        return ps_roi_pool(x, boxes, size, 1 / STRIDE)

    compare(PositionSensitive([STRIDE], size, "pool"), theirs, channels=2 * size**2, taught=taught)


@pytest.mark.part("roi/level_assignment")
def test_levels_are_those_of_torchvisions_mapper() -> None:
    from torchvision.ops.poolers import LevelMapper

    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(5000, 2, generator=generator) * 400
    side = 2 ** (torch.rand(5000, 2, generator=generator) * 10)
    exact = torch.tensor([[0, 0, s, s] for s in (0.0, 1.0, 55.9999, 56.0, 111.9999, 112.0, 224.0, 448.0, 896.0)])
    boxes = torch.cat([torch.cat([corner, corner + side], dim=1), exact])
    for finest, coarsest in ((2, 5), (3, 6), (4, 4)):
        expected = LevelMapper(finest, coarsest)([boxes])
        assert torch.equal(level_of(boxes, coarsest - finest + 1, at=4 - finest), expected)
    assert len(level_of(boxes, 4).unique()) == 4, "the case has boxes on every level"


@pytest.mark.part("roi/align", "roi/level_assignment")
@pytest.mark.parametrize("size", [7, 14])
def test_a_pyramid_is_torchvisions(size: int) -> None:
    from torchvision.ops import MultiScaleRoIAlign

    torch.manual_seed(0)
    side, strides = 1024, [4, 8, 16, 32]
    features = [torch.randn(2, 4, side // s, side // s, dtype=torch.float64, requires_grad=True) for s in strides]
    further = torch.randn(2, 4, 8, 8, dtype=torch.float64)  # of a pyramid with more levels than are looked at
    corner = torch.rand(2, 70, 2, dtype=torch.float64) * side / 2
    length = 2 ** (torch.rand(2, 70, 2, dtype=torch.float64) * 6 + 4)
    boxes = torch.cat([corner, (corner + length).clamp(max=side)], dim=-1)
    theirs = MultiScaleRoIAlign([str(i) for i in range(4)], size, 2)
    expected = theirs({str(i): x for i, x in enumerate(features)}, list(boxes), [(side, side)] * 2)
    found = RoIAlign([*strides, 64], size, levels=4)([*features, further], boxes).flatten(0, 1)
    close(found, expected, rtol=1e-9, atol=1e-11)
    weight = torch.randn_like(expected)
    for ours, there in zip(
        torch.autograd.grad(found, features, weight), torch.autograd.grad(expected, features, weight), strict=True
    ):
        assert there.any(), "the level is looked at"
        close(ours, there, rtol=1e-9, atol=1e-11)

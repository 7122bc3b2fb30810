"""What regions of interest see, and what they cannot see."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from torso.boxes.roi import BESIDE, ROIS, PositionSensitive, RoIAlign, RoIPool, level_of
from torso.boxes.roi_pool import rounded
from torso.testing import check_roi

STRIDE = 16

close = torch.testing.assert_close


def ramp(cells: int = 20) -> Tensor:
    """A map ``[1, 2, cells, cells]`` whose numbers are where the centres of its cells lie, in pixels: x, then y."""
    at = (torch.arange(cells, dtype=torch.float64) + 0.5) * STRIDE
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y])[None]


def box(left: float, top: float, width: float, height: float) -> Tensor:
    return torch.tensor([[[left, top, left + width, top + height]]], dtype=torch.float64)


@pytest.mark.part("roi/align", "roi/pool")
def test_pooling_is_blind_to_shifts_that_align_sees() -> None:
    align, pool = RoIAlign([STRIDE], 4, aligned=True), RoIPool([STRIDE], 4)
    here, shifted = box(50, 66, 130, 130), box(50 + 0.2 * STRIDE, 66, 130, 130)  # a fifth of a cell to the right
    assert torch.equal(pool([ramp()], here), pool([ramp()], shifted)), "both are rounded to the same cells"
    moved = align([ramp()], shifted) - align([ramp()], here)
    close(moved[0, 0, 0], torch.full((4, 4), 0.2 * STRIDE, dtype=torch.float64))
    close(moved[0, 0, 1], torch.zeros(4, 4, dtype=torch.float64))


@pytest.mark.part("roi/align")
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_align_is_exact_on_a_ramp_and_half_a_cell_off_when_it_is_not_aligned(ratio: int) -> None:
    where = box(70, 91, 83, 61)
    centres = torch.stack(
        [
            (70 + (torch.arange(7) + 0.5) * 83 / 7).double().expand(7, 7),
            (91 + (torch.arange(7) + 0.5) * 61 / 7).double()[:, None].expand(7, 7),
        ]
    )
    for aligned, off in ((True, 0.0), (False, STRIDE / 2)):
        found = RoIAlign([STRIDE], 7, ratio, aligned)([ramp()], where)
        close(found[0, 0], centres + off)


@pytest.mark.part("roi/position_sensitive")
def test_position_sensitive_align_is_exact_where_each_bin_looks() -> None:
    maps = ramp()[:, :1].repeat(1, 9, 1, 1) + 1000.0 * torch.arange(9).view(1, 9, 1, 1)
    found = PositionSensitive([STRIDE], 3, "align")([maps], box(70, 91, 84, 60))
    x = (70 + (torch.arange(3) + 0.5) * 28).double().expand(3, 3)
    close(found[0, 0, 0], x + 1000.0 * torch.arange(9).view(3, 3))


@pytest.mark.part("roi/align")
def test_the_largest_sample_is_taken_where_that_is_asked_for() -> None:
    from torchvision.ops import roi_align

    torch.manual_seed(0)
    features = torch.randn(1, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    boxes = torch.rand(1, 9, 4, dtype=torch.float64).sort(dim=-1).values[..., [0, 1, 2, 3]] * 190
    found = RoIAlign([STRIDE], 4, ratio=2, reduce="max")([features], boxes)
    # Of twice as many bins with a sample each, every one is a sample of ours.
    rows = torch.cat([torch.zeros(9, 1, dtype=torch.float64), boxes[0]], dim=1)
    each = roi_align(features, rows, 8, 1 / STRIDE, 1, aligned=False)
    expected = nn.functional.max_pool2d(each, 2)[None]
    close(found, expected)
    weight = torch.randn_like(found)
    close(torch.autograd.grad(found, features, weight)[0], torch.autograd.grad(expected, features, weight)[0])
    assert (found > RoIAlign([STRIDE], 4)([features], boxes)).all()


@pytest.mark.part("roi/pool")
def test_of_a_bin_that_is_too_long_the_middle_is_not_looked_at() -> None:
    features = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    features[0, 0, 5, 6] = 1
    where = box(0, 0, 12, 12)
    assert RoIPool([1], 1, cells=16)([features], where).item() == 1
    assert RoIPool([1], 1, cells=4)([features], where).item() == 0


@pytest.mark.part("roi/pool")
def test_halves_are_rounded_away_from_zero() -> None:
    given = torch.tensor([-2.5, -1.5, -0.5, -0.4, 0.0, 0.49999997, 0.5, 1.5, 2.5, 8388609.0])
    assert rounded(given).tolist() == [-3.0, -2.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 8388609.0]


@pytest.mark.part("roi/level_assignment")
@given(side=st.floats(1, 2000), ratio=st.floats(0.1, 10))
def test_twice_the_side_is_one_level_coarser(side: float, ratio: float) -> None:
    boxes = torch.tensor([0, 0, side * ratio, side / ratio], dtype=torch.float64)
    one, two = int(level_of(boxes, 9, at=4)), int(level_of(2 * boxes, 9, at=4))
    assert two == min(one + 1, 8) or one == 0
    moved = boxes + torch.tensor([7.0, 9.0, 7.0, 9.0])
    assert abs(int(level_of(moved, 9, at=4)) - one) <= 1, "but for rounding, where it lies does not matter"
    assert level_of(boxes, 1) == 0


@pytest.mark.part("roi/level_assignment")
def test_what_is_no_box_belongs_to_the_finest_level() -> None:
    strange = torch.tensor([[0.0, 0, 0, 0], [5, 5, 2, 2], [float("nan")] * 4, [0, 0, float("inf"), float("inf")]])
    assert level_of(strange, 4).tolist() == [0, 0, 0, 3]


@pytest.mark.parametrize("name", sorted(set(ROIS) - set(BESIDE)))
def test_what_is_no_number_or_far_outside_stays_where_it_is(name: str) -> None:
    part = ROIS[name]([8, 16], size=3)
    features = [torch.rand(1, 18, 16, 16, requires_grad=True), torch.rand(1, 18, 8, 8, requires_grad=True)]
    usual = torch.tensor([[10.0, 20, 60, 90]])
    odd = torch.tensor([[float("nan")] * 4, [float("inf")] * 4, [-1e30, -1e30, 1e30, 1e30], [1e9, 1e9, 1e9, 1e9]])
    found = part(features, torch.cat([usual, odd, usual])[None])
    assert found.isfinite().all()
    assert torch.equal(found[0, 0], part(features, usual[None])[0, 0])
    assert torch.equal(found[0, 0], found[0, -1])
    for gradient in torch.autograd.grad(found.sum(), features):
        assert gradient.isfinite().all()


@pytest.mark.part("roi/align", "roi/pool", "roi/position_sensitive")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("align", {"size": 0}, "size=0"),
        ("align", {"levels": 3}, "1 to 2 levels, got levels=3"),
        ("align", {"strides": [(8, 16), (16, 8)]}, "square cells"),
        ("align", {"canonical": 0.0}, "sizes are positive"),
        ("pool", {"cells": 12}, "power of two"),
        ("position_sensitive", {"ratio": 0}, "ratio=0"),
    ],
)
def test_what_cannot_be_is_said_at_once(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ROIS[name](**{"strides": [8, 16], **options})


@pytest.mark.part("roi/position_sensitive")
def test_maps_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(ValueError, match="17 maps cannot be divided among 3 x 3 bins"):
        PositionSensitive([8], 3)([torch.rand(1, 17, 4, 4)], torch.zeros(1, 1, 4))


@pytest.mark.part("roi/align", "roi/pool", "roi/position_sensitive")
@pytest.mark.parametrize(
    "part",
    [
        partial(RoIAlign, size=2, reduce="max", aligned=True),
        partial(RoIAlign, size=3, ratio=3, levels=1),
        partial(RoIPool, size=2, cells=4),
        partial(PositionSensitive, size=3, reduce="align"),
    ],
)
def test_options_keep_the_contract(part: partial[nn.Module]) -> None:
    check_roi(part)


@pytest.mark.parametrize("name", sorted(set(ROIS) - set(BESIDE)))
def test_what_many_regions_teach_a_cell_is_not_lost_in_bfloat16(name: str) -> None:
    torch.manual_seed(0)
    part = ROIS[name]([8], size=3)
    features = torch.rand(1, 9, 8, 8).bfloat16()
    boxes = torch.tensor([4.0, 4, 60, 60]).expand(1, 500, 4)  # in sums of bfloat16 a 1 vanishes beside 256
    taught = []
    for x in (features, features.float()):
        found = part([x.requires_grad_()], boxes)
        assert found.dtype == x.dtype
        taught.append(torch.autograd.grad(found.sum(), x)[0].float())
    close(taught[0], taught[1], rtol=1e-2, atol=1e-3)


@pytest.mark.part("roi/align", "roi/position_sensitive")
@pytest.mark.parametrize("part", [RoIAlign([8, 16], 2), PositionSensitive([8, 16], 2, "align")])
def test_boxes_get_gradients_where_nothing_is_rounded(part: nn.Module) -> None:
    torch.manual_seed(0)
    features = [torch.randn(1, 4, side, side, dtype=torch.float64, requires_grad=True) for side in (6, 3)]
    boxes = torch.tensor([[[3.0, 5, 30, 41], [11, 2, 45, 29]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b, c: part([a, b], c), (*features, boxes))

"""Sliding windows: where they lie, and what they reach."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torso.boxes.overlap import pairwise_iou
from torso.models.inside import go_on
from torso.models.windows import Windows

pytestmark = pytest.mark.part("propose/windows")


def chosen(windows: Windows, height: int = 96, width: int = 160, batch: int = 2) -> torch.Tensor:
    features = [torch.zeros(batch, 3, 4, 4)]
    assert windows(features, (height, width)) is None
    assert windows.losses(None, None) == {}
    boxes, valid = windows.choose(None, features, (height, width), go_on)
    assert valid.all()
    assert valid.shape == boxes.shape[:2]
    return boxes


def test_windows_of_one_size_by_hand() -> None:
    """A half of each side, moved by half of itself: at 0, 1/4 and 1/2, row by row, in each picture."""
    boxes = chosen(Windows([0.5], [1.0], step=0.5), height=40, width=80)
    wanted = [[x, y, x + 40, y + 20] for y in (0, 10, 20) for x in (0, 20, 40)]
    assert boxes.tolist() == [wanted, wanted]


def test_the_largest_come_first_and_shapes_keep_the_area() -> None:
    boxes = chosen(Windows([0.2, 0.4], [0.5, 2.0], step=1.0), 100, 100)[0]
    width, height = (boxes[:, 2] - boxes[:, 0]), (boxes[:, 3] - boxes[:, 1])
    area = width * height
    assert (area[:-1] >= area[1:] - 1e-3).all()
    torch.testing.assert_close(area.round().unique(), torch.tensor([400.0, 1600.0]))
    ratio = (height / width).round(decimals=3)
    assert set(ratio.tolist()) == {0.5, 2.0}


@settings(max_examples=40, deadline=None)
@given(
    scale=st.floats(0.05, 1),
    ratio=st.floats(0.3, 3),
    step=st.floats(0.2, 1),
    height=st.integers(16, 200),
    width=st.integers(16, 200),
)
def test_windows_lie_inside_and_leave_no_gap(scale: float, ratio: float, step: float, height: int, width: int) -> None:
    boxes = chosen(Windows([scale], [ratio], step), height, width, 1)[0].double()
    assert (boxes >= -1e-4).all()
    assert (boxes[:, 0::2] <= width + 1e-3).all()
    assert (boxes[:, 1::2] <= height + 1e-3).all()
    for low, high, side in ((0, 2, width), (1, 3, height)):
        starts = boxes[:, low].unique()
        length = float((boxes[:, high] - boxes[:, low]).max())
        assert abs(float(starts[0])) < 1e-3
        assert abs(float(starts[-1]) - (side - length)) < 1e-2
        assert (starts.diff() <= step * length + 1e-2).all()


def test_an_object_of_a_windows_size_is_overlapped_by_half_wherever_it_lies() -> None:
    windows = Windows([0.25], [1.0], step=1 / 3)
    boxes = chosen(windows, 128, 128, 1)[0]
    corner = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * 96
    best = pairwise_iou(torch.cat([corner, corner + 32], dim=1), boxes).amax(dim=1)
    assert best.min() > 0.5
    coarse = pairwise_iou(torch.cat([corner, corner + 32], dim=1), chosen(Windows([0.25], [1.0], 1.0), 128, 128)[0])
    assert coarse.amax(dim=1).min() < 0.4, "and with steps as long as the window it is not"


@pytest.mark.parametrize("wrong", [{"scales": []}, {"scales": [1.2]}, {"scales": [0]}, {"ratios": [0]}, {"step": 0}])
def test_windows_that_are_none_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"scales in 0\.\.1, ratios and a step above 0 expected"):
        Windows(**wrong)

"""R-FCN's head against the paper's equations, in loops."""

from __future__ import annotations

from math import ceil, floor

import pytest
import torch
from torch import Tensor

from torso.boxes.roi import PositionSensitive, RoIAlign
from torso.heads import RFCN

BINS, CLASSES, STRIDE, WIDTH = 3, 4, 8, 6  # the background is one of the classes

close = torch.testing.assert_close


def vote(maps: Tensor, box: list[int]) -> Tensor:
    """Equation 1 and the sentence below it: ``maps [K, BINS, BINS, H, W]`` and a box in cells to ``[K]``.

    Bin (i, j) spans floor(i w / k) <= x < ceil((i + 1) w / k) from the box's corner on; what it says is the mean of its
    own map over these cells, and a class is the mean of what its bins say.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    said = torch.zeros(len(maps), dtype=maps.dtype)
    for i in range(BINS):
        for j in range(BINS):
            total, count = torch.zeros_like(said), 0
            for x in range(floor(i * width / BINS), ceil((i + 1) * width / BINS)):
                for y in range(floor(j * height / BINS), ceil((j + 1) * height / BINS)):
                    total, count = total + maps[:, j, i, y + top, x + left], count + 1
            said = said + total / count / BINS**2
    return said


@pytest.mark.part("head/rfcn", "roi/position_sensitive")
@pytest.mark.parametrize("num_boxes", [1, CLASSES - 1])
def test_every_bin_votes_as_the_paper_says(num_boxes: int) -> None:
    torch.manual_seed(0)
    head = RFCN([WIDTH], CLASSES, 4, num_boxes, BINS).double()
    for layer in (head.class_maps, head.box_maps):
        torch.nn.init.normal_(layer.bias)
    features = [torch.randn(2, WIDTH, 12, 14, dtype=torch.float64)]
    cells = [[[0, 0, 14, 12], [2, 3, 9, 4], [5, 6, 10, 12]], [[1, 1, 8, 9], [13, 11, 14, 12], [3, 0, 6, 3]]]
    boxes = torch.tensor(cells, dtype=torch.float64) * STRIDE + 0.3  # rounded to these cells
    found = head(PositionSensitive([STRIDE], BINS)(head.maps(features), boxes))
    assert found.logits.shape == (2, 3, CLASSES)
    assert found.deltas.shape == (2, 3, 4 * num_boxes)
    for picture, rows in enumerate(cells):
        x = features[0][picture]
        of_class = head.class_maps(x).view(CLASSES, BINS, BINS, 12, 14)
        of_box = head.box_maps(x).view(4 * num_boxes, BINS, BINS, 12, 14)
        for row, box in enumerate(rows):
            close(found.logits[picture, row], vote(of_class, box))
            close(found.deltas[picture, row], vote(of_box, box))


@pytest.mark.part("head/rfcn")
def test_a_region_costs_no_weights_and_no_convolution() -> None:
    head = RFCN([WIDTH], CLASSES, 4, 1, BINS)
    regions = torch.randn(2, 5, CLASSES + 4, BINS, BINS)
    said = head(regions)
    close(torch.cat([said.logits, said.deltas], dim=-1), regions.flatten(3).mean(dim=-1))
    assert {name.split(".")[0] for name, _ in head.named_parameters()} == {"class_maps", "box_maps"}


@pytest.mark.part("head/rfcn")
def test_other_regions_are_refused_in_one_sentence() -> None:
    head = RFCN([WIDTH], CLASSES, 4, 1, BINS)
    features = [torch.rand(1, WIDTH, 4, 4)]
    with pytest.raises(ValueError, match="roi: position_sensitive"):
        head(RoIAlign([STRIDE], BINS)(head.maps(features), torch.zeros(1, 2, 4)))
    with pytest.raises(ValueError, match="equal channels"):
        RFCN([4, 8], CLASSES)


@pytest.mark.part("head/rfcn")
@pytest.mark.parametrize("num_boxes", [1, CLASSES - 1])
def test_other_classes_leave_the_boxes_where_all_share_one(num_boxes: int) -> None:
    head = RFCN([WIDTH], CLASSES, 4, num_boxes, BINS).double()
    before = head.box_maps
    head.reset_classes(3)
    assert head.class_maps.out_channels == 3 * BINS**2
    assert head.class_maps.weight.dtype == torch.float64
    assert (head.box_maps is before) == (num_boxes == 1)
    assert head.num_boxes == (1 if num_boxes == 1 else 2)

"""What the check of operations on regions finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torso.boxes.roi import RoIAlign
from torso.structures import Features
from torso.testing import check_roi


class Seeing(RoIAlign):
    """Regions that see each other."""

    def forward(self, features: Features, boxes: Tensor) -> Tensor:
        found = super().forward(features, boxes)
        return found + found.cumsum(dim=1)


class Endless(RoIAlign):
    """Padding that is divided by its own area."""

    def forward(self, features: Features, boxes: Tensor) -> Tensor:
        area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
        return super().forward(features, boxes) / area[..., None, None, None]


class Looking(RoIAlign):
    """A size that depends on a number."""

    def forward(self, features: Features, boxes: Tensor) -> Tensor:
        if float(boxes.max()) > 1e6:
            return super().forward(features, boxes / 2)
        return super().forward(features, boxes)


class Flat(RoIAlign):
    """Bins in one row."""

    def forward(self, features: Features, boxes: Tensor) -> Tensor:
        return super().forward(features, boxes).flatten(3)


@pytest.mark.part("roi/align")
@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Seeing, "do not see each other"),
        (Endless, "padding and boxes outside"),
        (Looking, "graph breaks"),
        (Flat, r"\[B, R, C, size, size\]"),
    ],
)
def test_what_breaks_the_contract_of_regions_is_named(part: type[RoIAlign], message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=message):
        check_roi(lambda strides: part(strides, size=2))

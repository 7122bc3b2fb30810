"""All levels as one, against torch's own enlarging."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.unit.necks.pyramids import compare, pyramid
from torso.necks.concat import Concat

pytestmark = pytest.mark.part("neck/concat")
CHANNELS, STRIDES = [3, 4, 5], [4, 8, 32]


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_it_is_the_finest_level_and_the_others_at_its_size(mode):
    neck = Concat(CHANNELS, STRIDES, mode)
    assert (neck.channels, neck.strides) == ([12], [4])

    def slowly(levels):
        options = {} if mode == "nearest" else {"align_corners": False}
        larger = [functional.interpolate(x, levels[0].shape[-2:], mode=mode, **options) for x in levels]
        assert torch.equal(larger[0], levels[0]), "of its own size a level is itself"
        return [torch.cat(larger, dim=1)]

    for size in ((64, 96), (72, 100)):
        compare(neck, slowly, pyramid(CHANNELS, STRIDES, size))


def test_bilinear_goes_through_the_middle_of_cells():
    fine, coarse = torch.zeros(1, 1, 1, 4), torch.tensor([[[[0.0, 4.0]]]])
    (joined,) = Concat([1, 1], [4, 8])([fine, coarse])
    assert joined[0, 1, 0].tolist() == [0, 1, 3, 4]


def test_levels_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match="concat"):
        Concat([1, 1], [8, 4])

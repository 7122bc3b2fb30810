from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.data.pictures import small_index
from torso.data.loader import Loader
from torso.data.transforms import Affine, Color, HorizontalFlip, Mosaic

SIZE = (96, 64)


@pytest.mark.part("transform/mosaic")
def test_a_mosaic_is_the_same_with_workers_and_ends_when_mixing_does(tmp_path: Path) -> None:
    index = small_index(tmp_path, 12)
    transforms = [Mosaic(), Affine(), Color(), HorizontalFlip()]
    alone, together = (
        Loader(index, transforms, size=SIZE, batch=4, shuffle=True, workers=workers, mix_until=1) for workers in (0, 2)
    )
    for epoch in (0, 1):
        for one, two in zip(alone.epoch(epoch), together.epoch(epoch), strict=True):
            assert torch.equal(one.images, two.images)
            assert torch.equal(one.targets.boxes, two.targets.boxes)
    plain = Loader(index, transforms[1:], size=SIZE, batch=4, shuffle=True)
    assert all(torch.equal(one.images, two.images) for one, two in zip(alone.epoch(1), plain.epoch(1), strict=True))

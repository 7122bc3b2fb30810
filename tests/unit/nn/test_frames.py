"""Places of padded pictures and places of maps: by hand, and there and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torso.nn.frames import Frames

pytestmark = pytest.mark.part("attention/deformable", "head/deformable_detr")


def mask(height: int, width: int, box: tuple[int, int, int, int]) -> Tensor:
    """True in columns and rows ``x1, y1, x2, y2``."""
    found = torch.zeros(1, height, width, dtype=torch.bool)
    left, top, right, bottom = box
    found[:, top:bottom, left:right] = True
    return found


def test_where_pictures_begin_and_what_they_take() -> None:
    real = [mask(6, 8, (1, 2, 5, 6)), mask(3, 4, (0, 1, 3, 3))]
    frames = Frames.of(real, torch.float64)
    assert frames.sizes == [(6, 8), (3, 4)]
    assert frames.valid.shape == (1, 60)
    torch.testing.assert_close(frames.start[0], torch.tensor([[1 / 8, 2 / 6], [0, 1 / 3]], dtype=torch.float64))
    torch.testing.assert_close(frames.share[0], torch.tensor([[4 / 8, 4 / 6], [3 / 4, 2 / 3]], dtype=torch.float64))


def test_a_picture_that_is_nowhere_is_everywhere() -> None:
    frames = Frames.of([mask(6, 8, (0, 0, 0, 0))], torch.float32)
    assert not frames.start.any()
    assert (frames.share == 1).all()


def test_cells_and_places_by_hand() -> None:
    frames = Frames.of([mask(6, 8, (1, 2, 5, 6)), mask(3, 4, (0, 1, 3, 3))], torch.float64)
    cells = frames.cells()[0]
    assert cells.shape == (60, 2)
    # Column 1 of 4, row 0 of 4; and of the coarse level the last column of 3, the last row of 2.
    torch.testing.assert_close(cells[2 * 8 + 2], torch.tensor([1.5 / 4, 0.5 / 4], dtype=torch.float64))
    torch.testing.assert_close(cells[48 + 2 * 4 + 2], torch.tensor([2.5 / 3, 1.5 / 2], dtype=torch.float64))
    assert ((cells > 0) & (cells < 1)).all(dim=-1).equal(frames.valid[0])
    box = torch.tensor([[[0.5, 0.5, 0.2, 0.4]]], dtype=torch.float64)
    on_levels = frames.on_levels(box)[0, 0]
    wanted = [[3 / 8, 4 / 6, 0.2 * 4 / 8, 0.4 * 4 / 6], [1.5 / 4, 2 / 3, 0.2 * 3 / 4, 0.4 * 2 / 3]]
    torch.testing.assert_close(on_levels, torch.tensor(wanted, dtype=torch.float64))
    torch.testing.assert_close(frames.on_levels(box[..., :2])[0, 0], on_levels[:, :2])


def test_the_places_of_cells_are_their_own_centres() -> None:
    frames = Frames.of([mask(6, 8, (1, 2, 5, 6)), mask(3, 4, (0, 1, 3, 3))], torch.float64)
    fine, coarse = frames.on_levels(frames.cells())[0].split([48, 12])
    for found, (height, width) in ((fine[:, 0], (6, 8)), (coarse[:, 1], (3, 4))):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centre = torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], dim=-1).reshape(-1, 2)
        torch.testing.assert_close(found, centre.double())

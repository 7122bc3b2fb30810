"""Where the picture is, found in the pixels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from torso.nn.padding import frame_of, real_cells, real_pixels
from torso.nn.position import SinePosition

pytestmark = pytest.mark.part("head/detr")


def padded(left: int, top: int, width: int, height: int, seed: int = 0, fill: int = 114) -> Tensor:
    """A picture of noise without the fill at some place in 40 x 48 pixels."""
    images = torch.full((1, 3, 40, 48), fill, dtype=torch.uint8)
    noise = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    noise[noise == fill] = fill + 1
    images[0, :, top : top + height, left : left + width] = noise
    return images


places = st.tuples(st.integers(0, 40), st.integers(0, 32), st.integers(1, 48), st.integers(1, 40)).map(
    lambda x: (x[0], x[1], min(x[2], 48 - x[0]), min(x[3], 40 - x[1]))
)


@given(places)
@settings(max_examples=60, deadline=None)
def test_a_picture_is_found_wherever_it_lies(place: tuple[int, int, int, int]) -> None:
    left, top, width, height = place
    real = real_pixels(padded(*place))
    expected = torch.zeros(1, 40, 48, dtype=torch.bool)
    expected[:, top : top + height, left : left + width] = True
    assert torch.equal(real, expected)
    assert frame_of(real).tolist() == [[left, top, left + width, top + height]]
    for stride, cells in zip((8, 16, 32), real_cells(real, [8, 16, 32]), strict=True):
        rows, columns = -(-40 // stride), -(-48 // stride)
        assert cells.shape == (1, rows, columns)
        for y in range(rows):
            for x in range(columns):
                part = expected[0, y * stride : (y + 1) * stride, x * stride : (x + 1) * stride]
                assert bool(cells[0, y, x]) == bool(part.any())


def test_grey_within_a_picture_is_picture() -> None:
    images = padded(8, 4, 30, 20)
    images[:, :, 10:14] = 114
    images[:, :, :, 20] = 114
    assert frame_of(real_pixels(images)).tolist() == [[8, 4, 38, 24]]
    images[:, :, :, 37] = 114
    assert frame_of(real_pixels(images)).tolist() == [[8, 4, 37, 24]]
    images[:, 0, 5, 37] = 113  # one channel of one pixel is enough
    assert frame_of(real_pixels(images)).tolist() == [[8, 4, 38, 24]]


def test_a_picture_that_is_all_grey_is_all_picture() -> None:
    images = torch.cat([torch.full((1, 3, 40, 48), 114, dtype=torch.uint8), padded(8, 4, 30, 20)])
    real = real_pixels(images)
    assert real[0].all()
    assert not real[1].all()
    assert all(cells.flatten(1).any(dim=1).all() for cells in real_cells(real, [8, 64]))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.uint16])
def test_pixels_of_any_type_are_understood(kind: torch.dtype) -> None:
    images = padded(8, 4, 30, 20)
    other = (images.int() * 257).to(kind) if kind == torch.uint16 else images.to(kind)
    assert torch.equal(real_pixels(other), real_pixels(images))


def test_the_fill_can_be_another() -> None:
    assert frame_of(real_pixels(padded(8, 4, 30, 20, fill=0), fill=0)).tolist() == [[8, 4, 38, 24]]
    assert real_pixels(padded(8, 4, 30, 20), fill=-1).all(), "nothing is padding"


def test_cells_in_the_top_left_are_what_the_nearest_pixel_says() -> None:
    """As DETR resizes its masks."""
    real = torch.cat(
        [real_pixels(padded(0, 0, width, height)) for width, height in ((48, 40), (17, 33), (1, 1), (32, 8))]
    )
    for stride, cells in zip((8, 16), real_cells(real, [8, 16]), strict=True):
        nearest = functional.interpolate(real[:, None].float(), size=cells.shape[1:])[:, 0].bool()
        if 40 % stride == 0:
            assert torch.equal(cells, nearest)
        assert torch.equal(cells, real[:, ::stride, ::stride])


def test_positions_are_the_pictures_own_wherever_it_lies() -> None:
    """Those of the picture without any padding, also where it is in the middle of it (letterbox)."""
    valid = torch.zeros(1, 9, 11, dtype=torch.bool)
    valid[:, 2:7, 3:9] = True
    sine, features = SinePosition(16), torch.zeros(1, 1, 9, 11, dtype=torch.float64)
    inside = sine(features, valid)[:, :, 2:7, 3:9]
    torch.testing.assert_close(inside, sine(torch.zeros(1, 1, 5, 6, dtype=torch.float64)))


def test_it_is_one_graph_and_exports() -> None:
    class Look(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            real = real_pixels(images)
            return frame_of(real), *real_cells(real, [8, 16])

    images = torch.cat([padded(8, 4, 30, 20), padded(0, 0, 48, 40)])
    expected = Look()(images)
    program = torch.export.export(
        Look(), (images,), dynamic_shapes=({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO},), strict=True
    )
    for mine, theirs in zip(program.module()(images), expected, strict=True):
        assert torch.equal(mine, theirs)

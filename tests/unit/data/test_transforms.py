from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from tests.unit.data.pictures import noise, smooth
from torso.config import parameters
from torso.data.draws import generator_of, uniform
from torso.data.render import render
from torso.data.transforms import (
    TRANSFORMS,
    Affine,
    CenterCrop,
    Color,
    Decode,
    HorizontalFlip,
    Joint,
    Letterbox,
    RandomResizedCrop,
    Resize,
    VerticalFlip,
)
from torso.data.transforms.color import color_matrix
from torso.data.views import View, clip, move
from torso.nn.normalize import NormalizePixels

BOXES = np.array([[3, 4, 20, 30], [10.5, 2.25, 40, 25]])


def drawn(
    pixels: np.ndarray, transforms: list, target: tuple[int, int], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The canvas and the boxes on it."""
    view = View.of((pixels.shape[1], pixels.shape[0]), target)
    generator = torch.Generator().manual_seed(seed)
    for transform in transforms:
        view = transform(view, generator)
    canvas, view = render(pixels, view)
    return canvas, clip(move(BOXES, view.matrix), view.size)


def theirs(transform: torch.nn.Module, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(BOXES).float(), format="XYXY", canvas_size=(pixels.shape[0], pixels.shape[1])
    )
    image, boxes = transform(image, boxes)
    return image.permute(1, 2, 0).numpy(), boxes.numpy()


@pytest.mark.part("transform/vertical_flip")
@pytest.mark.part("transform/horizontal_flip")
@pytest.mark.parametrize(
    ("ours", "other"),
    [
        ([HorizontalFlip(1.0)], v2.RandomHorizontalFlip(1.0)),
        ([VerticalFlip(1.0)], v2.RandomVerticalFlip(1.0)),
        ([HorizontalFlip(0.0), VerticalFlip(0.0)], v2.Identity()),
        (
            [HorizontalFlip(1.0), VerticalFlip(1.0)],
            v2.Compose([v2.RandomHorizontalFlip(1.0), v2.RandomVerticalFlip(1.0)]),
        ),
    ],
)
def test_flips_equal_torchvision(ours: list, other: torch.nn.Module) -> None:
    pixels = noise(48, 36)
    canvas, boxes = drawn(pixels, ours, (48, 36))
    expected, expected_boxes = theirs(other, pixels)
    assert np.array_equal(canvas, expected)
    assert np.abs(boxes - expected_boxes).max() < 1e-5


@pytest.mark.part("transform/resize")
def test_enlarging_equals_torchvision() -> None:
    pixels = smooth(48, 36)
    canvas, boxes = drawn(pixels, [Resize()], (120, 81))
    expected, expected_boxes = theirs(v2.Resize((81, 120)), pixels)
    assert np.abs(canvas.astype(int) - expected).max() <= 2
    assert np.abs(boxes - expected_boxes).max() < 1e-4


@pytest.mark.part("transform/resize")
def test_shrinking_averages_like_torch() -> None:
    pixels = noise(48, 36)
    canvas, boxes = drawn(pixels, [Resize()], (16, 12))
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(image, size=(12, 16), mode="area")[0].permute(1, 2, 0).round().numpy()
    assert np.abs(canvas.astype(int) - expected).max() <= 1
    assert np.abs(boxes - BOXES / 3).max() < 1e-9


@pytest.mark.part("transform/center_crop")
@pytest.mark.part("transform/resize")
@pytest.mark.parametrize("shape", [(101, 64), (64, 101), (300, 200), (50, 50)])
def test_short_side_and_crop_equal_torchvision(shape: tuple[int, int]) -> None:
    pixels = smooth(*shape)
    canvas, boxes = drawn(pixels, [Resize("short", 56), CenterCrop()], (48, 48))
    expected, expected_boxes = theirs(v2.Compose([v2.Resize(56), v2.CenterCrop(48)]), pixels)
    assert canvas.shape == expected.shape == (48, 48, 3)
    assert np.abs(canvas.astype(int) - expected).mean() < 2
    assert np.abs(boxes - expected_boxes).max() < 0.51  # we snap the crop to whole pixels of the source


@pytest.mark.part("transform/affine")
def test_affine_equals_torchvision() -> None:
    pixels = smooth(60, 44)
    transform = Affine(scale=(1.3, 1.3), shift=0.0, rotation=25.0)
    angle = math.radians(uniform_after(4, low=-25, high=25, skip=3))
    canvas, _ = drawn(pixels, [transform], (60, 44), seed=4)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = v2.functional.affine(
        image, math.degrees(angle), [0, 0], 1.3, [0.0, 0.0], interpolation=v2.InterpolationMode.BILINEAR, fill=[114.0]
    )
    inner = np.abs(canvas.astype(int) - expected.permute(1, 2, 0).numpy())[6:-6, 6:-6]
    assert np.percentile(inner, 95) <= 2


def uniform_after(seed: int, *, low: float, high: float, skip: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(skip):
        uniform(generator, 0, 1)
    return uniform(generator, low, high)


@pytest.mark.part("transform/random_resized_crop")
def test_a_random_crop_lies_inside_and_has_the_asked_area_and_ratio() -> None:
    transform = RandomResizedCrop((0.2, 0.6), (0.5, 2.0))
    for seed in range(200):
        view = transform(View.of((200, 120), (64, 64)), torch.Generator().manual_seed(seed))
        w, h = 64 / view.matrix[0, 0], 64 / view.matrix[1, 1]
        left, top = -view.matrix[0, 2] * w / 64, -view.matrix[1, 2] * h / 64
        assert 0.2 - 1e-9 <= w * h / 24000 <= 0.6 + 1e-9
        assert 0.5 - 1e-9 <= w / h <= 2 + 1e-9
        assert min(left, top) >= -1e-9
        assert left + w <= 200 + 1e-9
        assert top + h <= 120 + 1e-9


def test_a_crop_that_cannot_fit_takes_the_middle() -> None:
    view = RandomResizedCrop((1.0, 1.0), (1.0, 1.0))(View.of((400, 100), (50, 50)), torch.Generator())
    assert np.allclose(view.matrix, [[0.5, 0, -75], [0, 0.5, 0], [0, 0, 1]])


@pytest.mark.part("transform/normalize")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalize_equals_torchvision(dtype: torch.dtype) -> None:
    images = torch.from_numpy(noise(20, 10)).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    ours = NormalizePixels()(images.to(dtype))
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(images)
    assert torch.allclose(ours, expected, atol=2e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.part("transform/color")
def test_brightness_and_saturation_equal_torchvision() -> None:
    pixels = smooth(30, 20)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    for matrix, expected in (
        (color_matrix(brightness=0.7), v2.functional.adjust_brightness(image, 0.7)),
        (color_matrix(saturation=0.4), v2.functional.adjust_saturation(image, 0.4)),
        (color_matrix(saturation=1.6), v2.functional.adjust_saturation(image, 1.6)),
    ):
        canvas, _ = render(pixels, View.of((30, 20), (30, 20)).tinted(matrix))
        assert np.abs(canvas.astype(int) - expected.permute(1, 2, 0).numpy()).max() <= 2


def test_hue_turns_colours_and_leaves_grey_and_luma() -> None:
    matrix = color_matrix(angle=math.radians(120))
    assert np.allclose(matrix[:, :3] @ [90, 90, 90], 90)
    luma = np.array([0.299, 0.587, 0.114])
    assert np.allclose(luma @ matrix[:, :3], luma, atol=1e-6)
    once = color_matrix(angle=0.3)[:, :3]
    assert np.allclose(once @ once, color_matrix(angle=0.6)[:, :3])
    # Red becomes green or blue: a turn by about a third of the circle.
    hue = colorsys.rgb_to_hsv(*np.clip(matrix[:, :3] @ [200, 30, 30], 0, 255))[0]
    assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.12


def test_contrast_turns_about_mid_grey() -> None:
    matrix = color_matrix(contrast=2.0)
    assert np.allclose(matrix @ [128, 128, 128, 1], 128)
    assert np.allclose(matrix @ [100, 128, 140, 1], [72, 128, 152])


def test_colour_without_spread_does_nothing() -> None:
    view = Color(0, 0, 0, 0)(View.of((8, 8), (8, 8)), torch.Generator())
    assert np.allclose(view.color, np.eye(3, 4))


def test_colours_compose() -> None:
    a, b = color_matrix(0.8, 1.2, 0.5, 0.2), color_matrix(1.1, 0.9, 1.4, -0.1)
    view = View.of((8, 8), (8, 8)).tinted(a).tinted(b)
    pixel = np.array([40.0, 90.0, 160.0])
    assert np.allclose(view.color @ [*pixel, 1], b @ [*(a @ [*pixel, 1]), 1])


@pytest.mark.part("transform/joint")
def test_joint_is_its_parts_in_order() -> None:
    parts = [Letterbox(), HorizontalFlip(), Affine(), Color()]
    one, two = (transforms_view(transforms) for transforms in (parts, [Joint(parts)]))
    assert np.array_equal(one.matrix, two.matrix)
    assert np.array_equal(one.color, two.color)
    assert Joint(parts).fits
    assert not Joint(parts[1:]).fits


def transforms_view(transforms: list) -> View:
    view, generator = View.of((50, 40), (64, 64)), torch.Generator().manual_seed(9)
    for transform in transforms:
        view = transform(view, generator)
    return view


@pytest.mark.part("transform/decode")
def test_decode_chooses_the_decoder() -> None:
    view = Decode("pillow", scaled=False)(View.of((50, 40), (64, 64)), torch.Generator())
    assert (view.pillow, view.scaled) == (True, False)


@pytest.mark.parametrize("name", sorted({*TRANSFORMS} - {"estimate_mean_std"}))  # which is asked, not drawn
def test_a_recipe_can_express_every_argument(name: str) -> None:
    for parameter in parameters(TRANSFORMS[name]).values():
        assert parameter.kind is not None, f"{name}.{parameter.name}"


def test_generators_of_neighbours_have_nothing_in_common() -> None:
    first = [
        float(torch.rand((), generator=generator_of(seed, epoch, row)))
        for seed in range(8)
        for epoch in range(8)
        for row in range(16)
    ]
    assert len(set(first)) == len(first)
    assert abs(np.mean(first) - 0.5) < 0.03
    assert generator_of(1, 23).initial_seed() != generator_of(12, 3).initial_seed()

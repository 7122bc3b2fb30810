"""Every single operation against torchvision v2, both given the same parameters."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from tests.unit.data.augmented import (
    BOXES,
    apart,
    filtered,
    painted,
    pixels_of,
    plain,
    tensor,
    tv_boxes,
)
from tests.unit.data.pictures import noise, smooth
from torso.data.objects import follow
from torso.data.transforms import filters, pixelwise
from torso.data.transforms.color import color_matrix
from torso.data.transforms.crops import IoUCrop, Pad, RandomCrop, ZoomOut
from torso.data.transforms.elastic import Distort
from torso.data.transforms.filters_noise import added
from torso.data.transforms.geometry import Resize
from torso.data.transforms.motions import RandomScale, RandomShortSide, sheared, turned
from torso.data.transforms.perspective import perspective
from torso.data.transforms.photometric import adjustments, distorted
from torso.data.views import Border, View, clip, move, move_points, shifting

BILINEAR = InterpolationMode.BILINEAR
PICTURES = {"smooth": smooth(60, 44), "noise": noise(53, 38, seed=3), "narrow": noise(7, 61, seed=4)}
EACH = pytest.mark.parametrize("pixels", [pytest.param(pixels, id=name) for name, pixels in PICTURES.items()])


def check_geometry(
    pixels: np.ndarray, view: View, image: torch.Tensor, boxes: torch.Tensor, *, levels: int = 1, outline: bool = True
) -> None:
    """The picture to so many grey levels, boxes to 1e-3 pixels.

    Without ``outline`` only what lies wholly inside the picture is compared: there torchvision blends the fill twice.
    """
    canvas = painted(pixels, view)
    expected = pixels_of(image)
    assert canvas.shape == expected.shape
    compared = np.ones(canvas.shape[:2], bool)
    if not outline:
        compared = painted(np.full_like(pixels, 255), view).min(-1) == 255
        assert compared.mean() > 0.3
    assert apart(canvas, expected)[compared].max(initial=0) <= levels
    moved = clip(move(BOXES, view.matrix), view.size)
    torch.testing.assert_close(torch.from_numpy(moved).float(), boxes.as_subclass(torch.Tensor), atol=1e-3, rtol=0)


@pytest.mark.part("transform/rotation")
@pytest.mark.parametrize("angle", [0.0, 7.5, -33.0, 90.0, 180.0, 121.0])
def test_rotation(angle: float) -> None:
    pixels = PICTURES["smooth"]
    view = turned(plain(pixels), angle)
    image = v2.rotate(tensor(pixels), angle, BILINEAR, fill=0)
    boxes = v2.clamp_bounding_boxes(v2.rotate(tv_boxes(BOXES, pixels), angle), clamping_mode="hard")
    check_geometry(pixels, view, image, boxes, outline=False)


@pytest.mark.part("transform/shear")
@pytest.mark.parametrize(("x", "y"), [(12.0, 0.0), (0.0, -20.0), (15.0, 9.0)])
def test_shear(x: float, y: float) -> None:
    pixels = PICTURES["smooth"]
    view = sheared(plain(pixels), x, y)
    image = v2.affine(tensor(pixels), 0.0, [0, 0], 1.0, [x, y], BILINEAR, fill=0)
    boxes = v2.affine(tv_boxes(BOXES, pixels), 0.0, [0, 0], 1.0, [x, y])
    check_geometry(pixels, view, image, v2.clamp_bounding_boxes(boxes, clamping_mode="hard"), outline=False)


@pytest.mark.part("transform/rotation", "transform/shear", "transform/perspective")
def test_keypoints_and_masks() -> None:
    pixels = PICTURES["smooth"]
    points = np.random.default_rng(1).uniform(2, 42, (30, 2))
    theirs = tv_tensors.KeyPoints(torch.from_numpy(points).float(), canvas_size=(44, 60))
    mask = tv_tensors.Mask(torch.from_numpy((pixels[..., 2] > 140).astype(np.uint8)))
    starts, ends = [[0, 0], [60, 0], [60, 44], [0, 44]], [[5, 3], [55, 0], [58, 41], [2, 44]]
    matrix = perspective(np.array(starts, float), np.array(ends, float))
    for view, other in (
        (turned(plain(pixels), 33.0), lambda one: v2.rotate(one, 33.0)),
        (sheared(plain(pixels), 11.0, -7.0), lambda one: v2.affine(one, 0.0, [0, 0], 1.0, [11.0, -7.0])),
        (plain(pixels).then(matrix), lambda one: v2.perspective(one, starts, ends)),
    ):
        moved = torch.from_numpy(move_points(points, view.matrix)).float()
        torch.testing.assert_close(moved, other(theirs).as_subclass(torch.Tensor), atol=1e-3, rtol=0)
        white = np.repeat(mask.numpy()[..., None] * np.uint8(255), 3, -1)
        # Nearest neighbour there, bilinear and halved here: all but the outlines agree.
        differs = (painted(white, view)[..., 0] > 127) != other(mask).numpy().astype(bool)
        assert differs.mean() < 0.02


@EACH
@pytest.mark.part("transform/shift")
def test_shift(pixels: np.ndarray) -> None:
    view = plain(pixels).then(shifting(4, -9))
    image = v2.affine(tensor(pixels), 0.0, [4, -9], 1.0, [0.0, 0.0], fill=0)
    boxes = v2.affine(tv_boxes(BOXES, pixels), 0.0, [4, -9], 1.0, [0.0, 0.0])
    check_geometry(pixels, view, image, v2.clamp_bounding_boxes(boxes, clamping_mode="hard"), levels=0)


@pytest.mark.part("transform/perspective")
@pytest.mark.parametrize("ends", [[[5, 3], [55, 0], [58, 41], [2, 44]], [[0, 9], [44, 2], [60, 44], [13, 30]]])
def test_perspective(ends: list[list[int]]) -> None:
    pixels = PICTURES["smooth"]
    starts = [[0, 0], [60, 0], [60, 44], [0, 44]]
    view = plain(pixels).then(perspective(np.array(starts, float), np.array(ends, float)))
    image = v2.perspective(tensor(pixels), starts, ends, BILINEAR, fill=0)
    boxes = v2.perspective(tv_boxes(BOXES, pixels), starts, ends)
    check_geometry(pixels, view, image, v2.clamp_bounding_boxes(boxes, clamping_mode="hard"), outline=False)


@EACH
@pytest.mark.part("transform/pad", "transform/random_crop")
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_padding_and_crops(pixels: np.ndarray, mode: Border) -> None:
    padding = (3, 5, 2, 6)
    view = Pad(padding, mode, fill=9)(plain(pixels), torch.Generator())
    image = v2.pad(tensor(pixels), list(padding), fill=9, padding_mode=mode)
    boxes = v2.pad(tv_boxes(BOXES, pixels), list(padding))
    check_geometry(pixels, view, image, v2.clamp_bounding_boxes(boxes, clamping_mode="hard"), levels=0)
    # A random crop is the same border and a window of it.
    height, width = pixels.shape[:2]
    start = plain(pixels, (width - 2, height + 1))
    view = RandomCrop(4, mode=mode, fill=9).placed(start, 0.25, 3 / 7)
    left, top = round((8 + 2) * 0.25), 3
    image = v2.pad(tensor(pixels), [4] * 4, fill=9, padding_mode=mode)
    image = v2.crop(image, top, left, height + 1, width - 2)
    boxes = v2.crop(v2.pad(tv_boxes(BOXES, pixels), [4] * 4), top, left, height + 1, width - 2)
    check_geometry(pixels, view, image, v2.clamp_bounding_boxes(boxes, clamping_mode="hard"), levels=0)


@pytest.mark.part("transform/resize", "transform/random_scale", "transform/random_short_side")
@pytest.mark.parametrize("size", [(60, 44), (44, 60), (31, 31), (90, 20)])
def test_sizes_are_those_of_torchvision(size: tuple[int, int]) -> None:
    from torchvision.transforms import v2 as transforms

    pixels = noise(*size)
    for short, longest in ((20, None), (37, 50), (64, 70)):
        ours = Resize("short", short, longest)(plain(pixels), torch.Generator()).size
        theirs = transforms.Resize(short, max_size=longest)(tensor(pixels)).shape
        assert ours == (theirs[2], theirs[1])
        ours = RandomShortSide((short,), longest)(plain(pixels), torch.Generator()).size
        theirs = transforms.RandomShortestSize(short, longest)(tensor(pixels)).shape
        assert ours == (theirs[2], theirs[1])
    for factor in (0.3, 1.0, 1.7):
        # Theirs confuses the sides of a target that is not square.
        ours = RandomScale((factor, factor))(plain(pixels, (70, 70)), torch.Generator()).size
        theirs = transforms.ScaleJitter((70, 70), (factor, factor))(tensor(pixels)).shape
        assert ours == (theirs[2], theirs[1])


@pytest.mark.part("transform/random_scale")
def test_scaling_down_and_up_shows_the_same_as_torchvision() -> None:
    pixels = smooth(60, 44)
    view = RandomScale((1.4, 1.4))(plain(pixels, (60, 44)), torch.Generator())
    assert view.size == (84, 61)
    image = v2.resize(tensor(pixels), [61, 84])
    boxes = v2.resize(tv_boxes(BOXES, pixels), [61, 84])
    check_geometry(pixels, view, image, boxes)


@pytest.mark.part("transform/iou_crop", "transform/zoom_out")
def test_crop_and_zoom_out_of_ssd() -> None:
    pixels = noise(60, 44)
    view = IoUCrop(stretch=False).cut(plain(pixels), (11, 6, 30, 25))
    boxes = v2.clamp_bounding_boxes(v2.crop(tv_boxes(BOXES, pixels), 6, 11, 25, 30), clamping_mode="hard")
    check_geometry(pixels, view, v2.crop(tensor(pixels), 6, 11, 25, 30), boxes, levels=0)
    view = ZoomOut((2.0, 2.0), p=1.0, fill=7)(plain(pixels), torch.Generator().manual_seed(5))
    left, top = view.matrix[:2, 2].astype(int).tolist()
    padding = [left, top, 60 - left, 44 - top]
    boxes = v2.pad(tv_boxes(BOXES, pixels), padding)
    check_geometry(pixels, view, v2.pad(tensor(pixels), padding, fill=7), boxes, levels=0)


@pytest.mark.part("transform/elastic")
@pytest.mark.parametrize(("alpha", "sigma"), [(50.0, 5.0), (100.0, 8.0)])
def test_elastic(alpha: float, sigma: float) -> None:
    pixels = smooth(120, 90)
    one = Distort(alpha, sigma, seed=11)
    field = one.field((120, 90))
    assert 0.3 < field.std() < 1.5
    displacement = torch.from_numpy(field * np.array([2 / 120, 2 / 90], np.float32))[None]
    image = v2.elastic(tensor(pixels), displacement, BILINEAR, fill=0)
    assert apart(filtered(pixels, one), pixels_of(image), 6).max() <= 1
    # torchvision approximates the way of a box by the way at its corners; ours goes along the whole outline.
    boxes = np.array([[20, 15, 60, 50], [50, 30, 100, 80]], float)
    theirs = v2.elastic(tv_boxes(boxes, pixels), displacement).as_subclass(torch.Tensor).numpy()
    assert np.abs(follow(boxes, one, (120, 90)) - theirs).max() < 3
    mask = tv_tensors.Mask(torch.from_numpy((pixels[..., 0] > 100).astype(np.uint8)))
    same = one.plane(mask.numpy()) == v2.elastic(mask, displacement, InterpolationMode.NEAREST, fill=0).numpy()
    assert same[6:-6, 6:-6].mean() > 0.999


def by_pillow(image: torch.Tensor, quality: int) -> torch.Tensor:
    """JPEG and back; torchvision's own encoder is deprecated."""
    file = io.BytesIO()
    Image.fromarray(pixels_of(image)).save(file, "JPEG", quality=quality)
    return tensor(np.asarray(Image.open(file)))


COLOURS = [
    ("transform/equalize", filters.Equalize(), v2.equalize, 0),
    ("transform/autocontrast", filters.AutoContrast(), v2.autocontrast, 1),
    ("transform/posterize", filters.Posterize(3), lambda image: v2.posterize(image, 3), 0),
    ("transform/solarize", filters.Solarize(99), lambda image: v2.solarize(image, 99), 0),
    ("transform/sharpness", filters.Sharpness(2.5), lambda image: v2.adjust_sharpness(image, 2.5), 1),
    ("transform/sharpness", filters.Sharpness(0.3), lambda image: v2.adjust_sharpness(image, 0.3), 1),
    ("transform/color_jitter", filters.Brighten(1.4), lambda image: v2.adjust_brightness(image, 1.4), 1),
    ("transform/color_jitter", filters.Contrast(0.4), lambda image: v2.adjust_contrast(image, 0.4), 1),
    ("transform/color_jitter", filters.Contrast(1.8), lambda image: v2.adjust_contrast(image, 1.8), 1),
    ("transform/color_jitter", filters.Hue(-0.2), lambda image: v2.adjust_hue(image, -0.2), 1),
    ("transform/color_jitter", adjustments(None, None, 1.7)[2], lambda image: v2.adjust_saturation(image, 1.7), 1),
    ("transform/blur", filters.Blur(5, 1.3), lambda image: v2.gaussian_blur(image, [5, 5], [1.3, 1.3]), 1),
    ("transform/jpeg", filters.Compress(60), lambda image: by_pillow(image, 60), 0),
]


@pytest.mark.part("transform/equalize", "transform/autocontrast", "transform/posterize", "transform/solarize")
@pytest.mark.part("transform/sharpness", "transform/color_jitter", "transform/blur", "transform/jpeg")
@pytest.mark.parametrize(("name", "one", "theirs", "levels"), COLOURS, ids=[f"{case[1]}" for case in COLOURS])
def test_one_filter(name: str, one: filters.Brighten, theirs: torch.nn.Module, levels: int) -> None:
    for pixels in (*PICTURES.values(), np.full((9, 8, 3), 77, np.uint8), np.zeros((5, 5, 3), np.uint8)):
        assert apart(filtered(pixels, one), pixels_of(theirs(tensor(pixels)))).max() <= levels, name


@pytest.mark.part("transform/color_jitter")
@pytest.mark.parametrize("turn", [-0.5, -0.13, 0.0, 0.02, 0.37, 0.5])
def test_the_hue_of_all_colours(turn: float) -> None:
    levels = np.r_[0, 1, 2, 128, 254, 255, np.arange(5, 255, 13)].astype(np.uint8)
    pixels = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3)
    assert apart(filtered(pixels, filters.Hue(turn)), pixels_of(v2.adjust_hue(tensor(pixels), turn))).max() <= 1


@EACH
@pytest.mark.part("transform/grayscale", "transform/invert")
def test_grey_and_negative_are_matrices(pixels: np.ndarray) -> None:
    grey = painted(pixels, plain(pixels).tinted(color_matrix(saturation=0)))
    assert apart(grey, pixels_of(v2.rgb_to_grayscale(tensor(pixels), 3))).max() <= 1
    negative = painted(pixels, plain(pixels).tinted(pixelwise.inverting()))
    assert np.array_equal(negative, pixels_of(v2.invert(tensor(pixels))))


@EACH
@pytest.mark.part("transform/photometric")
@pytest.mark.parametrize("contrast_first", [True, False])
def test_photometric_distortion(pixels: np.ndarray, contrast_first: bool) -> None:
    from torchvision.transforms import v2 as transforms

    parameters = {
        "brightness_factor": 1.1,
        "contrast_factor": 1.4,
        "saturation_factor": 0.6,
        "hue_factor": 0.04,
        "contrast_before": contrast_first,
        "channel_permutation": torch.tensor([2, 0, 1]),
    }
    expected = transforms.RandomPhotometricDistort().transform(tv_tensors.Image(tensor(pixels)), parameters)
    view = distorted(plain(pixels), 1.1, 1.4, 0.6, 0.04, contrast_first, [2, 0, 1])
    # A level of difference after the hue turn is one and a half after the contrast.
    assert apart(painted(pixels, view), pixels_of(expected)).max() <= (1 if contrast_first else 2)


@EACH
@pytest.mark.part("transform/noise")
def test_gaussian_noise(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(torch, "randn_like", lambda image, dtype=None: drawn.permute(2, 0, 1))
    expected = v2.gaussian_noise(tensor(pixels), 0.0, 0.1)
    ours = added(pixels, drawn.numpy() * np.float32(255 * 0.1))
    assert apart(ours, pixels_of(expected)).max() <= 1

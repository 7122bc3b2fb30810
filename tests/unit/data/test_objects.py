from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator
from torchvision import tv_tensors
from torchvision.transforms import v2

from tests.unit.data.pictures import noise, smooth
from tests.unit.data.scenes import drawn, index_of, scene_of
from torso.data import open_index, points
from torso.data.builder import Object
from torso.data.draws import uniform
from torso.data.index import Index
from torso.data.loader import Loader
from torso.data.masks import encoded, rasterise
from torso.data.objects import shown
from torso.data.scene import Scene
from torso.data.transforms import TRANSFORMS, Affine, HorizontalFlip, Mosaic, VerticalFlip
from torso.data.transforms.elastic import Distort
from torso.data.transforms.mix import overlaid
from torso.data.views import View

SIZE = (80, 60)
HEART = [40.0, 52.0, 12.0, 25.0, 20.0, 10.0, 33.0, 11.0, 40.0, 20.0, 47.0, 11.0, 60.0, 10.0, 68.0, 25.0]
NAMES = ("nose", "left_eye", "right_eye", "Left Ear", "Right Ear", "l_hand", "r_hand")


def with_masks(folder: Path) -> Index:
    """One shape as a polygon, the same one as run lengths, and an object without a mask."""
    runs = encoded(rasterise([HEART], SIZE))
    box = (12.0, 10.0, 68.0, 52.0)
    rows = [Object(box, 0, mask=[HEART]), Object(box, 1, mask=runs), Object((5.0, 30.0, 35.0, 55.0), 2)]
    return index_of(folder, [noise(*SIZE)], [rows])


@pytest.mark.parametrize("kind", ["train", "val"])
def test_masks_that_nothing_was_done_to_have_the_areas_that_are_stored(shared_data: Path, kind: str) -> None:
    index = open_index(shared_data / "dsb2018", kind, format="coco")
    assert index.masks is not None
    kinds = {type(mask) for mask in index.masks}
    assert kinds == {list, dict}
    checked = 0
    for row in range(0, len(index), 12):
        width, height = index.sizes[row].tolist()
        scene = scene_of(index, row, [], (width, height), [])
        objects = shown(scene, index, mask_stride=1)
        assert objects.masks is not None
        areas = objects.masks.sum((1, 2))
        assert np.array_equal(areas, index.area[objects.rows])
        checked += len(areas)
    assert checked > 100


def test_masks_follow_flips_exactly(tmp_path: Path) -> None:
    index = with_masks(tmp_path)
    bitmap = rasterise([HEART], SIZE)
    for transforms, expected in (
        ([HorizontalFlip(1.0)], bitmap[:, ::-1]),
        ([VerticalFlip(1.0)], bitmap[::-1]),
        ([HorizontalFlip(1.0), VerticalFlip(1.0)], bitmap[::-1, ::-1]),
    ):
        masks = shown(scene_of(index, 0, transforms, SIZE, []), index, mask_stride=1).masks
        assert masks is not None
        assert np.array_equal(masks[1], expected)
        # The outline of a polygon belongs to the pixels on one side of it.
        assert (masks[0] != expected).mean() < 0.02
        assert masks[2].sum() == 30 * 25


def test_masks_follow_a_turn_as_torchvisions_do(tmp_path: Path) -> None:
    index = with_masks(tmp_path)
    for seed in range(8):
        scene = scene_of(index, 0, [Affine(scale=(0.7, 1.3), rotation=40)], SIZE, [], seed)
        masks = shown(scene, index, mask_stride=1).masks
        assert masks is not None
        generator = Generator().manual_seed(seed)
        factor, x, y = (uniform(generator, *ends) for ends in ((0.7, 1.3), (-0.1, 0.1), (-0.1, 0.1)))
        angle = uniform(generator, -40, 40)
        theirs = v2.functional.affine(
            tv_tensors.Mask(rasterise([HEART], SIZE)), angle, [x * SIZE[0], y * SIZE[1]], factor, [0.0, 0.0]
        )
        for mask in masks[:2]:
            assert (mask != theirs.numpy()).sum() <= 0.06 * theirs.sum()


def test_of_masks_every_so_many_rows_and_columns_are_given(tmp_path: Path) -> None:
    index = with_masks(tmp_path)
    whole, fourth = (
        next(Loader(index, size=SIZE, batch=1, masks=True, mask_stride=stride).epoch(0)).targets.masks
        for stride in (1, 4)
    )
    assert whole is not None
    assert fourth is not None
    assert whole.shape == (1, 8, 60, 80)
    assert fourth.shape == (1, 8, 15, 20)
    assert whole.dtype == torch.bool
    assert torch.equal(fourth, whole[:, :, 2::4, 2::4])
    assert not whole[:, 3:].any()
    assert next(Loader(index, size=SIZE, batch=1).epoch(0)).targets.masks is None


def test_masks_of_a_mosaic_lie_where_their_pictures_do(tmp_path: Path) -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[rasterise([HEART], SIZE)] = 255
    heart = Object((12.0, 10.0, 68.0, 52.0), 0, mask=[HEART])
    index = index_of(tmp_path, [pixels] * 4, [[heart]] * 4)
    for seed in range(12):
        for rotation in (0, 25):
            transforms = [Mosaic(fill=0), Affine(rotation=rotation, min_visible=0.0)]
            canvas, _, objects = drawn(index, scene_of(index, 0, transforms, SIZE, [1, 2, 3], seed), mask_stride=1)
            assert objects.masks is not None
            assert not (objects.masks.sum(0) > 1).any()
            white = canvas[..., 0] > 127
            assert (objects.masks.any(0) != white).sum() <= 0.08 * white.sum() + 12


def test_of_a_turned_part_only_what_shows_belongs_to_the_mask(tmp_path: Path) -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[rasterise([HEART], SIZE)] = 255
    runs = encoded(rasterise([HEART], SIZE))
    box = (12.0, 10.0, 68.0, 52.0)
    index = index_of(tmp_path, [pixels], [[Object(box, 0, mask=[HEART]), Object(box, 1, mask=runs)]])
    scene = scene_of(index, 0, [], SIZE, []).placed(np.eye(3), (0.0, 0.0, 40.0, 60.0), SIZE)
    turned = scene.edited([Affine(scale=(1, 1), shift=0, rotation=45)], Generator().manual_seed(8), index)
    canvas, _, objects = drawn(index, turned, mask_stride=1)
    assert objects.masks is not None
    white = canvas[..., 0] > 184  # more than half of the way from the grey beside it
    assert 200 < white.sum() < 0.6 * (pixels[..., 0] > 0).sum()
    for mask in objects.masks:
        assert (mask != white).sum() < 0.1 * white.sum()


def key_points(folder: Path, count: int = 1) -> Index:
    places = [(40, 20, 2), (30, 15, 2), (50, 15, 1), (22, 18, 2), (58, 18, 2), (0, 0, 0), (70, 50, 2)]
    row = Object((10.0, 8.0, 75.0, 55.0), 0, keypoints=[float(v) for place in places for v in place])
    return index_of(folder, [smooth(*SIZE)] * count, [[row]] * count, keypoint_names=NAMES)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (NAMES, (0, 2, 1, 4, 3, 6, 5)),
        (("RIGHT-KNEE", "LEFT-KNEE", "bright", "leftover"), (1, 0, 2, 3)),
        (("left_eye", "nose"), (0, 1)),
        ((), (0, 1, 2)),
    ],
)
def test_sides_are_told_by_names(names: tuple[str, ...], expected: tuple[int, ...]) -> None:
    assert points.mirrored(names, len(names) or 3) == expected


def test_a_mirror_makes_left_ones_right_ones(tmp_path: Path) -> None:
    index = key_points(tmp_path)
    scene = scene_of(index, 0, [HorizontalFlip(1.0)], SIZE, [])
    found = shown(scene, index).keypoints
    assert found is not None
    assert found[0].tolist() == [
        [40, 20, 2], [30, 15, 1], [50, 15, 2], [22, 18, 2], [58, 18, 2], [10, 50, 2], [0, 0, 0]
    ]  # fmt: skip
    both = shown(scene_of(index, 0, [HorizontalFlip(1.0), VerticalFlip(1.0)], SIZE, []), index).keypoints
    assert both is not None
    assert both[0, 1].tolist() == [50, 45, 2]  # turned, not mirrored: left stays left
    one = shown(scene_of(index, 0, [VerticalFlip(1.0)], SIZE, []), index).keypoints
    assert one is not None
    assert one[0, 1].tolist() == [50, 45, 1]


def test_key_points_follow_the_matrix_and_vanish_outside(tmp_path: Path) -> None:
    index = key_points(tmp_path)
    assert index.keypoints is not None
    for seed in range(30):
        scene = scene_of(index, 0, [Affine(scale=(0.8, 2.0), rotation=30, shift=0.3, min_visible=0)], SIZE, [], seed)
        found = shown(scene, index).keypoints
        matrix = scene.layers[0].view.matrix
        for place, (x, y, visibility) in zip(index.keypoints[0], found[0] if found is not None else [], strict=True):
            there = matrix @ (place[0], place[1], 1)
            inside = 0 <= there[0] < SIZE[0] and 0 <= there[1] < SIZE[1] and place[2] > 0
            assert visibility == (place[2] if inside else 0)
            assert np.allclose((x, y), there[:2] if inside else 0)


def test_key_points_under_a_pasted_picture_are_hidden(tmp_path: Path) -> None:
    index = key_points(tmp_path, 2)
    lower, upper = (scene_of(index, row, [], SIZE, []) for row in (0, 1))
    found = shown(overlaid(lower, upper, (45, 0, 80, 30), classes=False), index).keypoints
    assert found is not None
    assert found[0, :, 2].tolist() == [2, 2, 1, 2, 1, 0, 2]
    assert found[1, :, 2].tolist() == [0, 0, 1, 0, 2, 0, 0]  # what of the upper one shows at all


def test_key_points_are_padded_like_boxes(tmp_path: Path) -> None:
    index = key_points(tmp_path, 2)
    found = next(Loader(index, size=SIZE, batch=2).epoch(0)).targets.keypoints
    assert found is not None
    assert index.keypoints is not None
    assert found.shape == (2, 8, 7, 3)
    assert np.allclose(found[:, 0], index.keypoints)
    assert not found[:, 1:].any()


def test_what_moves_pixels_moves_all_that_belongs_to_them(tmp_path: Path) -> None:
    heart = Object((12.0, 10.0, 68.0, 52.0), 0, mask=[HEART], keypoints=[40.0, 20.0, 2.0, 20.0, 25.0, 2.0])
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[rasterise([HEART], SIZE)] = 255
    index = index_of(tmp_path, [pixels], [[heart]], keypoint_names=("left_one", "right_one"))
    distort = Distort(alpha=120.0, sigma=5.0, seed=3)
    view = View.of(SIZE, SIZE).filtered(distort)
    canvas, _, objects = drawn(index, Scene.of(0, SIZE, SIZE).after(view), mask_stride=1)
    white = canvas[..., 0] > 127
    assert (white != (pixels[..., 0] > 0)).sum() > 100  # it does move
    assert objects.masks is not None
    assert objects.keypoints is not None
    assert (objects.masks[0] != white).sum() < 0.03 * white.sum()
    ys, xs = np.nonzero(white)
    assert np.abs(objects.boxes[0] - (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)).max() <= 1.5
    moved = distort.points(np.array([[40.0, 20.0], [20.0, 25.0]]), SIZE)
    assert np.allclose(objects.keypoints[0, :, :2], moved)
    # By its box alone the object is held by a larger one.
    _, _, boxed = drawn(index, Scene.of(0, SIZE, SIZE).after(view))
    assert (boxed.boxes[0, :2] <= objects.boxes[0, :2] + 1).all()
    assert (boxed.boxes[0, 2:] >= objects.boxes[0, 2:] - 1).all()


def class_maps(folder: Path, count: int = 2) -> tuple[Index, list[np.ndarray]]:
    """Pictures whose red channel is twenty times the class."""
    maps = [np.random.default_rng(n).integers(0, 5, (15, 20)).repeat(4, 0).repeat(4, 1) for n in range(count)]
    index = index_of(
        folder, [np.stack([20 * m, m, m], -1).astype(np.uint8) for m in maps], [[]] * count, task="segment"
    )
    files: list[str | None] = []
    for number, classes in enumerate(maps):
        Image.fromarray(classes.astype(np.uint8)).save(folder / f"map{number}.png")
        files.append(f"map{number}.png")
    return replace(index, segments=files), [classes.astype(np.uint8) for classes in maps]


def test_a_map_of_classes_follows_its_picture(tmp_path: Path) -> None:
    index, maps = class_maps(tmp_path)
    plain = next(Loader(index, size=SIZE, batch=2).epoch(0)).targets.segments
    assert plain is not None
    assert plain.dtype == torch.uint8
    assert np.array_equal(plain, np.stack(maps))
    wide = next(Loader(index, size=(100, 60), batch=2).epoch(0)).targets.segments
    assert wide is not None
    assert (wide[:, :, :10] == 255).all()
    assert np.array_equal(wide[:, :, 10:90], np.stack(maps))
    # Nearest neighbour and bilinear sampling differ at the edges of the blocks, wherever pixels do not stay pixels.
    for transforms, most in (
        ([HorizontalFlip()], 0.0),
        ([TRANSFORMS["cutmix"]()], 0.0),
        ([Affine(rotation=20)], 0.35),
        ([Mosaic(), Affine()], 0.35),
    ):
        batch = next(Loader(index, transforms, size=SIZE, batch=2, seed=4, shuffle=True).epoch(0))
        classes, red = batch.targets.segments, batch.images[:, 0].int()
        assert classes is not None
        known = classes != 255
        assert known.float().mean() > 0.2
        assert ((red[known] - 20 * classes[known].int()).abs() > 10).float().mean() <= most
        # No picture is where no class is known, but for pixels that its edges are blended with.
        assert (red[~known] == 114).float().sum() >= 0.8 * (~known).sum()

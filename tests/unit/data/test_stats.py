from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.data.pictures import noise, save, small_index
from torso.config import DataError
from torso.data import Index
from torso.data.builder import Builder, Object
from torso.data.stats import ChannelSums, estimate_mean_std, stats
from torso.nn.normalize import NormalizePixels


def pictures(folder: Path, arrays: list[np.ndarray]) -> Index:
    builder = Builder(folder, ("a",))
    for number, pixels in enumerate(arrays):
        path = save(pixels, folder / f"{number}.png")
        builder.image(path, (pixels.shape[1], pixels.shape[0]), number)
    return builder.finish()


def two_passes(arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean first, then the distances from it, over all pixels at once."""
    flat = np.concatenate([pixels.reshape(-1, 3) for pixels in arrays]).astype(np.float64) / 255
    return flat.mean(axis=0), flat.std(axis=0)


@pytest.mark.part("transform/estimate_mean_std")
def test_mean_and_deviation_are_those_of_all_pixels_together(tmp_path: Path) -> None:
    # Pictures of different size and brightness: the mean of each one's own deviation would be far too small.
    arrays = [
        noise(40, 30),
        noise(300, 260, seed=1) // 4,
        noise(7, 90, seed=2) // 2 + 128,
        np.full((5, 5, 3), 255, "u1"),
    ]
    found = estimate_mean_std(pictures(tmp_path, arrays))
    mean, std = two_passes(arrays)
    assert np.allclose(found["mean"], mean, rtol=1e-14)
    assert np.allclose(found["std"], std, rtol=1e-12)
    assert found["pixels"] == sum(pixels.shape[0] * pixels.shape[1] for pixels in arrays)
    assert (found["pictures"], found["skipped"]) == (4, [])
    own = np.mean([pixels.reshape(-1, 3).std(axis=0) / 255 for pixels in arrays], axis=0)
    assert (np.abs(own - std) > 0.01).all()


@pytest.mark.part("transform/estimate_mean_std")
def test_normalize_with_them_leaves_mean_0_and_deviation_1(tmp_path: Path) -> None:
    arrays = [noise(31, 17, seed=seed) // (seed + 1) for seed in range(4)]
    found = estimate_mean_std(pictures(tmp_path, arrays))
    normalize = NormalizePixels(tuple(found["mean"]), tuple(found["std"]))
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    after = normalize(images.double())
    assert torch.allclose(after.mean(dim=(0, 2, 3)), torch.zeros(3).double(), atol=1e-5)
    assert torch.allclose(after.std(dim=(0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-5)


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99)), min_size=1, max_size=6), st.data()
)
def test_sums_are_exact_in_any_order_and_any_parts(shapes: list[tuple[int, int, int]], data: st.DataObject) -> None:
    arrays = [noise(width, height, seed) for width, height, seed in shapes]
    whole, left, right = ChannelSums(), ChannelSums(), ChannelSums()
    for pixels in arrays:
        whole.add(pixels)
    for pixels in data.draw(st.permutations(arrays)):
        data.draw(st.sampled_from([left, right])).add(pixels)
    left.merge(right)
    assert left == whole
    flat = np.concatenate([pixels.reshape(-1, 3) for pixels in arrays]).astype(object)
    assert whole.sums == list(flat.sum(axis=0))
    assert whole.squares == list((flat**2).sum(axis=0))


def test_a_tiny_spread_beside_a_large_mean_is_not_rounded_away() -> None:
    sums = ChannelSums()
    picture = np.full((512, 512, 3), 255, np.uint8)
    picture[0, 0] = 254
    sums.add(picture)
    for _ in range(16):  # as if two to the sixteen such pictures came
        sums.merge(replace(sums))
    # Of n bytes one in 512 * 512 is lower by one.
    share = 1 / 512**2
    assert sums.pixels == 2**34
    assert sums.std[0] == pytest.approx(math.sqrt(share * (1 - share)) / 255, rel=1e-14)


def test_pixels_are_added_in_parts_and_all_of_them_count() -> None:
    picture = noise(700, 300)  # more than are added at once
    sums = ChannelSums()
    sums.add(picture)
    assert sums.pixels == 210_000
    assert sums.sums == picture.reshape(-1, 3).sum(axis=0, dtype=np.int64).tolist()


@pytest.mark.part("transform/estimate_mean_std")
def test_a_sample_is_drawn_by_its_seed_without_replacement(tmp_path: Path) -> None:
    index = pictures(tmp_path, [np.full((2, 2, 3), 10 * number, np.uint8) for number in range(12)])
    found = [estimate_mean_std(index, 5, seed)["mean"] for seed in (0, 0, 1, 2)]
    assert found[0] == found[1]
    assert len({tuple(mean) for mean in found}) > 1
    assert estimate_mean_std(index, 12) == estimate_mean_std(index, 99) == estimate_mean_std(index)
    assert estimate_mean_std(index, 5)["pixels"] == 20
    with pytest.raises(DataError, match="expected 1 picture or more, came 0"):
        estimate_mean_std(index, 0)


@pytest.mark.part("transform/estimate_mean_std")
def test_pictures_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    arrays = [noise(8, 6), noise(9, 5, seed=1)]
    index = pictures(tmp_path, arrays)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    found = estimate_mean_std(index)
    assert found["mean"] == pytest.approx(two_passes(arrays[:1])[0].tolist())
    assert [one["path"] for one in found["skipped"]] == ["1.png"]
    (tmp_path / "0.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match="none of 2 pictures can be read"):
        estimate_mean_std(index)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    builder = Builder(tmp_path, ("a", "b", "unused"), (3, 7, 90))
    sizes = [(100, 80), (100, 80), (400, 300)]
    objects = [
        [Object((0, 0, 31, 32), 0), Object((0, 0, 32, 32), 0, difficult=True), Object((1, 1, 100, 80), 0, crowd=True)],
        [],
        [Object((0, 0, 96, 96), 1), Object((0, 0, 100, 95), 0, truncated=True), Object((0, 0, 9, 90), 1, area=10.0)],
    ]
    for number, (size, rows) in enumerate(zip(sizes, objects, strict=True)):
        path = save(noise(*size, seed=number), tmp_path / f"{number}.png")
        builder.image(path, size, number)
        builder.objects(rows, path)
    return builder.finish()


def test_pictures_classes_and_objects_are_counted(index: Index) -> None:
    found = stats(index, pixels=False)
    assert (found["pictures"], found["objects"], found["pictures_without_objects"]) == (3, 6, 1)
    assert found["sizes"]["most_common"][0] == {"width": 100, "height": 80, "pictures": 2}
    assert (found["sizes"]["width"]["min"], found["sizes"]["width"]["median"], found["sizes"]["width"]["max"]) == (
        100,
        100,
        400,
    )
    assert found["sizes"]["aspect_ratio"]["median"] == 1.25
    rows = [(row["class"], row["id"], row["objects"], row["pictures"]) for row in found["classes"]]
    assert rows == [("a", 3, 4, 2), ("b", 7, 2, 1), ("unused", 90, 0, 0)]
    assert [row["share"] for row in found["classes"]] == pytest.approx([4 / 6, 2 / 6, 0])
    assert found["shares"] == pytest.approx({"crowd": 1 / 6, "difficult": 1 / 6, "truncated": 1 / 6})
    assert found["objects_a_picture"]["max"] == 3
    assert found["objects_a_picture"]["histogram"] == {"edges": [0, 1, 2, 3, 4], "counts": [1, 0, 0, 2]}
    assert "pixels" not in found
    assert "anchors" not in found


def test_boxes_are_small_medium_or_large_by_the_limits_of_coco(index: Index) -> None:
    boxes = stats(index, pixels=False)["boxes"]
    # 31 * 32 and the said area of 10; 32 * 32; 96 * 96 and 100 * 95. The crowd region has no size.
    assert (boxes["small"], boxes["medium"], boxes["large"]) == (2, 1, 2)
    assert boxes["width"]["max"] == 100
    assert boxes["aspect_ratio"]["min"] == pytest.approx(0.1)
    assert boxes["side_of_picture"]["max"] == pytest.approx(math.sqrt(32 * 32 / (100 * 80)))
    for name in ("side", "aspect_ratio", "side_of_picture"):
        assert sum(boxes[name]["histogram"]["counts"]) == 5


def test_everything_can_be_asked_for_and_is_json(index: Index) -> None:
    found = stats(index, anchors=3, size=320)
    assert json.loads(json.dumps(found)) == found
    assert found["pixels"]["pixels"] == 2 * 8000 + 120_000
    assert len(found["anchors"]["anchors"]) == 3
    assert found["anchors"]["boxes"] == 5
    assert 0 < found["anchors"]["mean_iou"] <= found["anchors"]["best_possible_recall"] <= 1


def test_data_without_objects_have_no_sizes_of_them(tmp_path: Path) -> None:
    empty = small_index(tmp_path, count=1)
    found = stats(empty, pixels=False)
    assert found["objects"] == 0
    assert found["boxes"]["side"] == {"min": None, "median": None, "mean": None, "max": None}
    assert found["shares"]["crowd"] is None
    with pytest.raises(DataError, match="boxes with a width"):
        stats(empty, pixels=False, anchors=3)


def test_classes_of_whole_pictures_are_counted(tmp_path: Path) -> None:
    builder = Builder(tmp_path, ("cat", "dog"), task="classify")
    for number in range(3):
        path = save(noise(8, 6), tmp_path / f"{number}.png")
        builder.image(path, (8, 6), path.name, number % 2)
    found = stats(builder.finish())
    assert [(row["class"], row["objects"], row["pictures"]) for row in found["classes"]] == [
        ("cat", 2, 2),
        ("dog", 1, 1),
    ]
    assert "boxes" not in found


def test_real_pictures_give_what_two_passes_give(shared_data: Path) -> None:
    from torso.data import open_index
    from torso.data.decode import decode

    cells = open_index(shared_data / "bccd", "val").select(range(0, 87, 6))
    found = estimate_mean_std(cells)
    mean, std = two_passes([decode(cells.picture(row)) for row in range(len(cells))])
    assert np.allclose(found["mean"], mean, rtol=1e-12)
    assert np.allclose(found["std"], std, rtol=1e-12)
    assert found["pixels"] == 15 * 640 * 480

"""Windows over large pictures: what they see, what is merged, and every object of a scene exactly once."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from torso.boxes.ios_nms import IoSNMS
from torso.boxes.overlap import pairwise_iou
from torso.data.views import View, shifting
from torso.deploy.exported import Exported
from torso.deploy.tiled import Tiled, ends_at_seam, parts_of_others, places
from torso.evaluate.tta import Looks
from torso.structures import Detections

SIZE = (64, 48)


class Oracle:
    """Says what is truly there: objects are rectangles of their own red, and of a window it sees a part of them."""

    task, num_classes, stride = "detect", 3, 8

    def __init__(self, masks=False):
        self.masks, self.batches = masks, []

    def predict(self, images):
        self.batches.append(tuple(images.shape))
        assert images.dtype is torch.uint8
        rows = [self.one(image[0]) for image in images]
        most = max(1, *(len(found) for found in rows))
        table = torch.zeros(len(rows), most, 6)
        for i, found in enumerate(rows):
            table[i, : len(found)] = torch.tensor(found).reshape(-1, 6)
        scores = table[..., 4]
        masks = torch.ones(*scores.shape, 2, 2) * (scores > 0)[..., None, None] if self.masks else None
        return Detections(table[..., :4], scores, table[..., 5].long(), scores > 0, masks)

    @staticmethod
    def one(red):
        found = []
        for value in red.unique().tolist():
            if value not in (0, 114):
                y, x = torch.nonzero(red == value, as_tuple=True)
                box = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
                found.append([*map(float, box), value / 256, value % 3])
        return found


def scene(seed, width, height, count, most):
    """A picture and the objects on it, none of which hides another."""
    rng = np.random.default_rng(seed)
    picture, truth = np.zeros((height, width, 3), np.uint8), []
    reds = iter([value for value in range(1, 255) if value != 114])
    for _ in range(count * 5):
        if len(truth) == count:
            break
        w, h = rng.integers(1, most[0] + 1), rng.integers(1, most[1] + 1)
        if w > width or h > height:
            continue
        x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
        if picture[y : y + h, x : x + w].any():
            continue  # its pixels would be hidden in part
        red = next(reds)
        picture[y : y + h, x : x + w] = red
        truth.append((x, y, x + w, y + h, red % 3))
    return picture, sorted(tuple(map(int, row)) for row in truth)


def said(found):
    rows = torch.cat([found.boxes[0], found.labels[0, :, None].double()], dim=1)[found.valid[0]]
    return sorted(tuple(round(value) for value in row) for row in rows.tolist())


@pytest.mark.part("deploy/tiled")
@given(st.integers(1, 3000), st.integers(1, 700), st.floats(0, 0.99))
@settings(max_examples=300, deadline=None)
def test_every_pixel_is_seen_and_what_is_smaller_than_the_overlap_lies_whole_in_a_window(side, tile, overlap):
    assume(tile > 20 or side < 500)
    starts = places(side, tile, overlap)
    assert starts[0] == 0
    if side <= tile:
        assert len(starts) == 1
        return
    assert starts[-1] + tile == side
    steps = np.diff(starts)
    assert (steps >= 1).all()
    shared = min(int(np.ceil(overlap * tile)), tile - 1)
    # A part of `shared` pixels that begins anywhere lies between two neighbours' beginnings, and so in the first.
    assert (steps <= tile - shared).all()
    begin = np.arange(side - shared + 1)
    first = starts[np.searchsorted(starts, begin, side="right") - 1]
    assert (begin + shared <= first + tile).all()
    assert len(starts) == -(-(side - tile) // max(tile - shared, 1)) + 1, "no more windows than needed"


@pytest.mark.part("deploy/tiled")
@given(st.integers(0, 10_000), st.integers(20, 260), st.integers(20, 200), st.sampled_from([0.25, 0.4, 0.5]))
@settings(max_examples=60, deadline=None)
def test_every_object_of_a_scene_is_found_exactly_once(seed, width, height, overlap):
    """Objects up to the size of the overlap, at any place: cut by seams, whole in several windows, or both."""
    tiled = Tiled(Oracle(), SIZE, overlap=overlap, batch=3)
    picture, truth = scene(seed, width, height, 12, [int(overlap * side) for side in SIZE])
    if len(tiled.windows(width, height)) > 1:
        assert said(tiled.predict(picture)) == truth


@pytest.mark.part("deploy/tiled")
@pytest.mark.parametrize("merge", [None, IoSNMS()], ids=["iou", "ios"])
def test_an_object_larger_than_the_overlap_is_whole_where_the_whole_picture_is_seen(merge):
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[10:90, 8:120] = 200
    picture[2:6, 4:12] = 100
    pieces = said(Tiled(Oracle(), SIZE, overlap=0.25, merge=merge).predict(picture))
    assert len(pieces) > 2
    whole = Tiled(Oracle(), SIZE, overlap=0.25, merge=merge, whole=True).predict(picture)
    assert said(whole) == [(4, 2, 12, 6, 100 % 3), (8, 10, 120, 90, 200 % 3)]


@pytest.mark.part("deploy/tiled")
@pytest.mark.parametrize(("width", "height"), [(64, 48), (40, 30), (63, 1), (1, 1)])
def test_a_picture_no_larger_than_a_window_is_one_look_as_without_windows(width, height):
    oracle = Oracle()
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 3, (height, width, 3), dtype=np.uint8) * 50
    found = Tiled(oracle, SIZE, whole=True).predict(picture)
    assert oracle.batches == [(1, 3, 48, 64)]
    assert found.valid.all()
    assert (found.boxes[0] >= 0).all()
    assert (found.boxes[0] <= torch.tensor([width, height, width, height])).all()


@pytest.mark.part("deploy/tiled")
def test_no_batch_is_larger_than_asked_whatever_the_picture():
    oracle = Oracle()
    tiled = Tiled(oracle, SIZE, overlap=0.2, batch=4)
    picture = np.zeros((300, 500, 3), np.uint8)
    tiled.predict(picture)
    counts = [shape[0] for shape in oracle.batches]
    assert sum(counts) == len(tiled.windows(500, 300))
    assert set(counts[:-1]) == {4}
    assert all(shape[1:] == (3, 48, 64) for shape in oracle.batches)


@pytest.mark.part("deploy/tiled")
@pytest.mark.parametrize("tile", [32, 128, 200])
def test_windows_of_another_size_are_scaled_to_the_network(tile):
    """Boxes come back where they are to about a pixel: edges are blurred where a window is shrunk or enlarged."""
    picture = np.zeros((400, 500, 3), np.uint8)
    truth = [(100, 120, 124, 150), (300, 40, 340, 56), (420, 380, 440, 396)]
    for number, (x0, y0, x1, y1) in enumerate(truth):
        picture[y0:y1, x0:x1] = 240 - number * 6

    class Lit(Oracle):
        """Whatever is bright, as one object each."""

        @staticmethod
        def one(red):
            import cv2

            count, _, stats, _ = cv2.connectedComponentsWithStats(
                (red.numpy() > 110).astype(np.uint8) & (red.numpy() != 114)
            )
            boxes = stats[1:count, :4].astype(float)
            return [[x, y, x + w, y + h, 0.9, 0.0] for x, y, w, h in boxes.tolist() if w * h > 2]

    tiled = Tiled(Lit(), SIZE, tile=tile, overlap=0.75 if tile == 32 else 0.4)
    assert tiled.tile == (tile, tile * 3 // 4)
    found = tiled.predict(picture)
    if tile == 32:
        assert found.valid.sum() >= 3  # objects of 30 and 40 pixels do not fit in 24 x 32
        return
    assert found.valid.sum() == 3
    best = pairwise_iou(torch.tensor(truth, dtype=torch.float64), found.boxes[0])[:, found.valid[0]]
    assert (best.amax(dim=1) > 0.75).all()


@pytest.mark.part("deploy/tiled")
def test_a_side_shorter_than_a_window_lies_in_the_middle_of_grey():
    seen = []

    class Eye(Oracle):
        def predict(self, images):
            seen.append(images.clone())
            return super().predict(images)

    picture, truth = scene(1, 40, 130, 5, (12, 12))
    assert said(Tiled(Eye(), SIZE, overlap=0.3).predict(picture)) == truth
    for image in torch.cat(seen):
        assert (image[:, :, :12] == 114).all()
        assert (image[:, :, 52:] == 114).all()
        assert not (image[:, :, 12:52] == 114).any()


@pytest.mark.part("deploy/tiled")
def test_a_box_is_cut_by_seams_only_and_not_by_the_end_of_the_picture():
    boxes = torch.tensor([[0.0, 10, 20, 20], [10, 0, 20, 20], [40, 10, 64, 20], [10, 30, 20, 48], [3, 3, 61, 45]])
    view = View.of((100, 100), SIZE).then(shifting(0, 0), SIZE)
    corner, middle = np.array([0, 0, 64, 48]), np.array([20, 20, 84, 68])
    assert ends_at_seam(boxes, view, corner, (100, 100)).tolist() == [False, False, True, True, False]
    moved = View.of((100, 100), SIZE).then(shifting(-20, -20), SIZE)
    assert ends_at_seam(boxes, moved, middle, (100, 100)).tolist() == [True, True, True, True, False]
    last = View.of((84, 68), SIZE).then(shifting(-20, -20), SIZE)
    assert ends_at_seam(boxes, last, middle, (84, 68)).tolist() == [True, True, False, False, False]


@pytest.mark.part("deploy/tiled")
def test_a_part_goes_only_where_another_window_has_more_of_it():
    def parts(*rows):
        table = torch.tensor(rows, dtype=torch.float64)
        boxes, labels, cut, windows = table[:, :4], table[:, 4].long(), table[:, 5].bool(), table[:, 6].long()
        return parts_of_others(boxes, labels, cut, windows, 0.7).tolist()

    whole, half = [0, 0, 40, 20], [0, 0, 20, 20]
    assert parts([*whole, 0, 0, 0], [*half, 0, 1, 1]) == [False, True]
    assert parts([*whole, 0, 0, 0], [*half, 1, 1, 1]) == [False, False]  # of another class
    assert parts([*whole, 0, 0, 0], [*half, 0, 0, 1]) == [False, False]  # not cut: an object inside another
    assert parts([*whole, 0, 0, 0], [*half, 0, 1, 0]) == [False, False]  # of the same window: it saw two
    assert parts([*whole, 0, 1, 0], [*half, 0, 1, 1]) == [False, True]  # the larger of two cut ones
    assert parts([*half, 0, 1, 0], [*half, 0, 1, 1]) == [False, True]  # one of two equal ones stays
    assert parts([*half, 0, 1, 0], [10, 0, 40, 20, 0, 0, 1]) == [False, False]  # half of it lies elsewhere


@pytest.mark.part("deploy/tiled")
def test_parts_are_compared_in_chunks_of_bounded_size(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(60, 2, generator=generator).double() * 30
    boxes = torch.cat([low, low + torch.rand(60, 2, generator=generator).double() * 30], dim=1)
    labels, cut = torch.randint(0, 2, (60,), generator=generator), torch.rand(60, generator=generator) > 0.4
    windows = torch.randint(0, 3, (60,), generator=generator)
    whole = parts_of_others(boxes, labels, cut, windows, 0.7)
    monkeypatch.setattr("torso.deploy.tiled.CHUNK", 100)
    assert torch.equal(parts_of_others(boxes, labels, cut, windows, 0.7), whole)
    assert 0 < int(whole.sum()) < int(cut.sum())


@pytest.mark.part("deploy/tiled")
def test_masks_come_along():
    picture, truth = scene(3, 200, 150, 8, (12, 10))
    found = Tiled(Oracle(masks=True), SIZE, overlap=0.25).predict(picture)
    assert said(found) == truth
    assert found.masks.shape == (*found.scores.shape, 2, 2)
    torch.testing.assert_close(found.masks[found.valid], torch.ones(len(truth), 2, 2, dtype=found.masks.dtype))
    nothing = Tiled(Oracle(masks=True), SIZE).predict(np.zeros((150, 200, 3), np.uint8))
    assert not nothing.valid.any()
    assert nothing.masks.shape[2:] == (2, 2)
    small = Tiled(Oracle(masks=True), SIZE).predict(np.full((10, 10, 3), 60, np.uint8))
    assert small.masks.shape == (1, 1, 2, 2)


@pytest.mark.part("deploy/tiled")
def test_an_exported_file_answers_as_its_model(detector, detector_file):
    picture = np.random.default_rng(0).integers(0, 255, (150, 230, 3), dtype=np.uint8)
    file = Exported(detector_file)
    theirs = Tiled(file, file.size, overlap=0.3, batch=3).predict(picture)
    ours = Tiled(detector, file.size, overlap=0.3, batch=3).predict(picture)
    assert said(theirs) == said(ours)
    assert len(said(ours)) > 20
    torch.testing.assert_close(theirs.scores, ours.scores, rtol=0, atol=1e-4)
    again = Tiled(Looks(file), file.size, overlap=0.3, batch=3).predict(picture)
    assert again.valid.any()


@pytest.mark.part("deploy/tiled")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"overlap": 1.0}, "overlap"), ({"overlap": -0.1}, "overlap"), ({"inside": 0}, "inside"), ({"tile": 0}, "tile")],
)
def test_what_makes_no_sense_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Tiled(Oracle(), SIZE, **options)


def test_a_classifier_has_no_windows():
    class Classifier:
        def predict(self, images):
            return torch.ones(len(images), 2)

    with pytest.raises(ValueError, match="windows are for detectors"):
        Tiled(Classifier(), SIZE).predict(np.zeros((100, 100, 3), np.uint8))

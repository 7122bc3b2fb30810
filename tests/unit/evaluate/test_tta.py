"""Several looks at a picture: where boxes and masks come back to, and what becomes of answers that agree or do not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torso.boxes.fusion import WeightedFusion
from torso.boxes.mask_merge import merged_masks, over
from torso.boxes.suppress import NMS, BatchedNMS, SoftNMS
from torso.evaluate.tta import Look, Looks, brought_back, shown
from torso.structures import Detections


class Finder:
    """Finds rectangles by their red, which tells class and score too; its masks have cells as the pixels are.

    It sees only pixels, so whatever happens to a picture happens to its answer.
    """

    task, num_classes, stride = "detect", 3, 8

    def __init__(self, masks=False, rows=5):
        self.masks, self.rows, self.seen = masks, rows, []

    def predict(self, images):
        self.seen.append(images)
        found = [self.one(image) for image in images]
        boxes, scores, labels, masks = (torch.stack(column) for column in zip(*found, strict=True))
        return Detections(boxes, scores, labels, scores > 0, masks if self.masks else None)

    def one(self, image):
        boxes, scores = torch.zeros(self.rows, 4), torch.zeros(self.rows)
        labels, masks = torch.zeros(self.rows, dtype=torch.int64), torch.zeros(self.rows, 4, 4)
        reds = [red for red in image[0].unique().tolist() if red % 10 == 0 and red > 0]
        for row, red in enumerate(sorted(reds, reverse=True)):
            y, x = torch.nonzero(image[0] == red, as_tuple=True)
            x0, y0, x1, y1 = (int(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1))
            boxes[row] = torch.tensor([x0, y0, x1, y1])
            scores[row], labels[row] = red / 255, red // 10 % 3
            lit = (image[1, y0:y1, x0:x1] > 0).float()
            masks[row] = torch.nn.functional.interpolate(lit[None, None], (4, 4), mode="area")[0, 0]
        return boxes, scores, labels, masks


def pictures(seed=0, count=2, apart=True):
    """Pictures with three rectangles each, green in a part of them."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 3, 64, 96, dtype=torch.uint8)
    for image in images:
        for number in range(3):
            x, y = (int(torch.randint(0, 12, (), generator=generator)) for _ in range(2))
            x, y = (x + 32 * number, y + 20) if apart else (x, y)
            w, h = (int(torch.randint(8, 20, (), generator=generator)) for _ in range(2))
            image[0, y : y + h, x : x + w] = 250 - 10 * number
            image[1, y : y + h // 2, x : x + w // 3] = 255
    return images


def rows(found):
    """A picture's answer as a set of rounded rows."""
    return [
        sorted(
            (round(float(s), 4), int(label), *(round(float(v), 3) for v in box))
            for s, label, box in zip(found.scores[i][ok], found.labels[i][ok], found.boxes[i][ok], strict=True)
        )
        for i, ok in enumerate(found.valid)
    ]


MERGES = [WeightedFusion(), WeightedFusion(confidence="max"), NMS(), BatchedNMS(), SoftNMS(method="linear")]


@pytest.mark.part("trick/tta")
@pytest.mark.parametrize("merge", MERGES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("seed", range(5))
def test_what_sees_mirrored_pictures_mirrored_gives_its_own_answer(merge, seed):
    images, model = pictures(seed), Finder()
    alone = model.predict(images)
    assert rows(Looks(model, merge=merge).predict(images)) == rows(alone)
    assert all(len(picture) == 3 for picture in rows(alone))


@pytest.mark.part("trick/tta")
@pytest.mark.parametrize("masks", [False, True])
def test_with_one_look_the_answer_is_the_models_own(masks):
    images, model = pictures(), Finder(masks)
    alone = Looks(model, flip=False).predict(images)
    for ours, own in zip(alone, model.predict(images), strict=True):
        assert (ours is None and own is None) or torch.equal(ours, own)
    assert model.seen[0] is images


@pytest.mark.part("trick/tta")
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.3, 3), st.booleans(), st.sampled_from([1, 8, 32]), st.data())
@settings(max_examples=100, deadline=None)
def test_boxes_come_back_to_where_they_are(height, width, scale, flip, stride, data):
    """Forwards by the definition, point by point; backwards by the code."""
    height, width = height * 16, width * 16
    model = Finder()
    model.stride = stride
    looks = Looks(model, (scale,), flip).looks(height, width)
    assert looks[0] == Look(height, width, flip=False)
    look = data.draw(st.sampled_from(looks))
    if look != looks[0]:
        assert (look.height, look.width) == (height, width) or look.height % stride == look.width % stride == 0
        assert abs(look.height - height * scale) <= max(stride / 2, 1e-6) or look.height in (stride, height)
    side = st.floats(0, 1)
    x0, x1 = sorted(width * data.draw(side) for _ in range(2))
    y0, y1 = sorted(height * data.draw(side) for _ in range(2))
    ends = [x / width * look.width for x in (x0, x1)]
    left, right = [look.width - x for x in reversed(ends)] if look.flip else ends
    box = torch.tensor([[[left, y0 / height * look.height, right, y1 / height * look.height]]], dtype=torch.float64)
    one = torch.ones(1, 1)
    there = Detections(box, one, one.long(), one.bool())
    back = brought_back(there, look, height, width).boxes[0, 0]
    torch.testing.assert_close(back, torch.tensor([x0, y0, x1, y1], dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.part("trick/tta")
def test_pictures_are_shown_at_each_scale_and_mirrored_at_each():
    images, model = pictures(), Finder()
    looks = Looks(model, (0.8, 1.2, 1.0))
    looks.predict(images)
    assert [tuple(seen.shape[2:]) for seen in model.seen] == [(64, 96)] * 2 + [(48, 80)] * 2 + [(80, 112)] * 2
    assert all(seen.dtype is torch.uint8 for seen in model.seen)
    assert torch.equal(model.seen[0], images)
    assert torch.equal(model.seen[1], images.flip(-1))
    assert torch.equal(model.seen[3], model.seen[2].flip(-1))
    grey = torch.full((1, 3, 32, 32), 114, dtype=torch.uint8)
    assert (shown(grey, Look(48, 40, flip=False)) == 114).all()  # the border of a letterbox stays what it is
    bright = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    bright[..., ::2, :] = 0
    assert shown(bright, Look(64, 64, flip=False)).float().mean() == pytest.approx(127.5, abs=3)


@pytest.mark.part("trick/tta")
def test_padding_stays_padding_and_objects_of_one_look_are_worth_less():
    """An object that only the first of two looks sees: its fused score is half, a suppressor keeps it whole."""

    class Once(Finder):
        def predict(self, images):
            found = super().predict(images)
            return found if len(self.seen) % 2 else Detections(*(torch.zeros_like(x) for x in found[:4]))

    images = pictures(count=1)
    own = Finder().predict(images)
    fused = Looks(Once()).predict(images)
    assert fused.scores[0, :3].tolist() == pytest.approx((own.scores[0, :3] / 2).tolist())
    assert (fused.boxes[0, 3:] == 0).all()
    assert not fused.valid[0, 3:].any()
    assert Looks(Once(), merge=BatchedNMS()).predict(images).scores[0, :3].tolist() == own.scores[0, :3].tolist()


@pytest.mark.part("trick/tta")
@pytest.mark.parametrize("merge", MERGES, ids=lambda m: type(m).__name__)
def test_what_a_look_calls_padding_is_not_merged(merge):
    class Loud(Finder):
        def predict(self, images):
            found = super().predict(images)
            padding = ~found.valid
            return found._replace(scores=found.scores + padding, boxes=found.boxes + 9.0 * padding[..., None])

    images = pictures()
    assert rows(Looks(Loud(), merge=merge).predict(images)) == rows(Finder().predict(images))


@pytest.mark.part("trick/tta")
def test_probabilities_are_the_mean():
    class Classes:
        task, num_classes, stride = "classify", 2, 4

        def predict(self, images):
            left = images[..., : images.shape[-1] // 2].float().mean(dim=(1, 2, 3)) / 255
            return torch.stack([left, 1 - left], dim=-1)

    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[0, ..., :4] = 255
    found = Looks(Classes(), (2.0,)).predict(images)
    # Left is white in the first picture, at both scales; mirrored it is black. The second is black everywhere.
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [0.0, 1.0]]), rtol=0, atol=1e-6)
    assert torch.equal(Looks(Classes(), flip=False).predict(images), Classes().predict(images))


@pytest.mark.part("trick/tta")
@pytest.mark.parametrize("merge", MERGES, ids=lambda m: type(m).__name__)
def test_masks_are_mirrored_back_and_agree(merge):
    images, model = pictures(3), Finder(masks=True)
    alone, found = model.predict(images), Looks(model, merge=merge).predict(images)
    assert found.masks.shape == (*found.scores.shape, 4, 4)
    for i in range(2):
        for row in range(3):
            same = int((found.boxes[i] - alone.boxes[i, row]).abs().sum(-1).argmin())
            torch.testing.assert_close(found.masks[i, same], alone.masks[i, row], rtol=0, atol=1e-4)
    assert (found.masks[~found.valid] == 0).all()
    assert alone.masks[alone.valid].flatten(1).std(dim=1).min() > 0.1, "the masks say something"


def moved_by_loops(mask, box, other):
    side, found = len(mask), torch.zeros(len(mask), len(mask))
    for r in range(side):
        for c in range(side):
            x = other[0] + (other[2] - other[0]) * (c + 0.5) / side
            y = other[1] + (other[3] - other[1]) * (r + 0.5) / side
            u = (x - box[0]) / (box[2] - box[0]) * side - 0.5
            v = (y - box[1]) / (box[3] - box[1]) * side - 0.5
            for i in range(side):
                for j in range(side):
                    found[r, c] += mask[i, j] * max(1 - abs(v - i), 0) * max(1 - abs(u - j), 0)
    return found


@pytest.mark.part("trick/tta")
@pytest.mark.parametrize("seed", range(4))
def test_a_mask_is_carried_to_another_box_as_by_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(2, 3, 5, 5, generator=generator)
    low, size = torch.rand(2, 2, 3, 2, generator=generator) * 20, torch.rand(2, 2, 3, 2, generator=generator) * 20 + 2
    boxes, others = torch.cat([low, low + size], dim=-1)
    found = over(masks, boxes, others)
    for i in range(2):
        for d in range(3):
            expected = moved_by_loops(masks[i, d], boxes[i, d], others[i, d])
            torch.testing.assert_close(found[i, d], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(over(masks, boxes, boxes), masks, rtol=0, atol=1e-4)


@pytest.mark.part("trick/tta")
def test_masks_of_looks_are_a_mean_by_score_of_those_that_have_the_object():
    box = torch.tensor([[[0.0, 0, 8, 8]]])

    def look(score, value, label=0, at=box):
        return Detections(
            at,
            torch.tensor([[score]]),
            torch.tensor([[label]]),
            torch.tensor([[True]]),
            torch.full((1, 1, 2, 2), value),
        )

    answer = Detections(*look(1.0, 0.0)[:4])
    both = merged_masks(answer, [look(0.9, 1.0), look(0.3, 0.0)], 0.5)
    assert both.flatten().tolist() == pytest.approx([0.75] * 4)
    others = [look(0.9, 1.0), look(0.9, 0.0, label=1), look(0.9, 0.0, at=box + 100)]
    assert merged_masks(answer, others, 0.5).flatten().tolist() == pytest.approx([1] * 4)
    beside = merged_masks(answer, [look(0.9, 1.0), look(0.9, 0.0, at=box + 4)], 0.5)  # IoU 1 / 7
    assert beside.flatten().tolist() == pytest.approx([1] * 4, abs=1e-5)
    none = Detections(*look(1.0, 0.0, label=2)[:4])
    assert merged_masks(none, others, 0.5).flatten().tolist() == [0] * 4
    with pytest.raises(ValueError, match="every look"):
        merged_masks(answer, [answer], 0.5)


@pytest.mark.part("trick/tta")
def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="factors above 0"):
        Looks(Finder(), (0.0,))
    with pytest.raises(ValueError, match="2 looks need as many weights"):
        Looks(Finder(), merge=WeightedFusion(weights=(1, 2, 3)))
    weighted = Looks(Finder(), merge=WeightedFusion(weights=(3, 1), confidence="max"))
    assert rows(weighted.predict(pictures())) == rows(Finder().predict(pictures()))

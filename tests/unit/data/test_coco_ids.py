from __future__ import annotations

import pytest

from torso.config import DataError
from torso.data.formats.coco_ids import COCO_CLASSES, COCO_IDS, UNUSED, coco_ids


@pytest.mark.part("format/coco_ids")
def test_the_table_is_the_published_one() -> None:
    """torchvision ships its detectors with the 91 places and "N/A" in the ten gaps up to 90."""
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

    published = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert len(published) == 91
    assert [published[number] for number in COCO_IDS] == list(COCO_CLASSES)
    assert sorted(set(range(1, 92)) - set(COCO_IDS)) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91] == list(UNUSED)
    assert {published[number] for number in UNUSED if number < 91} == {"N/A"}
    # The same 80 without gaps.
    from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights, MaskRCNN_ResNet50_FPN_Weights

    masks = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert [name for name in masks if name not in ("N/A", "__background__")] == list(COCO_CLASSES)
    assert KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1] == COCO_CLASSES[0]


@pytest.mark.part("format/coco_ids")
def test_ids_and_labels_lead_to_each_other() -> None:
    assert coco_ids([1, 13, 90]) == [0, 11, 79]
    assert coco_ids([0, 11, 79], to="ids") == [1, 13, 90]
    assert coco_ids(coco_ids(range(80), to="ids")) == list(range(80))


@pytest.mark.part("format/coco_ids")
@pytest.mark.parametrize(
    ("numbers", "to", "message"),
    [
        ([1, 12], "labels", "expected an id of COCO .*came 12, the id of 'street sign', which no object has"),
        ([0], "labels", "came 0$"),
        ([80], "ids", r"expected a label in 0\.\.79, came 80"),
        ([-1], "ids", "came -1"),
        ([1], "names", "to: expected labels or ids, came 'names'"),
    ],
)
def test_a_number_that_is_no_class_is_refused(numbers: list[int], to: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        coco_ids(numbers, to)

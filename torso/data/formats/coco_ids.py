"""The 80 classes that COCO labelled, among the 91 it first listed."""

from __future__ import annotations

from collections.abc import Sequence

from torso.config import DataError

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The names, in the order of their ids."""

UNUSED = {
    12: "street sign", 26: "hat", 29: "shoe", 30: "eye glasses", 45: "plate", 66: "mirror", 68: "window", 69: "desk",
    71: "door", 83: "blender", 91: "hair brush",
}  # fmt: skip
"""The ids that no object has."""

COCO_IDS = tuple(number for number in range(1, 92) if number not in UNUSED)
"""The id in the files of each of ``COCO_CLASSES``."""

_LABELS = {number: label for label, number in enumerate(COCO_IDS)}


def coco_ids(numbers: Sequence[int], to: str = "labels") -> list[int]:
    """Changes COCO's ids (1 to 90 with ten gaps) into labels 0 to 79, or back.

    The readers do this by themselves for any file; this is for numbers that come without one, as the outputs of a
    model of another library.

    Args:
        numbers: ids where ``to`` is "labels", labels where it is "ids".
        to: "labels" or "ids".

    Raises:
        DataError: an id that no object of COCO has, or a label that is none of 0 to 79.

    Source: Microsoft COCO: Common Objects in Context, 2014, arXiv:1405.0312.
    """
    if to not in ("labels", "ids"):
        raise DataError(f"to: expected labels or ids, came {to!r}")
    changed = []
    for number in numbers:
        if to == "labels" and number in _LABELS:
            changed.append(_LABELS[number])
        elif to == "ids" and 0 <= number < len(COCO_IDS) and number == int(number):
            changed.append(COCO_IDS[int(number)])
        else:
            kind = "an id of COCO (1 to 90)" if to == "labels" else "a label in 0..79"
            listed = (
                f", the id of {UNUSED[number]!r}, which no object has" if to == "labels" and number in UNUSED else ""
            )
            raise DataError(f"coco_ids: expected {kind}, came {number}{listed}")
    return changed

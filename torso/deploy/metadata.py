"""What an exported file says about itself: enough to use it rightly without the run that made it.

In the file every entry is a pair of strings: the key, and the value as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torso
from torso.config import ExportError

PREPROCESSING: dict[str, Any] = {
    "resize": {"name": "letterbox", "fill": 114},
    "colour": "RGB",
    "layout": "NCHW",
    "dtype": "uint8",
    "range": [0, 255],
    "normalisation": "inside the file",
}


def describe(model: Any, size: tuple[int, int], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``metadata`` of the caller, and what the model itself knows.

    Args:
        model: has ``task``, ``num_classes`` and ``stride``; a detector also ``threshold`` and ``suppress``.
        size: width and height of the network's input.
        metadata: ``classes`` (names) is required; ``class_ids`` (original ids), ``preprocessing`` (what differs from
            letterboxed RGB), ``recipe`` and anything else that JSON can write are kept.

    Raises:
        ExportError: names or ids are missing, or are not one for each class.
    """
    classes = list(metadata.get("classes", ()))
    ids = list(metadata.get("class_ids", range(len(classes))))
    for what, values in (("classes", classes), ("class_ids", ids)):
        if len(values) != model.num_classes:
            raise ExportError(
                f"the model has {model.num_classes} classes, but {what} of the metadata has {len(values)}"
            )
    return {
        **metadata,
        "torso": torso.__version__,
        "task": model.task,
        "classes": classes,
        "class_ids": ids,
        "stride": int(model.stride),
        "preprocessing": {**PREPROCESSING, **metadata.get("preprocessing", {}), "size": list(size)},
        "thresholds": _thresholds(model),
    }


def _thresholds(model: Any) -> dict[str, Any]:
    suppress = getattr(model, "suppress", None)
    known = {
        "score": getattr(model, "threshold", None),
        "overlap": getattr(suppress, "overlap", None),
        "max_detections": getattr(suppress, "max_detections", None),
    }
    return {name: value for name, value in known.items() if value is not None}


def encode(metadata: Mapping[str, Any]) -> dict[str, str]:
    """As the pairs of strings a file holds."""
    return {f"torso.{key}": json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in metadata.items()}


def decode(properties: Mapping[str, str]) -> dict[str, Any]:
    """The metadata among the pairs of strings of a file; pairs of others are left alone."""
    prefix = "torso."
    return {key.removeprefix(prefix): json.loads(value) for key, value in properties.items() if key.startswith(prefix)}

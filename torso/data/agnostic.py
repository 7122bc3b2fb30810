"""Objects without classes: what a network of proposals learns from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from torso.config import DataError
from torso.data.index import Index

OBJECT = "object"


def agnostic(index: Index) -> Index:
    """The same objects, all of one class.

    Raises:
        DataError: data whose classes are of pictures or pixels, not of objects.

    Source: own design; objectness as in Faster R-CNN, 2015, arXiv:1506.01497
    """
    if index.task != "detect" or index.image_labels is not None:
        raise DataError(f"{index.root}: data.agnostic makes one class of all objects, but this is data to {index.task}")
    return replace(index, classes=(OBJECT,), class_ids=(1,), labels=np.zeros_like(index.labels), fingerprint="")

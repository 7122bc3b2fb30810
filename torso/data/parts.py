"""Everything of the role ``format``: the formats themselves, and the tools that read, write, change and judge them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torso.data.convert import convert
from torso.data.doctor import examine
from torso.data.formats import FORMATS
from torso.data.formats.coco import Coco
from torso.data.formats.coco_ids import coco_ids
from torso.data.formats.custom import custom
from torso.data.formats.darknet import darknet
from torso.data.formats.voc import Voc
from torso.data.formats.voc_instances import instances
from torso.data.formats.voc_lists import image_sets, voc_classes, voc_protocol
from torso.data.formats.voc_xml import read_page
from torso.data.palette import Legend
from torso.data.split import split

FORMAT_PARTS: dict[str, Callable[..., Any]] = {
    **FORMATS,
    "coco_instances": Coco,
    "coco_ids": coco_ids,
    "darknet": darknet,
    "custom": custom,
    "convert": convert,
    "split": split,
    "doctor": examine,
    "voc2012": Voc,
    "voc_xml": read_page,
    "voc_imagesets": image_sets,
    "voc_classes": voc_classes,
    "voc_protocols": voc_protocol,
    "masks": Legend,
    "instance_masks": instances,
}

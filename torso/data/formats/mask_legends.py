"""What the numbers and colours of mask folders mean: files that say it, and two data sets that do not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from torso.config import DataError
from torso.data.formats.voc_lists import lines_of
from torso.data.formats.voc_segments import legend_of, read_label_map
from torso.data.palette import IGNORED, Color, Legend

_NAMES = ("classes.txt", "labels.txt")
_COLORS = ("label_colors.txt", "class_colors.txt")
_META = "dataset_meta.json"
_COLOR_LINE = re.compile(r"(\d{1,3})[ ,\t]+(\d{1,3})[ ,\t]+(\d{1,3})[ ,\t]+(\S.*)")

CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
# ``labelIds`` of the classes above; all others count neither way.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

CAMVID: dict[str, Color] = {
    "Animal": (64, 128, 64), "Archway": (192, 0, 128), "Bicyclist": (0, 128, 192), "Bridge": (0, 128, 64),
    "Building": (128, 0, 0), "Car": (64, 0, 128), "CartLuggagePram": (64, 0, 192), "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128), "Fence": (64, 64, 128), "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64), "Misc_Text": (128, 128, 64), "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64), "ParkingBlock": (64, 192, 128), "Pedestrian": (64, 64, 0), "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192), "Sidewalk": (0, 0, 192), "SignSymbol": (192, 128, 128), "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192), "TrafficCone": (0, 0, 64), "TrafficLight": (0, 64, 64), "Train": (192, 64, 128),
    "Tree": (128, 128, 0), "Truck_Bus": (192, 128, 192), "Tunnel": (64, 0, 64), "VegetationMisc": (192, 192, 0),
    "Wall": (64, 192, 0), "Void": (0, 0, 0),
}  # fmt: skip


def classes_and_legend(root: Path, masks: list[Path]) -> tuple[list[str], Legend]:
    """The classes of a mask folder and how its PNG are read.

    Args:
        root: the folder; looked for are ``labelmap.txt``, ``classes.txt``, ``labels.txt`` (a name a line, counted
            from 0), ``label_colors.txt`` (red green blue name) and ``dataset_meta.json``.
        masks: its PNG: Cityscapes' and CamVid's are known by their names and folders.

    Raises:
        DataError: nothing says what the numbers mean.
    """
    if (root / "labelmap.txt").is_file():
        return legend_of(root)
    if (root / _META).is_file():
        return _meta(root / _META)
    colored = next((root / name for name in _COLORS if (root / name).is_file()), None)
    if colored is not None:
        names, colors = _color_lines(colored)
        return names, Legend(tuple(colors))
    named = next((root / name for name in _NAMES if (root / name).is_file()), None)
    found = (lines_of(named), Legend()) if named is not None else _known(masks[0]) if masks else None
    if found is None:
        raise DataError(
            f"{root}: nothing says which classes the numbers of the masks mean; write their names into "
            f"{root / 'classes.txt'}, one a line, the first for 0"
        )
    return found


def _known(mask: Path) -> tuple[list[str], Legend] | None:
    """Cityscapes by the name of a file, CamVid by that of a folder."""
    if mask.stem.endswith("_labelTrainIds"):
        return list(CITYSCAPES), Legend()
    if mask.stem.endswith("_labelIds"):
        labels = (_CITYSCAPES_IDS.index(n) if n in _CITYSCAPES_IDS else IGNORED for n in range(34))
        return list(CITYSCAPES), Legend(labels=tuple(labels))
    if mask.parent.name.endswith("annot"):
        names = [name for name in CAMVID if name != "Void"]
        return names, Legend(tuple(CAMVID.values()), (*range(len(names)), IGNORED))
    return None


def _color_lines(file: Path) -> tuple[list[str], list[Color]]:
    """CamVid's ``red green blue name``, or the lines of a label map."""
    names, colors = [], []
    for number, line in enumerate(lines_of(file), 1):
        match = _COLOR_LINE.fullmatch(line)
        if match is None:
            if ":" in line:
                return read_label_map(file)
            raise DataError(f"{file}:{number}: expected red green blue name, came {line[:60]!r}")
        names.append(match[4].strip())
        colors.append((int(match[1]), int(match[2]), int(match[3])))
    return names, colors


def _meta(file: Path) -> tuple[list[str], Legend]:
    try:
        content: Any = json.loads(file.read_bytes())
        named = {int(number): str(name) for number, name in content["label_map"].items()}
        colors = tuple((int(r), int(g), int(b)) for r, g, b in content.get("segmentation_colors") or ())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: expected label_map (number to name) and segmentation_colors ({error})") from error
    if sorted(named) != list(range(len(named))) or (colors and len(colors) != len(named)):
        raise DataError(f"{file}: expected label_map to count from 0 without gaps, and a color for each label")
    return [named[number] for number in range(len(named))], Legend(colors)

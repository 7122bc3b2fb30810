"""Reading a COCO json of 118,000 pictures and 860,000 boxes, against pycocotools: time and peak memory.

Each reading is a process of its own. Its time is that of the one call, without imports; its memory is the peak of
the process less what it held when imports were done. torso finds every picture in a listing of the folder (the files
are there, but empty) and takes sizes from the json (``trust_sizes``); pycocotools does not look for pictures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import ratio, write

from torso.data.formats.coco_ids import COCO_CLASSES, COCO_IDS

ROUNDS, SIZE = 5, (640, 480)
CASES = {"boxes": (118_000, 860_000, 0), "polygons": (14_750, 107_500, 12)}  # pictures, objects, points of a polygon

MEMORY = """
def held(key):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(key))
before = held("VmRSS")
start = time.perf_counter()
"""
REPORT = """
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "megabytes": held("VmHWM") - before}))
"""
TORSO = f"""
import json, sys, time
from pathlib import Path
from torso.data.formats.coco import Coco
{MEMORY}
index = Coco.read(Path(sys.argv[1]), "train", trust_sizes=True)
{REPORT}
"""
PYCOCOTOOLS = f"""
import contextlib, io, json, sys, time
from pycocotools.coco import COCO
{MEMORY}
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO(sys.argv[1] + "/annotations/instances_train2017.json")
{REPORT}
"""
# Equal answers: ids, sizes, classes, boxes and areas of everything.
COMPARE = """
import contextlib, io, sys
from pathlib import Path
import numpy as np
from pycocotools.coco import COCO
from torso.data.formats.coco import Coco
index = Coco.read(Path(sys.argv[1]), "train", trust_sizes=True)
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO(sys.argv[1] + "/annotations/instances_train2017.json")
assert not index.problems and index.image_ids == [row["id"] for row in coco.dataset["images"]]
rows = [row for image in index.image_ids for row in coco.imgToAnns[image]]
boxes = np.array([row["bbox"] for row in rows])
boxes[:, 2:] += boxes[:, :2]
assert np.array_equal(index.boxes, boxes)
assert np.array_equal(index.area, [row["area"] for row in rows])
assert [index.class_ids[label] for label in index.labels] == [row["category_id"] for row in rows]
assert np.array_equal(index.crowd, [row["iscrowd"] == 1 for row in rows])
assert index.masks is None or index.masks == [row["segmentation"] for row in rows]
assert index.sizes.tolist() == [[row["width"], row["height"]] for row in coco.dataset["images"]]
"""


def made(folder: Path, pictures: int, objects: int, points: int) -> Path:
    """A data set with the keys of COCO 2017 and files of zero bytes."""
    draw = np.random.default_rng(0)
    names = [f"{number * 5:012d}.jpg" for number in range(pictures)]
    sides = np.round(draw.uniform(2, 200, (objects, 2)), 2)
    corners = np.round(draw.uniform(0, 1, (objects, 2)) * (np.array(SIZE) - sides - 0.02), 2)
    of, kinds = draw.integers(0, pictures, objects).tolist(), draw.integers(0, 80, objects).tolist()
    outlines = np.round(corners[:, None] + sides[:, None] * draw.uniform(0, 1, (objects, points, 2)), 2)
    where = {"coco_url": "http://images.cocodataset.org/train2017/", "date_captured": "2013-11-14 11:18:45"}
    images = [
        {"license": 1, "file_name": name, "height": SIZE[1], "width": SIZE[0], "id": number * 5, **where}
        for number, name in enumerate(names)
    ]
    annotations: list[dict[str, Any]] = []
    for at in range(objects):
        (x, y), (w, h) = corners[at].tolist(), sides[at].tolist()
        row = {"segmentation": [outlines[at].ravel().tolist()]} if points else {}
        row |= {"area": round(0.7 * w * h, 4), "iscrowd": 0, "image_id": of[at] * 5, "bbox": [x, y, w, h]}
        annotations.append(row | {"category_id": COCO_IDS[kinds[at]], "id": at + 1})
    categories = [{"id": number, "name": name} for number, name in zip(COCO_IDS, COCO_CLASSES, strict=True)]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "train2017").mkdir()
    for name in names:
        (folder / "train2017" / name).touch()
    return folder


def process(code: str, folder: Path) -> dict[str, float]:
    told = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, stdout=subprocess.PIPE, text=True, env=os.environ
    ).stdout
    return dict(json.loads(told or "{}"))


def compared(folder: Path) -> dict[str, Any]:
    """Both readers in turns, each time another one first."""
    tasks: dict[str, Callable[[], dict[str, float]]] = {
        "torso": lambda: process(TORSO, folder),
        "pycocotools": lambda: process(PYCOCOTOOLS, folder),
    }
    process(COMPARE, folder)
    found: dict[str, dict[str, list[float]]] = {key: {name: [] for name in tasks} for key in ("seconds", "megabytes")}
    for number in range(ROUNDS):
        for name in list(tasks)[:: 1 if number % 2 else -1]:
            for key, value in tasks[name]().items():
                found[key][name].append(value)
    return {
        "json_megabytes": round((folder / "annotations" / "instances_train2017.json").stat().st_size / 1e6, 1),
        "median": {
            key: {name: round(sorted(values)[ROUNDS // 2], 2) for name, values in of.items()}
            for key, of in found.items()
        },
        "ratio time": ratio(found["seconds"], "torso", "pycocotools"),
        "ratio memory": ratio(found["megabytes"], "torso", "pycocotools"),
    }


def main() -> None:
    results = {}
    for name, (pictures, objects, points) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            counts = {"pictures": pictures, "objects": objects, "points_of_a_polygon": points}
            results[name] = counts | compared(made(Path(folder) / "coco", pictures, objects, points))
    how = "pictures are empty files found in one listing; sizes are the json's (trust_sizes)"
    write("read_coco", rounds=ROUNDS, pictures_on_disk=how, cases=results)


if __name__ == "__main__":
    main()

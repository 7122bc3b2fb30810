"""Detectors that learn from real pictures: recipes of torso beside torchvision's and Ultralytics' detectors.

Blood cells (BCCD: 292 pictures to learn from, 72 to judge) and raccoons (131 and 35), a few epochs. All but two stand
on one trunk with ImageNet weights, see the same batches, and are moved by the same optimizer, schedule and average of
weights, in one engine; heads are as deep as torchvision's and have the recipes' norms. The two begin with random
weights: Ultralytics' smallest model by its own trainer and augmentation, and torso's YOLOX of its size. One evaluator
judges all, after the last epoch.

``python benchmarks/dense.py [FOLDER OF DATA]``; ``... dense.py FOLDER torso-fcos bccd`` some, added to the results;
with ``untimed`` on a machine that has other things to do: then nothing is said of minutes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")  # trained one after the other, alone on the machine

import torch
from dense_peers import predictions, torchvisions, ultralytics
from measure import RESULTS, write

from torso.evaluate import detection
from torso.recipes.assemble import parameter_groups
from torso.recipes.judge import judge
from torso.recipes.recipe import Recipe
from torso.recipes.sources import judging_loader, open_split, training_loader
from torso.train.engine import fit
from torso.train.log import Log
from torso.train.run_folder import RunFolder
from torso.train.seed import seed_everything

TRUNK = [
    "model.backbone={name: timm, model: tf_efficientnet_lite0, weights: imagenet, frozen_stages: 1}",
    "model.neck={name: fpn, channels: 96, extra: 1, norm: batch}",
    "model.suppress.overlap=0.5",
    "model.suppress.max_detections=100",
    "model.threshold=0.02",
    "model.topk=300",
]
GROUPS = "{name: group, group_channels: 8}"
SYSTEMS: dict[str, tuple[str, list[str]]] = {
    "torso-retinanet": (
        "retinanet",
        [*TRUNK, "model.prior={name: anchors, scale: 3}", f"model.head.norm={GROUPS}", "model.box_loss=giou"],
    ),
    "torso-fcos": ("fcos", TRUNK),
    "torso-gfl": ("gfl", TRUNK),
    "torso-paa": ("paa", TRUNK),
    "torso-ssd": (
        "ssd",
        [
            *TRUNK,
            "model.topk_of=level",
            # torchvision's: shares 0.1 to 0.9, and 1, of the picture's side.
            "model.prior={name: default_boxes, sizes: [28.6, 105, 181, 258, 286], "
            "ratios: [[2, 3], [2, 3], [2, 3], [2, 3]]}",
        ],
    ),
    "torso-yolox": (
        "yolox",
        [
            "model.backbone={name: csp_darknet, depth: 0.33, width: 0.25}",
            "model.head.channels=64",
            "model.threshold=0.02",
        ],
    ),
}
PEERS = ["torchvision-retinanet", "torchvision-fcos", "torchvision-ssd", "ultralytics-yolov8n"]
SCRATCH = {"torso-yolox", "ultralytics-yolov8n"}
DATA: dict[str, tuple[list[str], tuple[int, int], int]] = {  # overrides, (width, height), epochs
    "bccd": (["data.train=trainval", "data.val=test"], (320, 256), 12),
    "raccoon": (["data.train=train", "data.val=test"], (320, 320), 12),
}
LEARNING = [
    "data.batch=8",
    "data.workers=0",
    "data.sampler=random",
    "data.close_mosaic=0",
    "data.multiscale=[1,1]",
    "data.resize=[letterbox]",
    "train.accumulate=1",
    "train.backbone_factor=1",
    "train.evaluate_every=1000",
    "train.precision=auto",
    "train.decay_norm_bias=false",
]
RECIPE = [
    "data.transforms=[horizontal_flip, {name: affine, scale: [0.75, 1.35], shift: 0.15}, "
    "{name: color, brightness: 0.2, contrast: 0.2, saturation: 0.2}]",
    "train.optimizer={name: adamw, lr: 0.001, weight_decay: 0.02}",
    "train.schedule={name: cosine, warmup: 60, final: 0.02}",
    "train.tricks=[{name: clip_gradients, norm: 10}, {name: ema, decay: 0.995, tau: 100}]",
]


def recipe_of(name: str, data: Path, kind: str) -> Recipe:
    """The parts of a system, and the learning that is everyone's."""
    more, size, epochs = DATA[kind]
    shipped, changes = SYSTEMS.get(name, SYSTEMS["torso-retinanet"])
    of_data = [f"data.path={data / kind}", f"data.size=[{size[0]}, {size[1]}]", f"train.epochs={epochs}"]
    return Recipe.load(shipped, [*changes, *LEARNING, *RECIPE, *more, *of_data])


def learn(name: str, data: Path, kind: str, folder: Path) -> dict[str, Any]:
    """Train one system and judge it."""
    recipe = recipe_of(name, data, kind)
    settings, learning = recipe.data.build(), recipe.train.build()
    index = open_split(settings, settings["train"])
    held = open_split(settings, settings["val"], index.classes)
    if name.startswith("ultralytics"):
        return by_ultralytics(index, held, kind, folder)
    seed_everything(0)
    if name in SYSTEMS:
        model = recipe.model.build(num_classes=len(index.classes))
    else:
        model = torchvisions(name.partition("-")[2], len(index.classes), DATA[kind][1])
    judging, marks = judging_loader(settings, held), {}

    def evaluator(model: Any) -> dict[str, float]:
        nonlocal marks
        marks = judge(model.predict, judging)[1].summary
        return marks

    start = time.perf_counter()
    fit(
        model,
        training_loader(settings, index, 0, learning["epochs"]),
        learning["optimizer"].build(params=parameter_groups(learning, model)),
        learning["schedule"],
        epochs=learning["epochs"],
        run=RunFolder.create(folder, "detect", name),
        tricks=learning["tricks"],
        evaluator=evaluator,
        evaluate_every=learning["evaluate_every"],
        precision="fp32" if name.endswith("-ssd") else learning["precision"],
        log=Log(quiet=True),
    )
    return row(marks, time.perf_counter() - start, sum(p.numel() for p in model.parameters()))


def by_ultralytics(index: Any, held: Any, kind: str, folder: Path) -> dict[str, Any]:
    """Its own trainer on the same pictures in YOLO's form, judged like the others."""
    from torso.data.formats import FORMATS

    _, size, epochs = DATA[kind]
    form = folder / f"{kind}-yolo"
    for split, part in (("train", index), ("val", held)):
        FORMATS["yolo"].write(part, form, split)
    described = (form / "data.yaml").read_text(encoding="utf-8")
    (form / "data.yaml").write_text(described.replace("path: .", f"path: {form}"), encoding="utf-8")
    model, seconds = ultralytics(form / "data.yaml", max(size), epochs, 8, folder)
    marks = detection.evaluate(held, predictions(model, held, max(size))).summary
    return row(marks, seconds, sum(p.numel() for p in model.model.parameters()))


def row(marks: dict[str, float], seconds: float, parameters: int) -> dict[str, Any]:
    """What is told of a system."""
    told = {key: round(marks[key], 3) for key in ("AP", "AP50", "AP75")}
    return {**told, "minutes": round(seconds / 60, 2), "parameters": round(parameters / 1e6, 2)}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results for people."""
    lines = ["# Detectors on real pictures", "", (__doc__ or "").split("``")[0].strip(), ""]
    for kind, rows in results.items():
        _, size, epochs = DATA[kind]
        lines += [f"## {kind}: {epochs} epochs at {size[0]}x{size[1]}", ""]
        lines += [
            "| system | weights | AP | AP50 | AP75 | minutes | million parameters |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, each in sorted(rows.items(), key=lambda pair: -pair[1]["AP"]):
            begun = "random" if name in SCRATCH else "ImageNet"
            lines.append(
                f"| {name} | {begun} | {each['AP']:.3f} | {each['AP50']:.3f} | {each['AP75']:.3f} "
                f"| {each['minutes'] or 'not measured'} | {each['parameters']} |"
            )
        lines.append("")
    return "\n".join([*lines, "Machine, versions and command: `dense.json`.", ""])


def main() -> None:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data").absolute()
    asked = sys.argv[2:]
    known = RESULTS / "dense.json"
    results: dict[str, dict[str, Any]] = json.loads(known.read_text())["results"] if asked and known.is_file() else {}
    kinds = [kind for kind in DATA if kind in asked] or list(DATA)
    names = [name for name in [*SYSTEMS, *PEERS] if name in asked] or [*SYSTEMS, *PEERS]
    for kind in kinds:
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                found = learn(name, data, kind, Path(folder))
            if "untimed" in asked:
                found["minutes"] = None
            results.setdefault(kind, {})[name] = found
            sys.stderr.write(f"{kind} {name}: {found}\n")
            write("dense", results=results)
            (RESULTS / "dense.md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    main()

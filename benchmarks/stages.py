"""Detectors of two stages and of queries that learn from real pictures, beside torchvision's Faster and Mask R-CNN.

Nuclei with masks (DSB2018: 121 pictures to learn from, 44 to judge, up to 260 objects in one) and blood cells (BCCD:
292 and 72), a few epochs, in float32. All stand on one trunk with ImageNet weights, see the same batches in the same
order, and are moved by the same optimizer, schedule and average of weights, in one engine; pyramids, anchors, regions
and heads are as large as the peers'. Deformable DETR has smaller batches and rates, and half as many epochs more. One
evaluator judges all, after the last epoch; of a class in a picture it looks at 300 nuclei, where COCO's rule is 100.

``python benchmarks/stages.py [FOLDER OF DATA]``; ``... stages.py FOLDER torso-mask_rcnn bccd`` some, added to the
results; with ``KEY=VALUE`` (``train.epochs=1``) the recipes are changed, and nothing is written.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # minutes are those of one core

import torch
from dense import LEARNING, RECIPE
from measure import RESULTS, write
from stages_peers import two_stages

from torso.recipes.assemble import parameter_groups
from torso.recipes.judge import judge
from torso.recipes.recipe import Recipe
from torso.recipes.sources import judging_loader, open_split, size_of, training_loader
from torso.train.engine import fit
from torso.train.log import Log
from torso.train.run_folder import RunFolder
from torso.train.seed import seed_everything

TRUNK = "model.backbone={name: timm, model: tf_efficientnet_lite0, weights: imagenet, frozen_stages: 1, levels: LEVELS}"
REGIONS = [
    TRUNK.replace("LEVELS", "[2, 3, 4, 5]"),
    "model.neck={name: fpn, channels: 96, extra: 1, extra_from: pool, norm: batch}",
    "model.propose.prior.scale=4",
    "model.propose.topk=500",
    "model.propose.suppress.max_detections=300",
    "model.roi={name: align, size: 7, ratio: 2, canonical: 112}",
    "model.head.channels=256",
    "model.sample={name: random, count: 128, positive: 0.25}",
    "model.threshold=0.02",
]
MASKS = [
    "model.mask_roi={name: align, size: 14, ratio: 2, canonical: 112}",
    "model.mask_head={name: roi_mask, channels: 96, depth: 2}",
]
QUERIES = [
    TRUNK.replace("LEVELS", "[3, 4, 5]"),
    "model.head={name: deformable_detr, channels: 128, extra: 0, queries: 100, encoder_layers: 3, decoder_layers: 3, "
    "hidden: 512, dropout: 0.0, refine: true, two_stage: true}",
]
SYSTEMS: dict[str, tuple[str, list[str], list[str]]] = {  # recipe, changes of its parts, changes of its learning
    "torso-mask_rcnn": ("mask_rcnn", [*REGIONS, *MASKS], []),
    "torso-faster_rcnn": ("faster_rcnn", REGIONS, []),
    "torso-deformable_detr": (
        "deformable_detr",
        QUERIES,
        [
            "train.epochs=12",
            "data.batch=4",
            "train.optimizer={name: adamw, lr: 0.0007, weight_decay: 0.0001}",
            "train.backbone_factor=0.5",
            "train.tricks=[{name: clip_gradients, norm: 1.0}, {name: ema, decay: 0.995, tau: 100}]",
        ],
    ),
}
PEERS = {"torchvision-mask_rcnn": "torso-mask_rcnn", "torchvision-faster_rcnn": "torso-faster_rcnn"}
DATA: dict[str, tuple[list[str], tuple[int, int], int, int]] = {  # overrides, (width, height), epochs, detections
    "dsb2018": (["data.train=train", "data.val=val"], (320, 320), 12, 300),
    "bccd": (["data.train=trainval", "data.val=test"], (320, 256), 8, 100),
}
ON = {"dsb2018": ("mask_rcnn",), "bccd": ("faster_rcnn", "deformable_detr")}
MARKS = ("AP", "AP50", "AP75", "mask AP", "mask AP50", "mask AP75")


def recipe_of(name: str, data: Path, kind: str, changes: list[str]) -> Recipe:
    """The parts of a system, or of the one a peer stands beside, and the learning that is everyone's."""
    more, size, epochs, most = DATA[kind]
    shipped, parts, learning = SYSTEMS[PEERS.get(name, name)]
    of_data = [f"data.path={data / kind}", f"data.size=[{size[0]}, {size[1]}]", f"train.epochs={epochs}"]
    limit = [f"data.max_detections={most}", f"model.suppress.max_detections={most}"]
    every = [*LEARNING, *RECIPE, "train.precision=fp32", *more, *of_data, *limit]
    return Recipe.load(shipped, [*parts, *every, *learning, *changes])


def learn(name: str, data: Path, kind: str, folder: Path, changes: list[str]) -> dict[str, Any]:
    """Train one system and judge it."""
    recipe = recipe_of(name, data, kind, changes)
    settings, learning = recipe.data.build(), recipe.train.build()
    index = open_split(settings, settings["train"])
    held = open_split(settings, settings["val"], index.classes)
    seed_everything(0)
    if name in SYSTEMS:
        model = recipe.model.build(num_classes=len(index.classes))
    else:
        model = two_stages(name.partition("-")[2], len(index.classes), size_of(settings), DATA[kind][3])
    judging, marks = judging_loader(settings, held), {}

    def evaluator(model: Any) -> dict[str, float]:
        nonlocal marks
        marks = judge(model.predict, judging, most=settings["max_detections"])[1].summary
        return marks

    start = time.process_time()
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
        precision=learning["precision"],
        log=Log(quiet=True),
    )
    told = {key: round(marks[key], 3) for key in MARKS if key in marks}
    parameters = sum(p.numel() for p in model.parameters())
    minutes = round((time.process_time() - start) / 60, 2)
    return {**told, "epochs": learning["epochs"], "minutes": minutes, "parameters": round(parameters / 1e6, 2)}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results for people."""
    lines = ["# Two stages, masks and queries on real pictures", "", (__doc__ or "").split("``")[0].strip(), ""]
    for kind, rows in results.items():
        _, size, _, most = DATA[kind]
        columns = [key for key in MARKS if any(key in row for row in rows.values())]
        lines += [f"## {kind}: {size[0]}x{size[1]}, {most} detections judged", ""]
        lines += [f"| system | {' | '.join(columns)} | epochs | minutes of a core | million parameters |"]
        lines += ["|" + "---|" * (len(columns) + 4)]
        for name, row in sorted(rows.items(), key=lambda pair: -pair[1]["AP"]):
            marks = " | ".join(f"{row[key]:.3f}" if key in row else "" for key in columns)
            lines.append(f"| {name} | {marks} | {row['epochs']} | {row['minutes']} | {row['parameters']} |")
        lines.append("")
    return "\n".join([*lines, "Machine, versions and command: `stages.json`.", ""])


def main() -> None:
    words = [word for word in sys.argv[1:] if "=" not in word]
    changes = [word for word in sys.argv[1:] if "=" in word]
    data = Path(words[0] if words else "../shared/data").absolute()
    asked = words[1:]
    known = RESULTS / "stages.json"
    kinds = [kind for kind in DATA if kind in asked] or list(DATA)
    names = [name for name in [*SYSTEMS, *PEERS] if name in asked] or [*SYSTEMS, *PEERS]
    for kind in kinds:
        for name in names:
            if name.partition("-")[2] not in ON[kind]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                found = learn(name, data, kind, Path(folder), changes)
            sys.stderr.write(f"{kind} {name}: {found}\n")
            if not changes:
                results: dict[str, Any] = json.loads(known.read_text())["results"] if known.is_file() else {}
                results.setdefault(kind, {})[name] = found
                write("stages", results=results)
                (RESULTS / "stages.md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    main()

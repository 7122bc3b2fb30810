"""Can every recipe learn? Eight pictures of digits, its parts at a small size, and AP50 on the pictures it has seen.

``python benchmarks/overfit.py`` takes all recipes of detectors, and four heads with every assigner;
``... overfit.py fcos gfl model.assigner=atss`` some, and writes nothing; ``... overfit.py matrix yolov3`` one head's
row, into the results.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import torch

sys.path.append(str(Path(__file__).parents[1]))  # the small forms of the recipes belong to the tests

from tests.recipes.small import SMALL
from torso.data import digits
from torso.recipes.judge import judge
from torso.recipes.recipe import Recipe
from torso.recipes.sources import judging_loader, open_split, training_loader

PICTURES, SIDE, STEPS, RATE = 8, 128, 300, 3e-3
ROUNDS = 5  # of models that no gradient reaches
WANTED = 0.9
HEADS = ["retinanet", "fcos", "gfl", "yolov3"]
ASSIGNERS = ["max_iou", "atss", "center", "sim_ota", "ota", "task_aligned", "paa"]
# FreeAnchor matches by itself, and wants priors that overlap objects.
FREE_ANCHOR = ["model.assigner=max_iou", "model.criterion=free_anchor", "model.class_loss=focal"]
BARE = {"retinanet": [], "gfl": ["model.coder=ltrb"], "yolov3": ["model.box_loss=giou"]}


def data_overrides(path: Path) -> list[str]:
    """The pictures as they are: nothing random but the weights."""
    return [
        f"data.path={path}",
        "data.transforms=[]",
        "data.resize=[letterbox]",
        f"data.size={SIDE}",
        f"data.batch={PICTURES}",
        "data.workers=0",
        "data.sampler=sequential",
        "data.multiscale=[1, 1]",
        "data.close_mosaic=0",
        "data.train=train",
        "data.val=train",
        "model.threshold=0.05",
    ]


def overfit(name: str, overrides: list[str], path: Path, steps: int = STEPS, rate: float = RATE) -> dict[str, Any]:
    """Steps on one batch, then AP50 on it; stops early when it is all known."""
    if Recipe.load(name, without_data=True).data.args["masks"]:
        path = path.with_name("digits-masks")
    recipe = Recipe.load(name, [*SMALL[name], *data_overrides(path), *overrides])
    data = recipe.data.build()
    index = open_split(data, data["train"])
    torch.manual_seed(0)
    model = recipe.model.build(num_classes=len(index.classes)).train()
    (batch,) = list(training_loader(data, index, seed=0).epoch(0))
    start = time.perf_counter()
    if hasattr(model, "learner"):
        learner = model.learner(0)
        costs = [learner.round([batch], number)["loss"] for number in range(ROUNDS)]
        return judged(model, data, index, costs[0], costs[-1], ROUNDS, start)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 20, 0.5 + 0.5 * math.cos(math.pi * step / steps) + 0.01)
    )
    first = last = 0.0
    for step in range(steps):
        loss = sum(model.losses(batch).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        first, last = (float(loss.detach()) if step == 0 else first), float(loss.detach())
    return judged(model, data, index, first, last, steps, start)


def judged(model: Any, data: Any, index: Any, first: float, last: float, steps: int, start: float) -> dict[str, Any]:
    """What was learned, and what it cost."""
    _, result = judge(model.eval().predict, judging_loader(data, index))
    return {
        "AP50": round(result.summary["AP50"], 3),
        **{key: round(result.summary[key], 3) for key in ("AP", "mask AP50", "mask AP") if key in result.summary},
        "loss first": round(first, 3),
        "loss last": round(last, 4),
        "steps": steps,
        "seconds": round(time.perf_counter() - start, 1),
    }


def pictures(folder: Path) -> Path:
    """Eight training pictures with digits; ``digits-masks`` beside them are the same with masks."""
    digits.make(folder / "digits-masks", format="coco", count=PICTURES + 2, size=SIDE, seed=3)
    return digits.make(folder / "digits", format="voc", count=PICTURES + 2, size=SIDE, seed=3)


# YOLO divides by pictures: where many priors learn an object, its steps are so large that clipping makes them small.
COUNTED = {"yolov3": ["model.criterion.average=batch"]}


def matrix(recipe: str, path: Path) -> dict[str, float]:
    """AP50 of a head with every assigner."""
    variants = {name: [f"model.assigner={name}", *COUNTED.get(recipe, [])] for name in ASSIGNERS}
    if recipe in BARE:
        variants["free_anchor"] = [*FREE_ANCHOR, *BARE[recipe]]
    found = {name: overfit(recipe, overrides, path)["AP50"] for name, overrides in variants.items()}
    sys.stderr.write(f"{recipe}: {found}\n")
    return found


def main() -> None:
    asked = [word for word in sys.argv[1:] if "=" not in word]
    overrides = [word for word in sys.argv[1:] if "=" in word]
    recipes: dict[str, Any] = {}
    swapped: dict[str, Any] = {}
    known = measure.RESULTS / "overfit.json"
    if asked[:1] == ["matrix"]:
        before = json.loads(known.read_text(encoding="utf-8"))
        recipes, swapped = before["recipes"], before["assigners"]
    with tempfile.TemporaryDirectory() as scratch:
        path = pictures(Path(scratch))
        for name in [] if asked[:1] == ["matrix"] else asked or sorted(SMALL):
            recipes[name] = overfit(name, overrides, path)
            sys.stderr.write(f"{name}: {recipes[name]}\n")
        for name in asked[1:] if asked[:1] == ["matrix"] else [] if asked else HEADS:
            swapped[name] = matrix(name, path)
    if swapped:
        measure.write("overfit", wanted=WANTED, pictures=PICTURES, side=SIDE, recipes=recipes, assigners=swapped)
    scores = {name: row["AP50"] for name, row in recipes.items()}
    scores |= {f"{recipe} with {name}": x for recipe, row in swapped.items() for name, x in row.items()}
    missed = [name for name, score in scores.items() if not score >= WANTED]
    if missed:
        sys.exit(f"not learned: {', '.join(missed)}")


if __name__ == "__main__":
    main()

"""Faults of a set as a whole: its paths, classes, balance, and pictures that come more than once."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageEnhance

from tests.data_faults.faults import ALL, BOXES, CLASSED, TABLES, at, at_labels, at_picture, fault, planted
from tests.data_faults.plan import Later, Plan, encoded, mask, picture, pixels


@fault(21, "yolo", fatal=True)
def broken_path(plan: Plan) -> list[Later]:
    plan.yaml["val"] = "pictures/val"
    return [at("split that cannot be read", text="no such folder or list")]


@fault(21, "yolo", fatal=True)
def path_outside(plan: Plan) -> list[Later]:
    plan.yaml["val"] = "../../etc"
    return [at("split that cannot be read", text="leaves the data set's folder")]


@fault(21, "yolo")
def download(plan: Plan) -> list[Later]:
    plan.yaml["download"] = "https://example.com/set.zip"
    return [at("ignored", "data.yaml", "never downloads")]


@fault(22, "coco")
def gaps(plan: Plan) -> list[Later]:
    plan.class_ids = [3, 7, 90]
    return [at("class ids with gaps", text="3, 7, 90")] * 2


@fault(23, *CLASSED)
def missing_in_val(plan: Plan) -> list[Later]:
    for item in plan.of("val"):
        for row in item.rows:
            row.label = "cat" if row.label == "owl" else row.label
    return [at("class missing in a split", text="'owl'")]


@fault(23, "folder", fatal=True)
def extra_in_val(plan: Plan) -> list[Later]:
    plan.val(0).rows[0].label = "fox"
    return [at("unknown class", "val/fox", "'fox'")]


@fault(23, *CLASSED)
def alike_in_name(plan: Plan) -> list[Later]:
    for item in plan.items:
        for row in item.rows:
            row.label = "Cat" if row.label == "owl" else row.label
    plan.classes = ["Cat" if name == "owl" else name for name in plan.classes]
    return [at("similar class names", text="differ in spelling")]


@fault(23, *ALL)
def hidden_folder(plan: Plan) -> list[Later]:
    place = {"voc": "JPEGImages", "yolo": "images/train", "mask_folder": "images/train"}.get(plan.form, "train")
    name = f"{place}/.ipynb_checkpoints"
    plan.extra[f"{name}/000-checkpoint.jpg"] = picture(902)
    return [at("hidden folder", name, "1 picture")]


@fault(24, "voc", "coco", "csv")
def neither_way(plan: Plan) -> list[Later]:
    row = planted(plan, (5, 5, 60, 60))[0]
    row.difficult, row.crowd = plan.form != "coco", plan.form == "coco"
    word = "crowd" if plan.form == "coco" else "difficult"
    return [at("crowd or difficult", text=f"1 of 61 objects are marked {word}")]


@fault(28)
def copied(plan: Plan) -> list[Later]:
    plan.val(2).data = plan.train(2).data
    plan.val(2).rows = plan.train(2).rows
    return [at_picture("same picture in two splits", plan.val(2), "is the same file as")]


@fault(28)
def same_pixels(plan: Plan) -> list[Later]:
    for item in (plan.train(2), plan.val(2)):
        item.rows = plan.train(2).rows
        item.suffix = ".png"
    plan.train(2).data, plan.val(2).data = (encoded(pixels(2), "PNG", compress_level=n) for n in (1, 9))
    return [at_picture("same picture in two splits", plan.val(2), "has the pixels of")]


@fault(28)
def almost(plan: Plan) -> list[Later]:
    """Recompressed, made smaller, brightened: in another split and in the same one."""
    image = Image.fromarray(pixels(2))
    brighter = ImageEnhance.Brightness(image).enhance(1.15)
    plan.val(1).data = encoded(image, quality=35)
    plan.val(2).data = encoded(image.resize((64, 48)), quality=80)
    plan.val(1).size, plan.val(2).size = (96, 72), (64, 48)
    for row in plan.val(2).rows:
        row.box = tuple(value * 2 / 3 for value in row.box)
    plan.train(9).data = encoded(brighter, quality=80)
    within = "near duplicates"
    return [
        at_picture("near duplicate in two splits", plan.val(1)),
        at_picture("near duplicate in two splits", plan.val(2)),
        at_picture(within, plan.val(2)),
        # The later one is named; class folders are read by class.
        at_picture(within, plan.train(2 if plan.form == "folder" else 9)),
    ]


@fault(28, *CLASSED)
def contradicted(plan: Plan) -> list[Later]:
    first, second = plan.train(0), plan.train(1)
    second.data = first.data
    kinds = ("same picture twice", "same picture, other labels")
    return [at_picture(kind, second) for kind in kinds]


@fault(29, *CLASSED)
def uneven(plan: Plan) -> list[Later]:
    rows = [row for item in plan.of() for row in item.rows]
    for row in rows:
        row.label = "dog" if row.label == "cat" else row.label
    for number, row in enumerate([row for row in rows if row.label == "owl"]):
        row.label = "owl" if number == 0 else "dog"
    rows[0].label = "cat"
    return [at("imbalance", text="dog comes")]


@fault(27, "mask_folder", fatal=True)
def mask_values(plan: Plan) -> list[Later]:
    """A class that does not exist, and colours that stand for none."""
    first, second = plan.of()[:2]
    numbers = np.zeros((72, 96), np.uint8)
    numbers[10:20] = 7
    first.mask, second.mask = encoded(numbers, "PNG"), encoded(pixels(77), "PNG")
    return [at_labels("mask value", first, "came 7"), at_labels("mask value", second, "colours")]


@fault(27, "mask_folder")
def mask_sizes(plan: Plan) -> list[Later]:
    plan.train(0).mask = mask(1, (48, 36))
    return [at_labels("mask size", plan.train(0), "is 48x36, its picture 96x72")]


@fault(27, "mask_folder")
def good_masks(plan: Plan) -> list[Later]:
    """Not a fault: 255 counts neither way, and a grey PNG holds numbers as well as a palette."""
    plan.train(0).mask = encoded(np.asarray(Image.open(io.BytesIO(mask(1, (96, 72))))), "PNG")
    return []


@fault(29, *BOXES)
def never(plan: Plan) -> list[Later]:
    plan.classes.append("fox")
    plan.class_ids.append(4)
    return [at("class without objects", text="'fox'"), at("class missing in a split", text="'fox'")]


@fault(14, *TABLES)
def tiny(plan: Plan) -> list[Later]:
    planted(plan, (10, 10, 10.2, 10.2))
    small = at("small boxes", text="below 8 pixels")
    return [at_picture("tiny box", plan.train(1), "below 2 pixels"), small]


@fault(14, *TABLES)
def no_anchor_fits(plan: Plan) -> list[Later]:
    for item in plan.of():
        item.rows[0].box = (2.0, 20.0, 94.0, 26.0)
    return [at("anchor misfit", text="50% of the boxes")]


@fault(35, *TABLES)
def crowded(plan: Plan) -> list[Later]:
    rng = np.random.default_rng(0)
    for place in rng.integers(0, 40, (310, 2)).tolist():
        planted(plan, (place[0], place[1], place[0] + 20 + rng.random(), place[1] + 20 + rng.random()), label="dog")
    for label in ("cat", "owl"):  # so that it is no imbalance too
        for place in rng.integers(0, 40, (60, 2)).tolist():
            planted(plan, (place[0], place[1], place[0] + 22 + rng.random(), place[1] + 22 + rng.random()), label=label)
    return [at_picture("many objects", plan.train(1), "has 432 objects")]

"""The faults, by number of the table of failure classes: what is planted, and what a check must say about it."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.data_faults.plan import SIZE, Expected, Item, Later, Plan, Row, encoded, picture, pixels

BOXES = ("voc", "coco", "yolo")
TABLES = (*BOXES, "csv")
CLASSED = (*TABLES, "folder")
ALL = (*CLASSED, "mask_folder")


class Fault(NamedTuple):
    """A fault, the formats that can have it, and whether training would go wrong."""

    number: int
    plant: Callable[[Plan], list[Later]]
    forms: tuple[str, ...] = ALL
    fatal: bool = False


FAULTS: dict[str, Fault] = {}


def fault(number: int, *forms: str, fatal: bool = False) -> Callable[[Callable], Callable]:
    def add(plant: Callable[[Plan], list[Later]]) -> Callable:
        FAULTS[plant.__name__] = Fault(number, plant, forms or ALL, fatal)
        return plant

    return add


def at_picture(kind: str, item: Item, text: str = "", *, skipped: bool = False) -> Later:
    return lambda: Expected(kind, item.path, None, text, skipped)


def at_row(kind: str, row: Row, text: str = "") -> Later:
    return lambda: Expected(kind, row.path, row.line, text or row.where)


def at_labels(kind: str, item: Item, text: str = "", line: int | None = None) -> Later:
    return lambda: Expected(kind, item.label_path, line, text)


def at(kind: str, path: str = "", text: str = "", line: int | None = None) -> Later:
    return lambda: Expected(kind, path, line, text)


# ---------------------------------------------------------------- pictures


@fault(1)
def truncated(plan: Plan) -> list[Later]:
    item = plan.train(3)
    item.data = item.data[: len(item.data) // 2]
    return [at_picture("damaged image", item, skipped=True)]


@fault(1)
def wrong_byte(plan: Plan) -> list[Later]:
    item = plan.train(4)
    data = bytearray(encoded(pixels(4), "PNG"))
    data[len(data) // 2] ^= 0xFF
    item.data, item.suffix = bytes(data), ".png"
    return [at_picture("damaged image", item, skipped=True)]


@fault(1, fatal=True)
def many_damaged(plan: Plan) -> list[Later]:
    items = plan.of()[:7]
    for item in items:
        item.data = item.data[: len(item.data) // 2]
    said = [at_picture("damaged image", item, skipped=True) for item in items]
    return [*said, at("too many damaged images", text="7 of 30 pictures")]


@fault(3)
def no_end_marker(plan: Plan) -> list[Later]:
    item = plan.train(5)
    item.data = item.data[:-2]
    return [at_picture("no end marker", item)]


def turned(seed: int, orientation: int) -> bytes:
    """A picture stored turned, with the EXIF orientation that turns it back."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # members of Image.Transpose
    image = Image.fromarray(pixels(seed))
    if orientation != 1:
        image = image.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, exif=exif)


@fault(4)
def turned_by_exif(plan: Plan) -> list[Later]:
    items = plan.of()[10:18]
    for orientation, item in enumerate(items, 1):
        item.data = turned(int(item.stem), orientation)
    return [at_picture("rotated by EXIF", item, f"orientation {n}") for n, item in enumerate(items, 1) if n > 1]


@fault(4, "voc", "coco", "csv")
def size_before_turning(plan: Plan) -> list[Later]:
    item = plan.train(6)
    item.data, item.size = turned(6, 6), (SIZE[1], SIZE[0])
    return [at_picture("rotated by EXIF", item), at_labels("unrotated size", item, "72x96, upright it is 96x72")]


@fault(4, "voc", "coco", "csv")
def wrong_size(plan: Plan) -> list[Later]:
    item = plan.train(6)
    item.size = (192, 144)
    return [at_labels("wrong size", item, "192x144")]


@fault(5)
def odd_modes(plan: Plan) -> list[Later]:
    said = []
    modes = [("grey", "L", "JPEG"), ("alpha", "RGBA", "PNG"), ("CMYK", "CMYK", "JPEG")]
    for item, (kind, mode, form) in zip(plan.of()[24:], modes, strict=False):
        item.data = encoded(Image.fromarray(pixels(int(item.stem))).convert(mode), form)
        item.suffix = ".jpg" if form == "JPEG" else ".png"
        said.append(at_picture(kind, item))
    return said


@fault(6)
def deep(plan: Plan) -> list[Later]:
    said = []
    for item, (kind, factor) in zip(plan.of()[18:], [("16 bits", 257), ("16 bits, dark", 16)], strict=False):
        values = pixels(int(item.stem))[..., 0].astype(np.uint16) * factor
        item.data, item.suffix = encoded(values, "PNG"), ".png"
        said.append(at_picture(kind, item))
    item = plan.train(27)
    item.data, item.suffix = encoded(pixels(27)[..., 0].astype(np.float32) / 255, "TIFF"), ".tiff"
    return [*said, at_picture("floating point", item)]


@fault(7)
def no_pictures(plan: Plan) -> list[Later]:
    fakes = [b"<html>404</html>", b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"]
    texts = ["starts with '<html>404</html>'", "is empty", "git-LFS"]
    for item, data in zip(plan.of()[20:], fakes, strict=False):
        item.data = data
    said = [at_picture("not a picture", item, text) for item, text in zip(plan.of()[20:], texts, strict=False)]
    other = plan.train(9)
    other.data = encoded(pixels(9), "PNG")
    return [*said, at_picture("wrong suffix", other, "is PNG")]


def bomb() -> bytes:
    """400 million pixels in 48 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes(2500)
    head = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * 20000, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@fault(8)
def bombed(plan: Plan) -> list[Later]:
    item = plan.train(7)
    item.data, item.suffix = bomb(), ".png"
    assert len(item.data) < 60_000
    return [at_picture("picture too large", item, "20000x20000")]


@fault(9)
def animated(plan: Plan) -> list[Later]:
    item = plan.train(8)
    frames = [Image.fromarray(pixels(seed)) for seed in (8, 9)]
    item.data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    item.suffix = ".webp"
    return [at_picture("animated image", item, "2 frames")]


@fault(10)
def long_and_thin(plan: Plan) -> list[Later]:
    item = plan.train(9)
    item.data, item.size = encoded(pixels(9, (360, 12))), (360, 12)
    if plan.form in TABLES:
        item.rows = [Row("cat", (0, 0, 36, 12))]
    blank = plan.train(10)
    blank.data = encoded(np.full((72, 96, 3), 77, np.uint8))
    return [at_picture("extreme shape", item, "360x12"), at_picture("one colour", blank)]


@fault(11)
def odd_names(plan: Plan) -> list[Later]:
    """Not a fault at all: nothing may be said, and everything has to load."""
    plan.root = plan.root.parent / "数据 集"
    for item, stem in zip(plan.of(), ("图é", "with space (1)", "two.dots.v1", "x" * 120, "-dash"), strict=False):
        item.stem = stem
    return []


@fault(12, "voc", "coco", "csv")
def missing(plan: Plan) -> list[Later]:
    items = plan.of()[2:5]
    for item in items:
        item.present = False
    return [lambda item=item: Expected("missing image", item.path, None, "no such file") for item in items]


@fault(12, "yolo")
def labels_alone(plan: Plan) -> list[Later]:
    plan.train(2).present = False
    return [at_labels("label without picture", plan.train(2))]


@fault(12, "coco", "yolo")
def equal_names(plan: Plan) -> list[Later]:
    first, second = plan.of()[:2]
    first.folder, second.folder, second.stem = "a/", "b/", first.stem
    return [at_picture("equal names", second)]


@fault(12, "voc")
def listed_only(plan: Plan) -> list[Later]:
    plan.listed["train"] = ["ghost"]
    plan.extra["JPEGImages/lonely.jpg"] = picture(901)
    path = "Annotations/ghost.xml"
    return [at("missing label file", path), at("picture without labels", "JPEGImages/lonely.jpg")]


# ---------------------------------------------------------------- labels


@fault(13, *TABLES)
def background(plan: Plan) -> list[Later]:
    for item in plan.of()[::3]:
        item.rows = []
    return [at("pictures without objects", text="10 of 30 pictures")]


@fault(13, *BOXES, fatal=True)
def nothing(plan: Plan) -> list[Later]:
    for item in plan.of():
        item.rows = []
    return [at("nothing to learn", text="train has no object")]


def planted(plan: Plan, *boxes: tuple[float, float, float, float], label: str = "cat") -> list[Row]:
    """Rows added to the second picture of the training split, behind its good ones."""
    rows = [Row(label, box) for box in boxes]
    plan.train(1).rows += rows
    return rows


@fault(14, *TABLES)
def degenerate(plan: Plan) -> list[Later]:
    rows = planted(plan, (10, 10, 10, 30), (10, 10, 30, 10), (40, 20, 20, 40))
    return [at_row("degenerate box", row) for row in rows]


@fault(14, *TABLES, fatal=True)
def not_numbers(plan: Plan) -> list[Later]:
    rows = planted(plan, (math.nan, 10, 30, 40), (10, 10, math.inf, 40))
    return [at_row("not a number", row) for row in rows]


@fault(15, *TABLES)
def outside(plan: Plan) -> list[Later]:
    rows = planted(plan, (70, 30, 110, 60), (85, 30, 140, 60), (200, 10, 240, 40))
    kinds = ("box clipped", "box mostly outside", "box outside")
    return [at_row(kind, row) for kind, row in zip(kinds, rows, strict=True)]


@fault(16, *TABLES)
def twice(plan: Plan) -> list[Later]:
    row = planted(plan, plan.train(1).rows[0].box, label=plan.train(1).rows[0].label)[0]
    return [at_row("duplicate row", row)]


@fault(17, *BOXES, fatal=True)
def no_such_class(plan: Plan) -> list[Later]:
    row = planted(plan, (10, 10, 40, 40), label="unicorn")[0]
    return [at_row("unknown class" if plan.form == "voc" else "class out of range", row)]


@fault(17, "yolo", fatal=True)
def ids_from_one(plan: Plan) -> list[Later]:
    plan.first_id = 1
    owls = [row for item in plan.items for row in item.rows if row.label == "owl"]
    return [
        *(at_row("class out of range", row, "start at 1") for row in owls),
        at("class ids from 1", "data.yaml"),
        *(
            at("class without objects" if split == "train" else "class missing in a split")
            for split in ("train", "val")
        ),
    ]


@fault(18, *TABLES, fatal=True)
def one_bad_row(plan: Plan) -> list[Later]:
    rows = planted(plan, (5, 5, 40, 40), (50, 5, 90, 40), (5, 5, 40, 60))
    raw = {"csv": ["ten", 1, 2, 3], "voc": ["ten", 1, 2, 3], "coco": ["1", "b", 3, 4], "yolo": [0.5, 0.5, 0.2]}
    rows[1].raw = raw[plan.form]
    return [at_row("malformed row", rows[1])]


@fault(18, "voc", fatal=True)
def broken_file(plan: Plan) -> list[Later]:
    plan.train(1).stem = "cut"
    plan.extra["Annotations/cut.xml"] = b"<annotation>\n<object>\n"
    return [at_labels("malformed file", plan.train(1), "is not XML", 3)]


@fault(26, "voc", fatal=True)
def doctype(plan: Plan) -> list[Later]:
    plan.train(1).stem = "bomb"
    plan.extra["Annotations/bomb.xml"] = b'<!DOCTYPE a [<!ENTITY b "c">]>\n<annotation>&b;</annotation>'
    return [at_labels("malformed file", plan.train(1), "DOCTYPE")]


@fault(26, "voc")
def from_zero(plan: Plan) -> list[Later]:
    row = planted(plan, (10, 10, 40, 40))[0]
    row.raw = [0, 5, 40, 40]
    return [at_row("counted from 0", row)]


@fault(19)
def other_cache(plan: Plan) -> list[Later]:
    plan.extra["train.cache"] = b"\x80\x04 another tool's pickle"
    return [at("cache of another tool", "train.cache")]


@fault(18, "coco", fatal=True)
def broken_json(plan: Plan) -> list[Later]:
    plan.extra["annotations/instances_val.json"] = b'{"images": [\n'
    return [at("split that cannot be read", text="instances_val.json:2: is not JSON")]


@fault(25, "coco")
def irregular(plan: Plan) -> list[Later]:
    rows = planted(plan, (5, 5, 40, 40), (30, 5, 80, 50))
    rows[0].image_id = 777
    rows[1].mask = [[1, 2, 3, 4]]
    plan.train(5).size = None  # width and height are not required
    return [
        lambda: Expected("annotation without image", rows[0].path, None, "777"),
        at_row("malformed mask", rows[1]),
    ]


@fault(25, "coco", fatal=True)
def one_id_twice(plan: Plan) -> list[Later]:
    first, second = plan.of()[:2]
    second.image_id = first.image_id
    return [at_labels("duplicate image id", second, "images[1]")]

"""The verbs of ``torso data``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torso.cli.tell import Asked, numbers, table, tell

# Those of torso.data.formats.FORMATS, which takes too long to import for a help text.
FORMATS = (
    "voc", "voc_segmentation", "mask_folder", "yolo", "coco", "coco_keypoints", "coco_panoptic", "coco_stuff",
    "coco_captions", "cifar", "mnist", "imagenet", "csv", "folder", "shards", "unlabeled",
)  # fmt: skip
MADE = ("voc", "coco", "yolo", "folder")  # forms of the built-in data


def verbs(verb: Callable[..., Any], among: Any) -> None:
    """Adds the verbs to the parser of ``torso data``."""
    add = verb("data make", _make, "Write the built-in data set.", among)
    add("what", choices=["digits"], help="handwritten digits on photographs")
    add("folder", metavar="DIR", help="where to; made when it is missing")
    add("--format", default="voc", choices=MADE)
    add("--count", type=int, default=400, help="pictures in all (%(default)s)")
    add("--size", type=int, default=256, help="side of a picture in pixels (%(default)s)")
    add("--seed", type=int, default=0)
    add = verb("data check", _check, "Say what a data set is, and what is wrong with it.", among)
    _source(add)
    add("--split", help="only this split")
    add("--size", type=int, default=640, help="side of the network's input, for boxes that get too small (%(default)s)")
    add("--no-near", action="store_true", help="do not look for pictures that are almost the same")
    add("--html", metavar="FILE", help="write all of it as a page")
    add("--fix", metavar="DST", help="write a copy without what can be repaired without guessing")
    _changing_verbs(verb, among)
    add = verb("data stats", _stats, "Count pictures, classes and boxes; mean and deviation of pixels; anchors.", among)
    _source(add)
    add("--split", help="only this split (all pictures)")
    add("--anchors", type=int, default=0, metavar="N", help="make N anchors from the boxes, by k-means on 1 - IoU")
    add("--size", type=int, default=640, help="side of the network's input that anchors are for (%(default)s)")
    add("--sample", type=int, metavar="N", help="decode only N pictures for the mean of their pixels")
    add("--no-pixels", action="store_true", help="decode none")
    add("--seed", type=int, default=0, help="of the sample and of the anchors")
    add("--plot", metavar="FILE.png", help="draw classes, box sizes and where boxes lie")
    add = verb("data show", _show, "Draw pictures with their labels, and what augmentation makes of them.", among)
    _source(add)
    add("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="of the recipe: data.transforms='[mosaic]' ...")
    add("--recipe", help="also draw four augmented versions of each picture, as this recipe trains on them")
    add("--out", default="data.png", metavar="FILE", help="the sheet (%(default)s)")
    add("--split", help="which (the first)")
    add("--count", type=int, default=12, help="pictures (%(default)s)")
    add("--side", type=int, default=320, help="of a picture on the sheet, in pixels (%(default)s)")
    add("--seed", type=int, default=0, help="which pictures, and which augmentation")


def _source(add: Callable[..., Any]) -> None:
    add("folder", metavar="DIR", help="a data set's folder, data.yaml or json; its format is found out")
    add("--format", choices=FORMATS, metavar="FORMAT", help="where it is not recognised")


def _changing_verbs(verb: Callable[..., Any], among: Any) -> None:
    add = verb("data convert", _convert, "Write a data set in another format, and say what that cannot hold.", among)
    add("folder", metavar="SRC", help="a data set's folder, data.yaml or json; never written to")
    add("destination", metavar="DST", help="a folder that is new or empty")
    add("--to", required=True, choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    add("--format", choices=FORMATS, metavar="FORMAT", help="that of SRC, where it is not recognised")
    add("--split", action="append", dest="splits", metavar="SPLIT", help="only this split; may be given again")
    add("--link", action="store_true", help="hard links instead of copies of pictures: who changes one changes both")
    add("--crop", action="store_true", help="to formats with one class a picture: every object becomes a picture")
    add = verb("data split", _split, "Divide a data set's pictures into splits, kept in a file.", among)
    _source(add)
    add("--out", required=True, metavar="FILE.json|DIR", help="one JSON, or a folder with a list a split")
    add("--val", type=float, default=0.2, metavar="PART", help="share of the pictures (%(default)s)")
    add("--test", type=float, default=0.0, metavar="PART", help="share of the pictures (none)")
    add("--by", default="class", choices=["class", "random", "group"], help="what is kept in proportion (%(default)s)")
    add(
        "--group",
        metavar="GROUP",
        help="what stays together: folder, FILE.csv:COLUMN, or a regular expression of paths",
    )
    add("--near", action="store_true", help="pictures that are almost the same stay together too")
    add("--seed", type=int, default=0)


def _make(asked: Asked) -> None:
    from torso.data import digits

    folder = digits.make(asked.folder, format=asked.format, count=asked.count, size=asked.size, seed=asked.seed)
    result = {"path": str(folder), "format": asked.format, "count": asked.count}
    tell(asked, result, [f"{asked.count} pictures in {asked.format} form: {folder}"])


def _check(asked: Asked) -> None:
    from pathlib import Path

    from torso.config import DataError
    from torso.data import doctor

    said = {"near": not asked.no_near, "size": asked.size, "progress": _progress()}
    found = doctor.examine(asked.folder, format=asked.format, split=asked.split, **said)
    result = found.as_dict()
    lines = [*found.lines()]
    if asked.html:
        result["page"] = str(doctor.page(found, Path(asked.html)))
        lines.append(f"page     {result['page']}")
    if asked.fix:
        result["repaired"] = doctor.repair(found, asked.fix)
        count = len(result["repaired"]["changes"])
        lines.append(f"repaired {result['repaired']['path']}: {count} change{'' if count == 1 else 's'}")
    tell(asked, result, lines)
    if found.fatal:
        raise DataError(f"{asked.folder}: {found.verdict}")


def _progress() -> Callable[[int, int], None] | None:
    """Counts on one line for who looks on."""
    if not sys.stderr.isatty():
        return None

    def told(done: int, total: int) -> None:
        print(f"\r{done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return told


def _convert(asked: Asked) -> None:
    from torso.data.convert import convert, raise_if_fatal

    known = {"format": asked.format, "splits": asked.splits, "link": asked.link, "crop": asked.crop}
    report = convert(asked.folder, asked.destination, asked.to, **known)
    lines = [f"{report.destination}: {report.to}, from {report.format}", *report.lines()]
    tell(asked, report.as_dict(), lines)
    raise_if_fatal(report)


def _split(asked: Asked) -> None:
    from torso.data.groups import alike
    from torso.data.split import split, whole

    fractions = {"train": 1 - asked.val - asked.test, "val": asked.val, "test": asked.test}
    index = whole(asked.folder, format=asked.format)
    groups = alike(index) if asked.near else None
    named = {name: fraction for name, fraction in fractions.items() if fraction or name != "test"}
    made = split(index, named, by=asked.by, group=asked.group, groups=groups, seed=asked.seed)
    file = made.save(asked.out)
    tell(asked, {"file": str(file)} | made.as_dict(), _divided(made, asked.folder, str(file)))


def _divided(made: Any, folder: str, file: str) -> Iterator[str]:
    yield "  ".join(f"{name} {len(names)}" for name, names in made.names.items()) + " pictures"
    yield from table([{"class": name} | own for name, own in made.counts.items()])
    yield f"file     {file}"
    yield f"next     torso train RECIPE data.path={folder} data.splits={file}"


def _stats(asked: Asked) -> None:
    from torso.data import open_index
    from torso.data.split import whole
    from torso.data.stats import stats

    if asked.split:
        index = open_index(asked.folder, asked.split, format=asked.format)
    else:
        index = whole(asked.folder, format=asked.format)
    wanted = {"pixels": not asked.no_pixels, "sample": asked.sample, "anchors": asked.anchors, "seed": asked.seed}
    result = {"path": asked.folder, "split": asked.split} | stats(index, size=asked.size, **wanted)
    lines = [*_counted(result)]
    if asked.plot:
        from torso.data.charts import chart

        result["plot"] = str(chart(index, asked.plot, title=f"{asked.folder} {asked.split or ''}".strip()))
        lines.append(f"plot     {result['plot']}")
    tell(asked, result, lines)


def _counted(found: Mapping[str, Any]) -> Iterator[str]:
    objects = f", {found['objects']} objects" if "objects" in found else ""
    empty = f", {found['pictures_without_objects']} without any" if found.get("pictures_without_objects") else ""
    yield f"{found['path']}: {found['pictures']} pictures{objects}{empty}"
    yield ""
    columns = ["class", "objects", "pictures", "share"] if objects else ["class", "pictures", "share"]
    yield from table(found["classes"], columns)
    yield ""
    sizes, boxes = found["sizes"], found.get("boxes", {})
    rows = [{"of": f"picture {name}", **_least_to_most(sizes[name])} for name in ("width", "height", "aspect_ratio")]
    if objects:
        rows.append({"of": "objects a picture", **_least_to_most(found["objects_a_picture"])})
        rows += [{"of": f"box {name}", **_least_to_most(boxes[name])} for name in ("width", "height", "aspect_ratio")]
    yield from table(rows)
    yield ""
    if objects:
        yield f"boxes    {numbers({size: boxes[size] for size in ('small', 'medium', 'large')})}  (32 and 96 pixels)"
        yield f"shares   {numbers(found['shares'])}"
    if "pixels" in found:
        yield from _normalized(found["pixels"])
    if "anchors" in found:
        made = found["anchors"]
        yield f"anchors  {made['anchors']}  for {made['size']} px"
        fit = {"mean IoU": made["mean_iou"], "best possible recall": made["best_possible_recall"]}
        yield f"         {numbers(fit)}"


def _least_to_most(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {name: summary[name] for name in ("min", "median", "mean", "max")}


def _normalized(pixels: Mapping[str, Any]) -> Iterator[str]:
    mean, std = ([round(value, 4) for value in pixels[name]] for name in ("mean", "std"))
    yield f"pixels   mean {mean}  std {std}  of {pixels['pixels']} in {pixels['pictures']} pictures"
    for one in pixels["skipped"][:5]:
        yield f"skipped  {one['path']}: {one['reason']}"
    if len(pixels["skipped"]) > 5:
        yield f"         and {len(pixels['skipped']) - 5} more"


def _show(asked: Asked) -> None:
    from torso.recipes.look import look

    said = {"split": asked.split, "format": asked.format, "recipe": asked.recipe, "overrides": asked.overrides}
    result = look(asked.folder, asked.out, **said, count=asked.count, side=asked.side, seed=asked.seed)
    lines = [f"skipped  {path}: {reason}" for path, reason in result["skipped"]]
    tell(asked, result, [*lines, f"{len(result['pictures'])} pictures of {result['split']}: {result['file']}"])

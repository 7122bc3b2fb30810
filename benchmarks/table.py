"""Writes the measured column of README.md from ``results/``: the page can say nothing that was not measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent


def result(name: str) -> Any:
    return json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))


def joined(values: list[Any]) -> str:
    return " / ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in values)


def spread(cells: dict[str, Any], name: str) -> list[float]:
    """The least, the median and the greatest ratio over numbers of pictures and boxes."""
    ratios = [cell["ratios"][name] for cell in cells.values() if name in cell["ratios"]]
    return [min(ratios), median(ratios), max(ratios)]


def measured() -> list[str]:
    """The last cells of the table's rows, in their order."""
    startup, criteria, nms = result("startup"), result("criteria")["systems"], result("nms")
    answers, learned = result("postprocess")["models"], result("overfit")
    regions = [each for case in result("roi")["cases"].values() for each in case.values()]
    step, loader = result("train_step")["ratios"], result("loader")
    coco = result("read_coco")["cases"]
    data = result("data")["ratios"]
    parts = list(result("parts")["parts"].values())
    times = [row["time"] for row in parts]
    scores = [row["AP50"] for row in learned["recipes"].values()]
    swapped = [score for row in learned["assigners"].values() for score in row.values()]
    return [
        joined([startup["ratio_to_import_torch"]["import torso and torch"]]),
        joined([startup["ratio_to_import_torch"]["torso --help"]]),
        *(joined(spread(each["cells"], "torso eager")) for each in criteria.values()),
        joined([median(spread(each["cells"], "torso compiled")) for each in criteria.values()]),
        joined([max(cell["torso"]["host syncs"] for cell in each["cells"].values()) for each in criteria.values()]),
        joined([each["growth from 10 to 300 boxes"]["torso eager"] for each in criteria.values()]),
        joined([each["ratio batched"] for each in nms["boxes"].values()]),
        joined([each["ratio agnostic"] for each in nms["boxes"].values()]),
        joined([each["ratio soft batched"] for each in nms["boxes"].values()]),
        joined([each["ratio soft agnostic"] for each in nms["boxes"].values()]),
        joined([each["ratio"] for each in answers.values()]),
        joined([each["ratio forward and backward"] for each in regions]),
        joined([each["ratio forward"] for each in regions]),
        joined([min(scores), min(swapped)]),
        joined([step["torso fp32 / torchvision fp32"]]),
        joined([step["torso bf16 / torso fp32"]]),
        joined([loader["ratios"]["torso / torchvision v2 (time)"]]),
        joined([loader["ratios"]["torso / decode alone (time)"]]),
        joined([data["torso / ultralytics (time)"]]),
        joined([data["torso / torchvision v2 (time)"]]),
        joined([data["torso / decode alone (time)"]]),
        joined([data["torso, rotated 10 degrees / ultralytics (time)"]]),
        joined([data["torso, RAM cache / ultralytics (time)"]]),
        joined([data["torso, 12 megapixels / opencv, 12 megapixels (time)"]]),
        joined([coco["boxes"]["ratio time"]]),
        joined([coco["boxes"]["ratio memory"]]),
        joined([coco["polygons"]["ratio time"], coco["polygons"]["ratio memory"]]),
        joined([min(times), median(times), max(times)]),
        joined([median(row["memory"] for row in parts)]),
    ]


def main() -> None:
    page = HERE / "README.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    rows = [number for number, line in enumerate(lines) if line.startswith("| ") and not line.startswith("| script")]
    for number, cell in zip(rows, measured(), strict=True):
        lines[number] = re.sub(r"\|[^|]*\|$", f"| {cell} |", lines[number])
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

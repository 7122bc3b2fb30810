"""The report of a run: one page of HTML that needs nothing else, opens anywhere and runs no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torso.evaluate.classification import ClassificationResult
from torso.evaluate.detection import DetectionResult
from torso.evaluate.errors import Errors
from torso.evaluate.figure import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torso.evaluate.pictures import Pictures

Evaluation = DetectionResult | ClassificationResult

# What the marks mean, for a reader who sees them for the first time.
MEANING = {
    "AP": "average precision over overlaps 0.50 to 0.95",
    "AP50": "average precision at overlap 0.50",
    "AP75": "average precision at overlap 0.75",
    "APs": "AP of small objects, below 32² pixels",
    "APm": "AP of medium objects",
    "APl": "AP of large objects, from 96² pixels",
    "AR1": "recall with 1 box a picture",
    "AR10": "recall with 10 boxes a picture",
    "AR100": "recall with 100 boxes a picture",
    "ARs": "recall of small objects",
    "ARm": "recall of medium objects",
    "ARl": "recall of large objects",
    "mask AP": "average precision of masks over overlaps 0.50 to 0.95",
    "mask AP50": "average precision of masks at overlap 0.50",
    "mask AP75": "average precision of masks at overlap 0.75",
    "mask APs": "AP of masks of small objects",
    "mask APm": "AP of masks of medium objects",
    "mask APl": "AP of masks of large objects",
    "mask AR100": "recall with 100 masks a picture",
    "mask ARs": "recall of masks of small objects",
    "mask ARm": "recall of masks of medium objects",
    "mask ARl": "recall of masks of large objects",
    "accuracy": "pictures named right",
    "top5": "right class among the five likeliest",
    "macro_f1": "F1, each class counted alike",
    "macro_precision": "precision, each class counted alike",
    "macro_recall": "recall, each class counted alike",
    "auc": "area under ROC, one against the rest",
}
CAPTIONS = {
    "loss": "Loss while training; the pale line is every step, the strong one its mean",
    "rate": "Learning rate",
    "scores": "Marks on the validation split",
    "precision_recall": "Precision and recall at overlap 0.5, with AP50",
    "roc": "ROC of each class against the others, with the area below",
    "errors": "What AP50 would gain without each kind of error, and how many; pale: all wrong boxes, all not found",
    "confusion": "What is taken for what: rows are the truth, columns what was said, colour is the part of a row",
    "classes": "Objects of each class",
    "sizes": "Sizes of the objects",
}
FAULTS = {
    "classification": "boxes of the wrong class",
    "localisation": "boxes in the wrong place",
    "both": "boxes of the wrong class in the wrong place",
    "duplicate": "second boxes of one object",
    "background": "boxes of nothing",
    "missed": "objects that were missed",
}
FRONT = {
    "detect": ("AP", "AP50", "AP75", "AR100", "mask AP", "mask AP50"),
    "classify": ("accuracy", "macro_f1", "auc", "top5"),
}


def write(
    path: str | Path,
    *,
    name: str,
    status: str = "",
    recipe_yaml: str = "",
    command: str = "",
    environment: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    evaluation: Evaluation | None = None,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    figures: Mapping[str, Figure] | None = None,
    pictures: Pictures | None = None,
) -> Path:
    """Write the page. Whatever is missing or empty is left out, so that a run stopped early has a report too.

    Args:
        path: where, ``report.html``.
        name: of the run.
        status: a line below the title, such as "stopped after 3 of 12 epochs".
        recipe_yaml: the resolved recipe.
        command: what to type to repeat the run.
        environment: versions and machine; a value may be a mapping.
        facts: further cards: what -> value, such as ``{"time": "4 min 12 s"}``.
        evaluation: marks of the best weights.
        data: ``Index.report()`` of each split.
        figures: ``plots.figures(...)``.
        pictures: labels, batches and mistakes.

    Returns:
        ``path``.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters.update(mark=_mark, bar=_bar, count=_count)
    # Markup: Matplotlib escapes every text it writes, and the page's policy forbids scripts in any case.
    drawn = {key: Markup(to_svg(figure)) for key, figure in (figures or {}).items()}
    page = jinja.get_template("report.html.j2").render(
        name=name,
        status=status,
        recipe=recipe_yaml.strip(),
        command=command.strip(),
        environment=_flat(environment or {}),
        cards=_cards(evaluation, facts or {}),
        findings=_findings(evaluation) if evaluation is not None else [],
        evaluation=evaluation,
        columns=_columns(evaluation),
        meaning=_meaning(evaluation),
        data=data or {},
        figures=drawn,
        captions=CAPTIONS,
        pictures=pictures,
    )
    path = Path(path)
    path.write_text(page, encoding="utf-8")
    return path


def _cards(evaluation: Evaluation | None, facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, value, meaning): the headline first, then the other important marks, then facts."""
    cards = []
    if evaluation is not None:
        meaning = _meaning(evaluation)
        most = str(getattr(evaluation, "most", 100))
        names = dict.fromkeys((evaluation.headline, *(key.replace("100", most) for key in FRONT[evaluation.task])))
        shown = [key for key in names if key in evaluation.summary]
        cards = [(key.replace("_", " "), _mark(evaluation.summary[key]), meaning[key]) for key in shown]
    return cards + [(str(key), str(value), "") for key, value in facts.items()]


def _meaning(evaluation: Evaluation | None) -> dict[str, str]:
    """What the marks mean; recall may be told for another number than COCO's hundred."""
    if not isinstance(evaluation, DetectionResult):
        return MEANING
    number = str(evaluation.most)
    return {key.replace("100", number): text.replace("100", number) for key, text in MEANING.items()}


def _findings(evaluation: Evaluation) -> list[str]:
    """What a person would say on seeing the numbers, in a few sentences."""
    said = []
    key, things = ("AP", "objects") if isinstance(evaluation, DetectionResult) else ("F1", "pictures")
    known = [row for row in evaluation.per_class if not math.isnan(row[key])]
    if isinstance(evaluation, DetectionResult) and not math.isnan(evaluation.threshold):
        said.append(
            f"Show boxes from a score of {evaluation.threshold:.2f}: there F1 is best ({evaluation.f1:.3f}); "
            f"{evaluation.precision:.0%} of the boxes are right and {evaluation.recall:.0%} of the objects are found."
        )
    if isinstance(evaluation, DetectionResult) and evaluation.most != 100:
        said.append(f"Of a class in a picture {evaluation.most} detections are judged, where COCO's rule is 100.")
    if isinstance(evaluation, DetectionResult) and evaluation.errors is not None:
        said += _costliest(evaluation.errors)
    if len(known) > 1:
        worst, best = min(known, key=lambda row: row[key]), max(known, key=lambda row: row[key])
        said.append(
            f"{best['name']} does best ({key} {best[key]:.3f}), {worst['name']} worst "
            f"({key} {worst[key]:.3f}, {worst['objects']} {things})."
        )
    count = len(evaluation.classes)
    mixed = evaluation.confusion[:count, :count].copy()
    mixed[range(count), range(count)] = 0
    if mixed.max(initial=0) > 0:
        truth, taken = divmod(int(mixed.argmax()), count)
        pair = f"{evaluation.classes[truth]} taken for {evaluation.classes[taken]}"
        said.append(f"The most frequent confusion is {pair}: {mixed.max()} times.")
    if isinstance(evaluation, ClassificationResult) and evaluation.headline == "macro_f1":
        said.append(
            f"The largest class has {evaluation.imbalance:.3g} times the pictures of the smallest: "
            "F1 over classes says more than accuracy."
        )
    empty = [row["name"] for row in evaluation.per_class if math.isnan(row[key])]
    if empty:
        names = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        said.append(f"Nothing to judge for {names}: this split has none, and the means leave them out.")
    return said


def _costliest(errors: Errors) -> list[str]:
    """The kind of error that costs most, if any costs something."""
    kind = max(FAULTS, key=lambda name: errors.prices[name])
    if not errors.prices[kind] > 0.005:  # so for NaN: nothing to judge
        return []
    count, gain = errors.counts[kind], errors.prices[kind]
    return [f"The costliest errors are {FAULTS[kind]} ({count}): without them AP50 would be {gain:.3f} higher."]


def _columns(evaluation: Evaluation | None) -> list[str]:
    """The marks of the table of classes; ``objects`` and ``threshold`` are shown apart."""
    if evaluation is None or not evaluation.per_class:
        return []
    return [key for key in evaluation.per_class[0] if key not in ("name", "objects", "threshold")]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key} ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            rows += [(f"{prefix}{key}", ", ".join(map(str, value)))] if value else []
        elif value not in (None, ""):
            rows.append((f"{prefix}{key}", str(value)))
    return rows


def _mark(value: float | None) -> str:
    """A mark in 0..1 with three digits; "n/a" where there was nothing to judge."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.3f}"


def _bar(value: float | None) -> str:
    """A mark in 0..1 as the width of a bar in per cent."""
    return "0" if value is None or math.isnan(value) else f"{100 * min(max(value, 0), 1):.1f}"


def _count(value: int | None) -> str:
    """A whole number with thin spaces between thousands."""
    return "" if value is None else f"{value:,}".replace(",", "\u202f")

"""The page: self-contained, escaped, small, complete, and whole when parts are missing."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.evaluate.worlds import make_index, make_predictions
from torso.data.index import Problem
from torso.evaluate import classification, detection, pictures, plots, report
from torso.evaluate.errors import KINDS, Errors
from torso.evaluate.predictions import Predictions
from torso.structures import Batch, Targets

HOSTILE = "<img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what could load or run something."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.handlers, self.ids, self.text = [], [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for key, value in attributes:
            if key in ("src", "href", "xlink:href", "action"):
                self.links.append(value)
            if key.startswith("on"):
                self.handlers.append((tag, key))
            if key == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def world(folder, images=14):
    """Pictures on disk, their index and detections with mistakes in it; the first picture is the worst."""
    rng = np.random.default_rng(0)
    objects, rows = [], []
    for image in range(images):
        noise = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((400, 300)).save(folder / f"{image} 图.png")
        objects += [[image, image % 2, 10, 10, 100, 100], [image, 1, 200, 50, 300, 200]]
        rows += [[image, image % 2, 0.9, 12, 12, 100, 100]] + (
            [[image, 1, 0.8, 200, 52, 300, 200]] if image % 3 else []
        )
    rows += [[0, 0, 0.95, 350, 10, 390, 60], [0, 1, 0.9, 300, 210, 390, 290]]
    index = make_index(objects, classes=("cell", HOSTILE), size=(400, 300))
    index = replace(index, root=folder, paths=[f"{image} 图.png" for image in range(images)])
    return index, make_predictions(rows, seen=np.arange(images))


def make_batch(count=3):
    valid = torch.tensor([[True, False]]).expand(count, -1)
    return Batch(
        images=torch.full((count, 3, 64, 96), 200, dtype=torch.uint8),
        targets=Targets(
            boxes=torch.tensor([[[10.0, 10, 50, 40], [0, 0, 0, 0]]]).expand(count, -1, -1),
            labels=torch.ones(count, 2, dtype=torch.int64),
            valid=valid,
            ignore=torch.zeros_like(valid),
        ),
        index=torch.arange(count),
        to_source=torch.eye(3, dtype=torch.float64).expand(count, -1, -1),
        source_size=torch.full((count, 2), 96),
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with every section, of a set whose names attack it."""
    folder = tmp_path_factory.mktemp("report")
    index, predictions = world(folder)
    evaluation = detection.evaluate(index, predictions)
    problem = Problem("unreadable", f"{HOSTILE}.xml", 3, f"no {HOSTILE}")
    shown = pictures.Pictures(
        pictures.of_labels(index),
        pictures.of_batch(make_batch(), index.classes),
        pictures.of_mistakes(index, predictions, evaluation.threshold),
    )
    metrics = [{"step": s, "loss": 1 / s, "lr": 0.1} for s in range(1, 9)]
    path = report.write(
        folder / "report.html",
        name=f"run {HOSTILE}",
        status=HOSTILE,
        recipe_yaml=f"model: '{HOSTILE}'",
        command=f"torso train '{HOSTILE}'",
        environment={"torch": "2.15", "packages": {"x": HOSTILE}, "cuda": [], "commit": None},
        facts={"minutes": "4.2"},
        evaluation=evaluation,
        data={"train": replace(index, problems=(problem,)).report(), "val": index.report()},
        figures=plots.figures(metrics=metrics, evaluation=evaluation, indexes={"train": index}),
        pictures=shown,
    )
    return path.read_text(encoding="utf-8"), evaluation, shown


@pytest.mark.part("metric/detection_errors")
def test_the_costliest_kind_of_error_is_told(page):
    text, evaluation, _ = page
    errors = evaluation.errors
    assert f"without them AP50 would be {max(errors.prices[kind] for kind in KINDS):.3f} higher." in text
    assert f"objects that were missed ({errors.counts['missed']})" in text
    assert report.CAPTIONS["errors"] in text
    perfect = replace(evaluation, errors=Errors(1.0, errors.counts, dict.fromkeys(errors.prices, 0.0)))
    assert not any("costliest" in line for line in report._findings(perfect))


def test_hostile_names_are_escaped(page):
    text, _, _ = page
    parsed = Page(text)
    assert parsed.handlers == []
    assert "script" not in parsed.tags
    assert HOSTILE not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") > 8
    assert any(HOSTILE in part for part in parsed.text)  # and is read as it is


def test_nothing_is_loaded(page):
    links = Page(page[0]).links
    assert len(links) > 20
    assert [link for link in links if not link.startswith(("data:image/", "#"))] == []
    assert "default-src 'none'" in page[0]
    outside = set(re.findall(r"https?://[^\s\"'<)]+", page[0]))
    allowed = ("http://www.w3.org/", "https://matplotlib.org", "http://purl.org", "http://creativecommons.org")
    assert all(link.startswith(allowed) for link in outside)  # names of namespaces, never fetched


def test_every_section_is_there(page):
    text, evaluation, shown = page
    assert {"summary", "data", "training", "classes", "mistakes", "batches", "repeat"} <= set(Page(text).ids)
    assert f"{evaluation.summary['AP']:.3f}" in text
    assert text.count("data:image/jpeg") == len(shown.labels) + len(shown.batches) + 2 * len(shown.mistakes)
    assert len(text) < 6_000_000


def test_missing_parts_do_not_show(tmp_path):
    text = report.write(tmp_path / "r.html", name="bare").read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.ids == ["summary"]
    assert "svg" not in parsed.tags
    assert "section" not in parsed.tags


def test_classifier_page(tmp_path):
    index, _ = world(tmp_path)
    labels = np.arange(len(index)) % 2
    index = replace(index, task="classify", image_labels=labels)
    table = np.tile([0.6, 0.4], (len(index), 1))
    evaluation = classification.evaluate(labels, table, index.classes)
    wrong = pictures.of_mistakes(index, Predictions.of(probabilities=table))
    assert len(wrong) == 7
    assert wrong[0][0].note == f"is {HOSTILE} (0.40), called cell (0.60)"
    path = report.write(
        tmp_path / "r.html",
        name="classifier",
        evaluation=evaluation,
        data={"val": index.report()},
        figures=plots.figures(evaluation=evaluation, indexes={"val": index}),
        pictures=pictures.Pictures(pictures.of_labels(index), [], wrong),
    )
    text = path.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert {"classes", "mistakes", "data"} <= set(Page(text).ids)
    assert "macro f1" in text


def test_worst_mistakes_come_first(tmp_path):
    index, predictions = world(tmp_path)
    pairs = pictures.of_mistakes(index, predictions, 0.25)
    # Picture 0 misses one and invents two; 3, 6, 9 and 12 miss one; the others are right and are not shown.
    assert [pair[0].note for pair in pairs] == [f"{image} 图.png" for image in (0, 3, 6, 9, 12)]
    assert pairs[0][1].note == "1 missed, 2 wrong, 1 right"
    assert len(pictures.of_mistakes(index, predictions, 0.25, count=2)) == 2
    assert len(pictures.of_mistakes(index, predictions, float("nan"))) == 5


def test_unreadable_pictures_are_passed_over(tmp_path):
    index, predictions = world(tmp_path)
    (tmp_path / "0 图.png").write_bytes(b"<html>")
    (tmp_path / "3 图.png").unlink()
    assert len(pictures.of_mistakes(index, predictions, 0.25)) == 3
    assert len(pictures.of_labels(index, count=100)) == 12


def test_labels_show_every_class(tmp_path):
    index, _ = world(tmp_path)
    rare = replace(index, classes=("cell", HOSTILE, "rare"), class_ids=(0, 1, 2))
    rare.labels[17] = 2
    for seed in range(5):
        assert pictures.of_labels(rare, count=1, seed=seed)[0].title == "8 图.png"


def test_batch_pictures_are_what_the_network_sees():
    shown = pictures.of_batch(make_batch(), ("a", "b"))
    assert [item.title for item in shown] == ["1 objects"] * 3
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[0].uri.partition(",")[2]))))
    assert pixels.shape == (shown[0].height, shown[0].width, 3)
    assert abs(int(pixels[-5, -5, 0]) - 200) < 6  # not normalised
    assert len(pictures.of_batch(make_batch(20), ("a", "b"), count=4)) == 4


def test_embedded_pictures_keep_their_limit():
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    for limit in (70_000, 9_000):
        found = pictures.embed(noise, "noise", limit=limit)
        data = base64.b64decode(found.uri.partition(",")[2])
        assert len(data) <= limit
        assert Image.open(io.BytesIO(data)).size == (found.width, found.height)
    assert max(found.width, found.height) < pictures.SIDE

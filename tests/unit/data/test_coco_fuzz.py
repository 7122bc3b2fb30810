"""Five hundred broken COCO files: whatever happens is an index or a DataError, and it happens soon."""

from __future__ import annotations

import json
import os
import random
import resource
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.data.coco_files import content, row, written
from tests.unit.data.pictures import noise, save
from torso.config import DataError
from torso.data.formats.coco import Coco
from torso.data.formats.coco_captions import CocoCaptions
from torso.data.formats.coco_keypoints import CocoKeypoints
from torso.data.formats.coco_panoptic import CocoPanoptic
from torso.data.index import Index
from torso.data.masks import rasterise

ODD: list[Any] = [
    None, True, -1, 0, 10**30, 1e308, -1e308, float("nan"), float("inf"), "", "a\0b", "\ud800", "../../x", [], {}, [[]],
    [None], [[1, 2, 3, 4, 5, 6]], {"counts": [3], "size": [1, 3]}, {"counts": "0" * 50, "size": [30, 40]}, "9" * 400,
]  # fmt: skip


def whole() -> dict[str, Any]:
    """Something of everything."""
    runs = {"counts": [31, 2, 28, 2, 1137], "size": [30, 40]}
    kinds = [{"id": n, "name": f"k{n}", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]} for n in (3, 7)]
    rows = [
        row(id=n, bbox=[n, n, 9, 9], keypoints=[1, 2, 2, 0, 0, 0], num_keypoints=1, caption="a cat", file_name="a.png")
        | {"segmentation": [[[n, 2, 9, 2, 9, 8]], runs, None][n % 3], "segments_info": [{"id": 1, "category_id": 3}]}
        for n in range(9)
    ]
    return content(annotations=rows, categories=kinds)


def odd(value: Any, draw: random.Random) -> Any:
    """The value with one thing somewhere inside replaced, dropped or doubled."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(ODD)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw.choice(keys)
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    action = draw.random()
    if action < 0.1:
        del changed[key]
    elif action < 0.2 and isinstance(changed, list):
        changed.append(changed[key])
    else:
        changed[key] = odd(changed[key], draw)
    return changed


def mutant(number: int) -> bytes:
    """Every second one is broken as a json value, the others as bytes."""
    draw = random.Random(number)
    if number % 2:
        said = whole()
        for _ in range(draw.randint(1, 4)):
            key = draw.choice(["annotations"] * 6 + ["images", "categories"])
            said[key] = odd(said[key], draw) if said[key] else said[key]
        said = odd(said, draw) if draw.random() < 0.1 else said
        return json.dumps(said).encode()
    raw = bytearray(json.dumps(whole(), **draw.choice([{}, {"indent": 1}, {"separators": (",", ":")}])).encode())
    for _ in range(draw.randint(1, 5)):
        at = draw.randrange(len(raw))
        action = draw.random()
        if action < 0.5:
            raw[at] = draw.choice([draw.randrange(256), *b'{}[]",:0-e\\'])
        elif action < 0.7:
            del raw[at : at + draw.choice((1, 5, 500))]
        elif action < 0.9:
            raw[at:at] = raw[at // 2 : at // 2 + draw.choice((1, 20, 300))]
        else:
            raw[at:at] = b"[" * draw.choice((2, 50_000))
    return bytes(raw)


def check(index: Index) -> None:
    """What was kept can be used."""
    assert len(index.boxes) == len(index.labels) == len(index.area) == index.offsets[-1]
    assert np.isfinite(index.boxes).all()
    assert np.isfinite(index.area).all()
    for at, mask in enumerate(index.masks or []):
        if mask is not None:
            width, height = index.sizes[np.searchsorted(index.offsets, at, side="right") - 1].tolist()
            if width * height < 10**6:
                assert rasterise(mask, (width, height)).shape == (height, width)


def tried(numbers: range, folder: Path) -> None:
    """What reads it says something, or raises DataError."""
    forms = (Coco, CocoKeypoints, CocoCaptions, CocoPanoptic)
    for number in numbers:
        raw = mutant(number)
        for form, name in zip(forms, ("instances", "person_keypoints", "captions", "panoptic"), strict=True):
            written(folder, raw, f"{name}_train.json")
            try:
                index = form.read(folder, "train", trust_sizes=number % 3 == 0)
                check(index)
                index.raise_if_fatal()
            except DataError:
                continue


@pytest.mark.part("format/coco_instances")
@pytest.mark.part("format/coco_keypoints")
@pytest.mark.part("format/coco_captions")
def test_500_broken_files_never_end_the_process(tmp_path: Path) -> None:
    save(noise(40, 30), tmp_path / "annotations" / "panoptic_train" / "a.png")
    child = os.fork()
    if child == 0:  # a signal would end the child, and be told by its status
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
            tried(range(500), tmp_path)
            code = 0
        except BaseException:
            (tmp_path / "said").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    said = (tmp_path / "said").read_text() if (tmp_path / "said").exists() else "nothing"
    assert os.WIFEXITED(status), f"ended by signal {os.WTERMSIG(status)}"
    assert os.WEXITSTATUS(status) == 0, said

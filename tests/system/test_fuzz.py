"""Mutated pictures and labels in a child process with limits: no signal, and no exception but ours.

A child that dies tells, by what it wrote last, which mutant it was at. `TORSO_SLOW=1` makes 500 mutants of each kind
instead of a few.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import resource
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.data_faults import faultset
from tests.data_faults.plan import Plan, pixels

COUNT = 500 if os.environ.get("TORSO_SLOW") else 70
NUMBERS = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\1",
    b"\xff\xd8",
    b"\xff\xd9",
]
WORDS = [
    b"nan",
    b"1e999",
    b"-1",
    b"99999999999999999999",
    b"null",
    b'"',
    b"<",
    b"</object>",
    b"&a;",
    b"{",
    b"]",
    b": ",
    b"\n- ",
]
WORDS += [
    b"\x80\xfe",
    b"\0",
    b"!!python/object:os.system",
    b"../..",
    b"{}",
    b"[]",
    b"0.5 0.5",
    b"\xe2\x80\xa8",
    b"*a",
    b"<!DOCTYPE",
]


def bases(form: str) -> list[bytes]:
    """Good files of a picture format, in its dialects."""
    colour = Image.fromarray(pixels(1))
    grey, table, cmyk = colour.convert("L"), colour.convert("P"), colour.convert("CMYK")
    alpha = colour.convert("RGBA")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [Image.fromarray(pixels(2))]}
    dialects: dict[str, list[tuple[Image.Image, dict]]] = {
        "JPEG": [(colour, {"exif": exif}), (colour, {"progressive": True}), (grey, {}), (cmyk, {})],
        "PNG": [(colour, {"exif": exif}), (table, {}), (deep, {}), (alpha, {}), (grey.convert("1"), {})],
        "WEBP": [(colour, {"exif": exif}), (alpha, {"lossless": True}), (colour, more)],
        "GIF": [(table, {}), (table, more)],
        "BMP": [(colour, {}), (table, {}), (grey.convert("1"), {})],
        "TIFF": [(colour, {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
        + [(deep, {}), (table, {}), (colour, more)],
        "PPM": [(colour, {}), (grey, {}), (grey.convert("1"), {})],
    }  # fmt: skip
    made = []
    for image, options in dialects[form]:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        made.append(buffer.getvalue())
    return made


def mutants(good: list[bytes], words: list[bytes], count: int) -> Iterator[bytes]:
    """Bytes changed, cut out, doubled, inserted, or the end cut off; headers more often than the rest."""
    rng = np.random.default_rng(20)
    for number in range(count):
        data = bytearray(good[number % len(good)])
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(0, min(len(data), 200) if rng.random() < 0.5 else len(data)) if data else 0)
            length = int(rng.integers(1, 40))
            word = words[int(rng.integers(len(words)))]
            match int(rng.integers(6)):
                case 0:
                    data[at : at + 1] = bytes([int(rng.integers(256))])
                case 1:
                    del data[at : at + length]
                case 2:
                    data[at:at] = data[at : at + length] * int(rng.integers(1, 4))
                case 3:
                    data[at : at + len(word)] = word
                case 4:
                    data[at:at] = word
                case _ if rng.random() < 0.4:
                    del data[at:]
        yield bytes(data)


def try_picture(form: str, count: int, _: Path) -> Iterator[Callable[[], object]]:
    """Each mutant through probe and decode, small and whole."""
    from torso.data.decode import DecodeError, decode, probe

    def attempt(data: bytes) -> object:
        read = []
        for way in (probe, decode, lambda source: decode(source, 4)):
            try:
                read.append(way(data) is not None)
            except DecodeError:
                read.append(False)
        return read[1]

    for data in mutants(bases(form), NUMBERS, count):
        yield lambda data=data: attempt(data)


LABELS = {
    "xml": ("voc", "Annotations/001.xml"),
    "list": ("voc", "ImageSets/Main/train.txt"),
    "json": ("coco", "annotations/instances_train.json"),
    "txt": ("yolo", "labels/train/001.txt"),
    "yaml": ("yolo", "data.yaml"),
}


def try_labels(kind: str, count: int, folder: Path) -> Iterator[Callable[[], object]]:
    """Each mutant in the place of a label file, and the whole examination."""
    from torso.config import DataError
    from torso.data.doctor import examine

    form, name = LABELS[kind]
    plan = Plan.clean(folder, form)
    plan.items = plan.of()[:4] + plan.of("val")[:2]
    plan.write()
    file = plan.root / name

    def attempt(data: bytes) -> object:
        file.write_bytes(data)
        try:
            diagnosis = examine(plan.root, format=form, near=False)
        except DataError:
            return False
        json.dumps(diagnosis.as_dict())
        assert all(isinstance(line, str) for line in diagnosis.lines())
        return not diagnosis.findings

    for data in mutants([file.read_bytes()], WORDS, count):
        yield lambda data=data: attempt(data)


def child(kind: str, count: int, folder: Path) -> None:
    """Runs in a process of its own; writes a line before each mutant, and what went wrong."""
    if kind in LABELS:
        importlib.import_module("cv2")  # takes more room for its libraries than the limit below leaves
        importlib.import_module("torso.data.doctor")
    with Path("/proc/self/statm").open() as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
    resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), used + (3 << 30)))
    warnings.simplefilter("ignore")
    fine = 0
    attempts = try_labels(kind, count, folder) if kind in LABELS else try_picture(kind, count, folder)
    for number, attempt in enumerate(attempts):
        say("at", str(number))
        try:
            fine += bool(attempt())
        except BaseException:  # nothing may come out but what the attempt expects
            say("wrong", json.dumps(traceback.format_exc()))
    say("done", str(fine))


def say(word: str, text: str) -> None:
    """A line that has left this process when the next thing happens."""
    sys.stdout.write(f"{word} {text}\n")
    sys.stdout.flush()


def check_survives(kind: str, folder: Path) -> tuple[int, list[str]]:
    """Runs a child; asserts that it reached its end, and gives what went through and what went wrong."""
    command = [sys.executable, "-m", "tests.system.test_fuzz", kind, str(COUNT), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    lines = done.stdout.splitlines()
    last = next((line for line in reversed(lines) if line.startswith("at")), "before the first")
    assert done.returncode == 0, f"{kind}: ended by {done.returncode} {last}: {done.stderr[-2000:]}"
    assert sum(line.startswith("at ") for line in lines) == COUNT
    wrong = [json.loads(line.partition(" ")[2]) for line in lines if line.startswith("wrong")]
    return int(lines[-1].split()[1]), wrong


@pytest.mark.part("transform/decode")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_mutated_picture_is_decoded_or_refused(form: str, tmp_path: Path) -> None:
    fine, wrong = check_survives(form, tmp_path)
    assert not wrong, wrong[0]
    assert 0 < fine < COUNT, "mutants should be neither all good nor all bad, or the test tries nothing"


@pytest.mark.part("format/doctor")
@pytest.mark.parametrize("kind", sorted(LABELS))
def test_a_mutated_label_file_ends_in_a_diagnosis_or_one_sentence(kind: str, tmp_path: Path) -> None:
    fine, wrong = check_survives(kind, tmp_path)
    assert not wrong, f"{len(wrong)} times: {wrong[0]}"
    assert fine < COUNT


@pytest.mark.part("format/doctor")
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_doctor_names_exactly_the_mutants_that_cannot_be_decoded(form: str, tmp_path: Path) -> None:
    from torso.data.decode import DecodeError, decode
    from torso.data.doctor import examine

    path, _ = faultset(tmp_path, "folder")
    bad = set()
    for number, data in enumerate(mutants(bases(form), NUMBERS, 60)):
        file = path / "train" / "cat" / f"mutant{number}.{form.lower()}"
        file.write_bytes(data)
        try:
            decode(data)
        except DecodeError:
            bad.add(f"train/cat/{file.name}")
        except Warning:  # what Pillow warns of is muted in the doctor
            file.unlink()
    named = {
        one.path
        for one in examine(path).findings
        if one.kind in ("damaged image", "not a picture", "picture too large")
    }
    assert 0 < len(bad) < 60
    assert named == bad


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

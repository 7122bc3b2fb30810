"""The shared set of odd and damaged files, and what an attacker reaches: the doctor ends, and says what is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.data_faults import faultset
from tests.data_faults.faults import bomb
from tests.data_faults.plan import encoded, pixels
from tests.system.test_doctor import digests
from torso.config import DataError
from torso.data.doctor import Diagnosis, examine
from torso.data.loader import Loader


def kinds(diagnosis: Diagnosis, name: str) -> set[str]:
    """What was found in one file."""
    return {one.kind for one in diagnosis.findings if Path(one.path).name == name}


@pytest.fixture(scope="module")
def robust(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to all pictures of the robustness set, as class folders."""
    place = tmp_path_factory.mktemp("robust") / "set"
    for folder in ("images", "images/names", "images/bad", "images/size"):
        to = place / "train" / folder.replace("/", "_")
        to.mkdir(parents=True)
        for path in (shared_data / "robustness" / folder).iterdir():
            if path.is_file() or path.suffix:
                (to / path.name).symlink_to(path)
    return place


@pytest.fixture(scope="module")
def diagnosis(robust: Path) -> Diagnosis:
    return examine(robust)


@pytest.fixture(scope="module")
def images(shared_data: Path) -> dict[str, dict[str, Any]]:
    """What the manifest says of each picture."""
    manifest = json.loads((shared_data / "robustness" / "manifest.json").read_text(encoding="utf-8"))
    return {Path(entry["file"]).name: entry for entry in manifest["images"]}


# Litter is not listed as a picture at all, and so not as a damaged one.
LITTER = {".DS_Store", "Thumbs.db", "._rgb.jpg", "notes.txt", "folder.jpg"}
BAD = {"damaged image", "not a picture", "picture too large"}


def test_what_should_not_load_is_named_and_what_should_is_not(
    diagnosis: Diagnosis, images: dict[str, dict[str, Any]]
) -> None:
    for name, entry in images.items():
        found = kinds(diagnosis, name) & BAD
        if entry["should_load"] is False and name not in LITTER:
            assert len(found) == 1, name
        elif entry["should_load"] is True:
            assert not found, name
    for name in LITTER:
        assert not kinds(diagnosis, name), name
    # corrupt_scan.jpg (should_load: null) decodes with visible damage; libjpeg has no complaint, so nobody can tell.
    assert kinds(diagnosis, "corrupt_scan.jpg") <= {"near duplicates"} | BAD


def test_oddities_are_told_by_their_kind(diagnosis: Diagnosis) -> None:
    expected = {
        "exif_1.jpg": set(),
        "exif_invalid.jpg": set(),
        **{f"exif_{number}.jpg": {"rotated by EXIF"} for number in range(2, 9)},
        "exif_6.png": {"rotated by EXIF"},
        "grey.jpg": {"grey"},
        "cmyk.jpg": {"CMYK"},
        "grey16.png": {"16 bits"},
        "rgb16.png": {"16 bits"},
        "grey16.tiff": {"16 bits"},
        "float32.tiff": {"floating point"},
        "multipage.tiff": {"animated image"},
        "palette.png": set(),
        "palette_trns.png": {"alpha"},
        "rgba.png": {"alpha"},
        "la.png": {"alpha"},
        "bilevel.png": {"grey"},
        "photo.pgm": {"grey"},
        "lossless.webp": {"alpha"},
        "animated.gif": {"animated image"},
        "animated.webp": {"animated image", "alpha"},
        "png_inside.jpg": {"wrong suffix"},
        "1x1.png": {"extreme shape"},
        "1x700.png": {"extreme shape", "one colour"},
        "2000x3.jpg": {"extreme shape", "one colour"},
        "uniform.jpg": {"one colour"},
        "bomb.png": {"picture too large"},
        "empty.jpg": {"not a picture"},
        "text.jpg": {"not a picture"},
        "zeros.png": {"not a picture"},
        "lfs_pointer.jpg": {"not a picture"},
        "header_only.jpg": {"damaged image"},
        "truncated_half.jpg": {"damaged image"},
        "truncated_tail.jpg": {"damaged image"},
        "truncated.png": {"damaged image"},
        "bad_crc.png": {"damaged image"},
        "trailing_garbage.jpg": set(),
    }
    alike = {"same picture twice", "near duplicates", "same picture, other labels"}
    for name, kinds_expected in expected.items():
        assert kinds(diagnosis, name) - alike == kinds_expected, name


def test_the_same_photograph_in_all_its_forms_is_found_again(diagnosis: Diagnosis) -> None:
    """One photograph is in the set in two dozen encodings, and each but the first is told to be one."""
    alike = {"same picture twice", "near duplicates"}
    names = {Path(one.path).name for one in diagnosis.findings if one.kind in alike}
    assert names >= {
        "UPPER.JPG",
        "progressive.jpg",
        "subsampling_444.jpg",
        "photo.webp",
        "rgb.png",
        "grey.png",
        "la.png",
    }


def test_the_loader_replaces_what_the_doctor_names(robust: Path, diagnosis: Diagnosis) -> None:
    index = diagnosis.splits["train"]
    loader = Loader(index, size=(32, 32), batch=4, shuffle=True, max_bad=0.2)
    assert sum(map(len, loader.epoch(0))) == len(index)
    named = {one.path for one in diagnosis.findings if one.kind in BAD}
    reported = {problem.path for problem in index.problems if problem.kind == "damaged image"}
    assert {path for path, _ in loader.skipped} == named - reported
    assert len(named) == 10


@pytest.mark.parametrize(("name", "fatal"), [("voc", True), ("coco.json", True), ("yolo", True)])
def test_odd_labels_end_in_a_diagnosis(shared_data: Path, name: str, fatal: bool) -> None:
    folder = shared_data / "robustness" / "annotations"
    before = digests(folder)
    diagnosis = examine(folder / name)
    assert diagnosis.fatal is fatal
    wrong = {(one.kind, one.path, one.line) for one in diagnosis.findings if one.severity == "error"}
    if name == "voc":
        assert ("malformed file", "010.xml", 1) in {(kind, Path(path).name, line) for kind, path, line in wrong}
    elif name == "yolo":
        assert {(path, line) for _, path, line in wrong} >= {(f"labels/{n}.txt", 1) for n in ("004", "007", "010")}
    else:
        assert any("category_id: 2 is not one of 1, 17, 90" in one.message for one in diagnosis.findings)
    assert digests(folder) == before


# ---------------------------------------------------------------- what must not cost, run or leave


def run(code: str, *arguments: str | Path) -> dict[str, Any]:
    """What a fresh Python prints as JSON."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    """48 kB that want 400 million pixels, eight times: the check ends, and memory grows by less than 300 MB."""
    for number in range(24):
        place = tmp_path / "train" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(encoded(pixels(number)))
        if number % 3 == 0:
            (place / f"bomb{number}.png").write_bytes(bomb())
    code = """
    import json, resource, sys
    from torso.data.doctor import examine, page
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    import cv2, simplejpeg, PIL.Image
    before = peak()
    diagnosis = examine(sys.argv[1])
    bombs = sum(one.kind == "picture too large" for one in diagnosis.findings)
    print(json.dumps({"grown": (peak() - before) / 1024, "bombs": bombs, "read": len(diagnosis.scan)}))
    """
    result = run(code, tmp_path)
    assert (result["bombs"], result["read"]) == (8, 24)
    assert result["grown"] < 300


def test_memory_stays_where_it_is_with_more_pictures(tmp_path: Path) -> None:
    """Pixels of one picture are gone when the next comes: 80 pictures of 6 MB decoded grow it by far less than that."""
    data = encoded(pixels(1, (1600, 1200)))
    for number in range(80):
        place = tmp_path / "train" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(data + bytes(number))
    code = """
    import json, resource, sys
    from torso.data.doctor import examine
    import cv2, simplejpeg
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = peak()
    diagnosis = examine(sys.argv[1], near=False)
    print(json.dumps({"grown": (peak() - before) / 1024, "read": len(diagnosis.scan)}))
    """
    result = run(code, tmp_path)
    assert result["read"] == 80
    assert result["grown"] < 200  # all of them at once would be 460


def laughs(entity: str) -> str:
    """The billion laughs, the quadratic bomb, or a file of the system, as a VOC annotation."""
    if entity == "laughs":
        lines = ['<!ENTITY a0 "ha">'] + [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)]
        return f"<!DOCTYPE x [{''.join(lines)}]><annotation><object><name>&a9;</name></object></annotation>"
    if entity == "quadratic":
        return f'<!DOCTYPE x [<!ENTITY a "{"a" * 50_000}">]><annotation>{"&a;" * 50_000}</annotation>'
    return '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><object><name>&a;</name></object></annotation>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("entity", ["laughs", "quadratic", "external"])
def test_xml_bombs_are_refused_before_they_are_parsed(entity: str, encoding: str, tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "voc")
    (path / "Annotations" / "001.xml").write_bytes(laughs(entity).encode(encoding))
    before = digests(path)
    (found,) = examine(path).findings
    assert (found.kind, found.path, found.severity) == ("malformed file", "Annotations/001.xml", "error")
    # The reason is ours: the parser, which has limits of its own, has not even seen it.
    assert ("DOCTYPE" if encoding == "utf-8" else "UTF-8") in found.message
    assert digests(path) == before


PAYLOADS = [
    "names: !!python/object/apply:os.system ['touch MARK']",
    "names: !!python/object/new:subprocess.Popen [['touch', 'MARK']]",
    "download: |\n  import os; os.system('touch MARK')\nnames: [cat, dog, owl]",
    "download: bash touch MARK\nnames: [cat, dog, owl]",
    "names: ${oc.env:HOME}\n_target_: os.system",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_data_yaml_runs_nothing(payload: str, tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "yolo")
    mark = tmp_path / "ran"
    text = "train: images/train\nval: images/val\n" + payload.replace("MARK", str(mark))
    (path / "data.yaml").write_text(text, encoding="utf-8")
    diagnosis = examine(path)
    assert not mark.exists()
    kinds_found = {one.kind for one in diagnosis.findings}
    assert kinds_found & {"ignored", "split that cannot be read"}


@pytest.mark.parametrize("place", ["../../etc", "/etc", "images/../../../etc", "images/train/../../../other"])
def test_a_data_yaml_cannot_point_out_of_its_folder(place: str, tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "yolo")
    (tmp_path / "other").mkdir()
    text = (path / "data.yaml").read_text(encoding="utf-8").replace("train: images/train", f"train: {place}")
    (path / "data.yaml").write_text(text, encoding="utf-8")
    found = [one for one in examine(path).findings if one.severity == "error"]
    assert found
    assert "leaves the data set's folder" in found[0].message


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"images":' + "[" * 100_000])
def test_deep_json_is_refused(text: str, tmp_path: Path) -> None:
    path, _ = faultset(tmp_path, "coco")
    (path / "annotations" / "instances_train.json").write_text(text, encoding="utf-8")
    found = [one for one in examine(path).findings if one.severity == "error"]
    assert [(one.kind, one.split) for one in found][:1] == [("split that cannot be read", "train")]
    assert "instances_train.json" in found[0].message


def test_the_same_from_any_folder_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = faultset(tmp_path, "yolo", ["outside", "almost"])
    before = digests(tmp_path)
    said = []
    for place in (tmp_path, path, path / "images" / "train"):
        monkeypatch.chdir(place)
        diagnosis = examine(os.path.relpath(path))
        said.append([(one.kind, one.path, one.line, one.message) for one in diagnosis.findings])
    assert said[0] == said[1] == said[2]
    assert len(said[0]) == 7
    assert digests(tmp_path) == before


def test_a_folder_of_something_else_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("nothing here")
    with pytest.raises(DataError, match=r"found notes\.md"):
        examine(tmp_path)

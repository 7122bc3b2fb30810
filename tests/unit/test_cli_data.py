"""The verbs of ``torso data``: what they print, where they end, and that they never touch the data."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torso import cli
from torso.cli.data import FORMATS, MADE
from torso.data import digits, formats, open_index
from torso.data.split import read_split


def state(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return digits.make(tmp_path / "data", format="coco", count=20, size=96, seed=1)


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert cli.main(["data", *map(str, words)]) == code
    return capsys.readouterr().out


def test_the_formats_it_offers_are_those_there_are() -> None:
    assert {*formats.FORMATS} == {*FORMATS}, "write the names of formats into torso/cli/data.py"
    assert {*MADE} <= {*FORMATS}


@pytest.mark.parametrize("verb", ["convert", "split", "stats", "check"])
def test_a_format_that_does_not_exist_is_a_wrong_command(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["data", verb, "a", *(["b", "--to", "voc"] if verb == "convert" else []), "--format", "vok"])
    assert left.value.code == 2
    assert "invalid choice: 'vok'" in capsys.readouterr().err


@pytest.mark.part("format/convert")
@pytest.mark.parametrize("to", ["voc", "yolo", "csv"])
def test_convert_prints_what_is_lost_and_changes_nothing(
    made: Path, to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(made)
    said = run(capsys, "convert", made, tmp_path / to, "--to", to)
    assert said.startswith(f"{tmp_path / to}: {to}, from coco\ntrain: 16 pictures, ")
    assert f"{to} cannot hold these `image ids`: 20 of 20 pictures get another\n" in said
    assert state(made) == before
    assert len(open_index(tmp_path / to, "val")) == 4


@pytest.mark.part("format/convert")
def test_convert_as_json_is_the_report_kept_beside_the_data(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = json.loads(run(capsys, "convert", made, tmp_path / "v", "--to", "voc", "--split", "val", "--link", "--json"))
    assert said == json.loads((tmp_path / "v" / "conversion.json").read_text())
    assert (said["format"], said["to"], list(said["splits"])) == ("coco", "voc", ["val"])
    picture = next((tmp_path / "v" / "JPEGImages").iterdir())
    assert picture.samefile(made / "val" / picture.name)


def test_convert_of_wrong_labels_writes_the_rest_and_ends_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = digits.make(tmp_path / "data", format="yolo", count=10, size=64)
    label = next((folder / "labels" / "train").glob("*.txt"))
    rows = len(label.read_text().splitlines())
    label.write_text(label.read_text() + "99 0.5 0.5 0.1 0.1\n")
    before = state(folder)
    assert cli.main(["data", "convert", str(folder), str(tmp_path / "voc"), "--to", "voc"]) == 3
    said = capsys.readouterr()
    assert "1 error in the labels; what they say is missing in" in said.err
    assert f"labels/train/{label.name}:{rows + 1}" in said.err
    assert "1 problem of the source" in said.out
    assert len(open_index(tmp_path / "voc", "train")) == 8
    assert state(folder) == before


@pytest.mark.part("format/split")
def test_split_writes_a_file_and_shows_the_classes(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(made)
    file = tmp_path / "splits.json"
    said = run(capsys, "split", made, "--val", "0.25", "--test", "0.1", "--out", file, "--seed", 3)
    assert said.startswith("train 13  val 5  test 2 pictures\nclass  train  val  test\n0 ")
    assert f"file     {file}\n" in said
    assert {name: len(names) for name, names in read_split(file).items()} == {"train": 13, "val": 5, "test": 2}
    assert run(capsys, "split", made, "--out", file, code=3) == ""  # it exists
    lists = json.loads(run(capsys, "split", made, "--out", tmp_path / "lists", "--by", "random", "--json"))
    assert lists["fractions"] == {"train": 0.8, "val": 0.2}
    assert sorted(path.name for path in (tmp_path / "lists").iterdir()) == ["train.txt", "val.txt"]
    assert state(made) == before


@pytest.mark.part("format/split")
def test_split_keeps_groups_and_near_duplicates_together(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = run(capsys, "split", made, "--by", "group", "--group", r"(\d)\.", "--out", tmp_path / "g.json")
    assert group.startswith("train 16  val 4")
    last = [{Path(name).stem[-1] for name in names} for names in read_split(tmp_path / "g.json").values()]
    assert not last[0] & last[1]
    # A copy of a picture, saved a little worse, must not end up on the other side.
    folder = tmp_path / "pictures"
    random = np.random.default_rng(0)
    for number in range(8):
        small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((160, 120), Image.BICUBIC)
        for name, quality in ((f"{number}", 95), (f"{number}_again", 60)):
            path = folder / f"c{number % 2}" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            small.save(path, quality=quality)
    for seed in range(4):
        file = tmp_path / f"n{seed}.json"
        run(capsys, "split", folder, "--near", "--val", "0.25", "--out", file, "--seed", seed)
        kinds = [{Path(name).stem[0] for name in names} for names in read_split(file).values()]
        assert not kinds[0] & kinds[1]
        assert len(read_split(file)["val"]) == 4


@pytest.mark.part("transform/estimate_mean_std")
def test_stats_prints_tables_and_draws(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(made)
    plot = tmp_path / "new" / "plot.png"
    said = run(capsys, "stats", made, "--anchors", 3, "--size", 96, "--sample", 5, "--plot", plot)
    assert said.startswith(f"{made}: 20 pictures, ")
    for words in ("class  objects  pictures  share", "objects a picture", "box aspect_ratio", "boxes    small "):
        assert words in said
    assert "pixels   mean [" in said
    assert f"of {5 * 96 * 96} in 5 pictures" in said
    assert "best possible recall 1" in said
    with Image.open(plot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (520, 1500, 3)
    # Each of the three panels shows something: bars, points, a map.
    for left in (0, 500, 1000):
        assert (pixels[:, left : left + 500].std(axis=2) > 10).sum() > 200
    assert state(made) == before


def test_stats_as_json_of_one_split(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "stats", made, "--split", "val", "--no-pixels", "--json"))
    assert (found["pictures"], found["split"]) == (4, "val")
    assert "pixels" not in found
    assert "anchors" not in found


def test_stats_of_pictures_with_one_class_are_drawn_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = digits.make(tmp_path / "data $x^{ 数", format="folder", count=20, size=96)
    said = run(capsys, "stats", folder, "--plot", tmp_path / "plot.png")
    assert "class  pictures  share" in said
    assert "box" not in said.replace("boxes and", "")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_check_writes_a_page_and_a_repaired_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = digits.make(tmp_path / "data", format="yolo", count=10, size=64)
    label = next((folder / "labels" / "train").glob("*.txt"))
    whole = label.read_text()
    label.write_text(whole + "1 0.5 0.5 0 0.1\n")
    before = state(folder)
    asked = ("check", folder, "--html", tmp_path / "page.html", "--fix", tmp_path / "fixed", "--no-near")
    said = run(capsys, *asked, code=cli.main(["data", "check", str(folder), "--no-near"]))
    assert f"page     {tmp_path / 'page.html'}\n" in said
    assert f"repaired {tmp_path / 'fixed'}: 1 change\n" in said
    assert "degenerate box" in (tmp_path / "page.html").read_text()
    assert len((tmp_path / "fixed" / "labels" / "train" / label.name).read_text().splitlines()) == len(
        whole.splitlines()
    )
    assert state(folder) == before
    found = json.loads(run(capsys, "check", tmp_path / "fixed", "--json", "--split", "train"))
    assert found["fatal"] is False
    assert list(found["splits"]) == ["train"]


def test_nobody_watching_gets_no_counter(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(made)]) == 0
    assert capsys.readouterr().err == ""


def test_who_watches_sees_how_far_it_is(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli.main(["data", "check", str(made)]) == 0
    assert capsys.readouterr().err.endswith("\r20 of 20 pictures\n")

"""Tables: headers in other words, delimiters, coordinates that count from 0 or 1, and every bad row by its line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.data.pictures import noise, save, small_index
from torso import testing
from torso.config import DataError
from torso.data import open_index
from torso.data.formats.csv_table import Csv
from torso.data.formats.opening import recognise

HEAD = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def made(folder: Path, text: str, name: str = "train.csv") -> Path:
    for number, picture in enumerate("ab"):
        save(noise(40, 30, number), folder / "images" / f"{picture}.png")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode())
    return folder


@pytest.mark.part("format/csv")
@pytest.mark.parametrize(("split", "count"), [("train", 131), ("test", 35)])
def test_the_tables_of_raccoon_are_its_xml(split: str, count: int, shared_data: Path) -> None:
    folder = shared_data / "raccoon"
    table = open_index(folder, split, format="csv")
    xml = open_index(folder, split, format="voc")
    testing.check_dataset(table)
    assert len(table) == len(xml) == count
    at = {Path(path).name: row for row, path in enumerate(xml.paths)}
    for row, path in enumerate(table.paths):
        ours, theirs = table.boxes[table.objects(row)], xml.boxes[xml.objects(at[Path(path).name])]
        assert sorted(ours.tolist()) == sorted(theirs.tolist())
    assert table.classes == ("raccoon",)
    file = folder / "data" / "train_labels.csv"
    assert len(open_index(file, "train")) == 131  # the table itself, its pictures in ../images
    assert recognise(folder) == "voc"


@pytest.mark.part("format/csv")
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_tables_of_trashnet_are_its_folders(split: str, shared_data: Path) -> None:
    folder = shared_data / "trashnet"
    table, folders = open_index(folder, split, format="csv"), open_index(folder, split, format="folder")
    assert table.classes == folders.classes
    ours = dict(zip(table.paths, table.image_labels.tolist(), strict=True))
    assert ours == dict(zip(folders.paths, folders.image_labels.tolist(), strict=True))
    assert not table.problems
    assert recognise(folder) == "folder"  # names say more than numbers


@pytest.mark.part("format/csv")
@pytest.mark.parametrize(
    ("text", "box"),
    [
        (HEAD + "a.png,40,30,cat,3,4,20,25", [2, 3, 20, 25]),  # VOC's numbers
        ("Image;X1;Y1;X2;Y2;Label\na.png;3;4;20;25;cat", [3, 4, 20, 25]),
        ("image_path\tx_min\ty_min\tx_max\ty_max\tlabel\nimages/a.png\t3.5\t4\t20\t25\tcat", [3.5, 4, 20, 25]),
        ('\ufefffile,x,y,w,h,category\r\n"a.png",3,4,17,21,cat\r\n', [3, 4, 20, 25]),
        ("label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
         "cat,3,4,17,21,a.png,40,30", [3, 4, 20, 25]),
        ("path,left,top,right,bottom,class\nimages\\a.png,3,4,20,25,cat", [3, 4, 20, 25]),
        ("path,x,y,width,height,class\na.png,3,4,17,21,cat", [3, 4, 20, 25]),
    ],
)  # fmt: skip
def test_headers_and_delimiters_in_other_words(text: str, box: list[float], tmp_path: Path) -> None:
    folder = made(tmp_path, text)
    assert recognise(folder) == "csv"
    index = open_index(folder)
    assert index.boxes.tolist() == [box]
    assert index.classes == ("cat",)
    assert not index.problems


@pytest.mark.part("format/csv")
def test_where_counting_starts_is_an_option_and_a_doubt_is_told(tmp_path: Path) -> None:
    folder = made(tmp_path, HEAD + "a.png,40,30,cat,0,4,20,25\n")
    index = open_index(folder)
    assert index.boxes.tolist() == [[0, 3, 20, 25]]
    (doubt,) = [problem for problem in index.problems if problem.kind == "counted from 0"]
    assert (
        "boxes that begin at 0 (1 of them), which VOC's numbers never do; if this table counts from 0" in doubt.message
    )
    index = open_index(folder, options={"count_from": 0})
    assert (index.boxes.tolist(), index.problems) == ([[0, 4, 20, 25]], ())
    folder = made(tmp_path, "image,x1,y1,x2,y2,label\na.png,3,4,20,25,cat\n")
    assert open_index(folder, options={"count_from": 1}).boxes.tolist() == [[2, 3, 20, 25]]
    with pytest.raises(DataError, match=r"data\.options\.count_from: expected 0 or 1, came 2"):
        open_index(folder, options={"count_from": 2})
    folder = made(tmp_path, "image,x1,y1,x2,y2,label\na.png,.3,.4,.9,1,cat\n")
    with pytest.raises(DataError, match="no coordinate is above 1: these look like fractions of the picture"):
        open_index(folder).raise_if_fatal()


@pytest.mark.part("format/csv")
@pytest.mark.parametrize(
    ("row", "kind", "says"),
    [
        ("a.png,40,30,cat,3,4,20", "malformed row", "expected a class and 4 numbers of a box"),
        ("a.png,40,30,cat,3,4,20,x", "malformed row", "expected a class and 4 numbers of a box, came a.png, 40"),
        ("a.png,40,30,cat,3,4,,25", "malformed row", "expected a class and 4 numbers"),
        ("a.png,40,30,cat,1_0,4,20,25", "malformed row", "expected a class and 4 numbers"),
        ("a.png,40,30,,3,4,20,25", "unknown class", "class '' is not one of cat, dog"),
        ("a.png,40,30,cat,nan,4,20,25", "not a number", "expected finite coordinates"),
        ("a.png,40,30,cat,20,4,3,25", "degenerate box", "has no area"),
        ("a.png,40,30,cat,30,4,50,25", "box clipped", "was clipped"),
        (",40,30,cat,3,4,20,25", "malformed row", "expected the name of a picture in column 1"),
        ("../../x.png,40,30,cat,3,4,20,25", "malformed row", "'../../x.png' leaves the data set's folder"),
        ("/etc/passwd,40,30,cat,3,4,20,25", "malformed row", "'/etc/passwd' leaves the data set's folder"),
    ],
)
def test_a_wrong_row_is_named_by_its_line_and_the_others_stay(row: str, kind: str, says: str, tmp_path: Path) -> None:
    index = open_index(made(tmp_path, f"{HEAD}a.png,40,30,dog,1,1,9,9\n\n{row}\nb.png,40,30,cat,1,1,9,9\n"))
    (problem,) = index.problems
    assert (problem.kind, problem.path, problem.line) == (kind, "train.csv", 4)
    assert says in problem.message
    assert len(index.labels) == (3 if kind == "box clipped" else 2)


def test_missing_pictures_wrong_sizes_and_repeated_rows_are_named(tmp_path: Path) -> None:
    rows = "a.png,41,30,cat,1,1,9,9\na.png,40,30,cat,1,1,9,9\nb.png,40,30,,,,,\ngone.png,40,30,cat,1,1,9,9\n"
    index = open_index(made(tmp_path, HEAD + rows))
    assert [len(index), index.labels.tolist(), index.offsets.tolist()] == [2, [0], [0, 1, 1]]
    found = [(problem.kind, problem.line) for problem in index.problems]
    assert found == [("wrong size", None), ("duplicate row", 3), ("missing image", None)]


def test_flags_are_read_and_written(tmp_path: Path) -> None:
    head = f"{HEAD.strip()},difficult,truncated,occluded,iscrowd\n"
    text = f"{head}a.png,40,30,cat,1,1,9,9,1,0,1,0\na.png,,,cat,5,5,9,9,0,1,0,1\n"
    index = open_index(made(tmp_path, text))
    Csv.write(index, tmp_path / "out", "train")
    for one in (index, open_index(tmp_path / "out")):
        assert one.difficult.tolist() == [True, False]
        assert one.truncated.tolist() == [False, True]
        assert one.crowd.tolist() == [False, True]
        assert one.occluded is not None
        assert one.occluded.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty; expected a header and rows"),
        ("\n\n,,\n", "is empty; expected a header and rows"),
        ("a,b,c\n1,2,3\n", r"train\.csv:1: expected a header such as path,label"),
        ("0,1,1,1,1\n", "expected a header"),
        ("path,label\n" + '"' + "x" * 140_000, "is not CSV"),
    ],
)
def test_a_table_without_sense_is_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        open_index(made(tmp_path, text), format="csv")
    (tmp_path / "train.csv").write_bytes(b"path,label\n\xff\xfe,cat")
    with pytest.raises(DataError, match=r"train\.csv: is not UTF-8 text"):
        open_index(tmp_path, format="csv")


def test_class_numbers_are_lines_of_a_list_or_names_in_their_own_order(tmp_path: Path) -> None:
    rows = "path,label\n" + "".join(f"images/{n}.png,{n}\n" for n in (10, 9, 2))
    for number in (2, 9, 10):
        save(noise(8, 8), tmp_path / "images" / f"{number}.png")
    folder = made(tmp_path, rows)
    assert open_index(folder).classes == ("2", "9", "10")
    (folder / "classes.txt").write_text("\n".join(f"name{n}" for n in range(11)))
    index = open_index(folder)
    assert [index.classes[label] for label in index.image_labels] == ["name10", "name9", "name2"]
    made(tmp_path, "path,label\nimages/9.png,name4\nimages/9.png,3\nimages/2.png,12\n", "val.csv")
    index = open_index(folder, "val", classes=index.classes)
    assert [index.classes[label] for label in index.image_labels] == ["name4"]
    assert [(problem.kind, problem.line) for problem in index.problems] == [("unknown class", 3), ("unknown class", 4)]


def test_splits_are_the_names_of_the_tables(tmp_path: Path) -> None:
    for name in ("data/train_labels.csv", "data/valid-labels.csv", "data/TEST.csv"):
        made(tmp_path, HEAD + "a.png,40,30,cat,1,1,9,9\n", name)
    assert Csv.splits(tmp_path) == ["test", "train", "val"]
    assert len(open_index(tmp_path, "valid")) == len(open_index(tmp_path, "test")) == 1
    with pytest.raises(DataError, match="no split 'all'; it has test, train, val"):
        open_index(tmp_path, "all", format="csv")


def test_one_table_of_another_name_is_split_by_pictures(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,8,8,cat,1,1,{n},5\n{n}.png,8,8,dog,1,1,5,{n}\n" for n in range(2, 12))
    for number in range(2, 12):
        save(noise(12, 12, number), tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text(HEAD + rows)
    assert Csv.splits(tmp_path) == ["train", "val", "all"]
    train, val, whole = (open_index(tmp_path, split) for split in ("train", "val", "all"))
    assert [len(train), len(val), len(whole)] == [8, 2, 10]
    assert not set(train.paths) & set(val.paths)
    assert val.classes == ("cat", "dog")


@pytest.mark.part("format/csv")
def test_what_is_written_comes_back_exactly(tmp_path: Path) -> None:
    index = small_index(tmp_path / "source")
    Csv.write(index, tmp_path / "out", "train")
    again = open_index(tmp_path / "out")
    assert again.classes == index.classes
    assert np.abs(again.boxes - index.boxes).max() < 1e-12
    for name in ("labels", "offsets", "difficult", "sizes"):
        assert np.array_equal(getattr(again, name), getattr(index, name)), name
    one = replace(index, task="classify", image_labels=np.arange(10) % 3)
    Csv.write(one, tmp_path / "classes", "val")
    again = open_index(tmp_path / "classes", "val")
    assert again.image_labels.tolist() == one.image_labels.tolist()
    assert again.file(3).read_bytes() == index.file(3).read_bytes()


@settings(max_examples=40, deadline=None)
@given(
    sides=st.lists(st.floats(0, 4000), min_size=4, max_size=4).filter(
        lambda s: min(abs(s[0] - s[2]), abs(s[1] - s[3])) > 1e-6
    )
)
def test_any_box_comes_back_within_a_millionth(sides: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    from torso.data.formats.csv_table import _rows

    index = small_index(tmp_path_factory.mktemp("csv"), count=2)
    (x0, x1), (y0, y1) = sorted(sides[0::2]), sorted(sides[1::2])
    index = replace(index, boxes=np.array([[x0, y0, x1, y1]]))
    (row,) = _rows(index, 1, "a.png", ())
    left, top, right, bottom = (float(str(value)) for value in row[4:8])
    assert np.abs(np.array([left - 1, top - 1, right, bottom]) - index.boxes[0]).max() <= 1e-6

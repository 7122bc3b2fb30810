from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit

from tests.unit.data.pictures import small_index
from torso.config import DataError
from torso.data import Index, open_index
from torso.data.groups import group_of
from torso.data.split import pictures_of, read_split, select_split, split, whole
from torso.data.stratify import by_classes, by_one_class, sizes_of, together

TWO = {"train": 0.8, "val": 0.2}


def index_of(shown: list[list[int]], classes: int, names: list[str] | None = None) -> Index:
    """Pictures (that no file has) with objects of these classes."""
    count = sum(map(len, shown))
    flags = np.zeros(count, np.bool_)
    return Index(
        task="detect",
        root=Path("/nowhere"),
        paths=names or [f"{number:04d}.jpg" for number in range(len(shown))],
        sizes=np.full((len(shown), 2), 100, np.int32),
        image_ids=list(range(len(shown))),
        boxes=np.tile([[0.0, 0, 10, 10]], (count, 1)),
        labels=np.array([label for labels in shown for label in labels], np.int64),
        offsets=np.cumsum([0, *map(len, shown)]),
        crowd=flags,
        difficult=flags,
        truncated=flags,
        area=np.full(count, 100.0),
        classes=tuple(f"c{label}" for label in range(classes)),
        class_ids=tuple(range(classes)),
    )


def of_classes(labels: list[int], classes: int) -> Index:
    empty = index_of([[] for _ in labels], classes)
    return replace(empty, task="classify", image_labels=np.array(labels))


FRACTIONS = st.lists(st.integers(1, 9), min_size=2, max_size=4).map(lambda parts: [part / sum(parts) for part in parts])


@pytest.mark.part("format/split")
@given(st.integers(30, 300), FRACTIONS)
def test_splits_are_as_large_as_those_of_torch(count: int, fractions: list[float]) -> None:
    assume(sum(fractions) <= 1)  # torch takes a sum that is rounded upwards for lengths
    theirs = [len(part) for part in torch.utils.data.random_split(range(count), fractions)]
    named = {str(number): fraction for number, fraction in enumerate(fractions)}
    assert sizes_of(count, named) == theirs
    ours = split(index_of([[0]] * count, 1), named, by="random", seed=1)
    assert [len(names) for names in ours.names.values()] == theirs
    assert sorted(name for names in ours.names.values() for name in names) == [f"{n:04d}.jpg" for n in range(count)]


@pytest.mark.part("format/split")
@given(st.lists(st.integers(2, 40), min_size=2, max_size=8), st.integers(0, 99))
def test_each_class_is_shared_out_as_scikit_learn_does(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    share = 0.25
    sizes = [len(labels) - int(np.ceil(share * len(labels))), int(np.ceil(share * len(labels)))]
    assume(sizes[1] >= len(counts))  # scikit-learn wants a picture of every class in the test set
    splitter = StratifiedShuffleSplit(1, test_size=sizes[1], train_size=sizes[0], random_state=seed)
    train, val = next(splitter.split(labels, labels))
    parts = by_one_class(labels, sizes, np.random.default_rng(seed))
    for part, theirs in enumerate((train, val)):
        ours = np.bincount(labels[parts == part], minlength=len(counts))
        expected = np.array(counts) * sizes[part] / len(labels)
        assert (np.abs(ours - expected) < 1).all()
        assert np.abs(ours - np.bincount(labels[theirs], minlength=len(counts))).max() <= 1
        assert ours.sum() == sizes[part]


@given(st.lists(st.integers(0, 5), min_size=20, max_size=60), st.integers(0, 9))
def test_three_splits_of_one_class_a_picture(labels: list[int], seed: int) -> None:
    made = split(of_classes(labels, 6), {"train": 0.7, "val": 0.2, "test": 0.1}, seed=seed)
    assert [len(names) for names in made.names.values()] == sizes_of(len(labels), made.fractions)
    for label, total in Counter(labels).items():
        for name, fraction in made.fractions.items():
            assert abs(made.counts[f"c{label}"][name] - fraction * total) < 2


def test_a_class_too_small_to_share_goes_where_it_can_be_learned() -> None:
    for seed in range(20):
        made = split(of_classes([0] * 40 + [1, 2, 3], 4), TWO, seed=seed)
        assert [made.counts[name]["val"] for name in ("c1", "c2", "c3")] == [0, 0, 0]
        shown = [[0]] * 40 + [[0, 1], [2], [0, 3]]
        made = split(index_of(shown, 4), TWO, seed=seed)
        assert [made.counts[name]["val"] for name in ("c1", "c2", "c3")] == [0, 0, 0]


def off(counts: dict[str, dict[str, int]], fractions: dict[str, float]) -> float:
    """How far the share of a class is from the fraction wanted, at worst."""
    return max(
        abs(own[name] / sum(own.values()) - fraction)
        for own in counts.values()
        for name, fraction in fractions.items()
        if sum(own.values())
    )


def crowded(seed: int, count: int = 200, classes: int = 5) -> list[list[int]]:
    """Pictures with some common and some rare classes, few or many objects each."""
    random = np.random.default_rng(seed)
    chances = 0.5 ** np.arange(classes)
    return [random.choice(classes, random.integers(0, 25), p=chances / chances.sum()).tolist() for _ in range(count)]


@pytest.mark.part("format/split")
@pytest.mark.parametrize("fractions", [TWO, {"train": 0.7, "val": 0.2, "test": 0.1}])
def test_several_classes_a_picture_keep_their_shares(fractions: dict[str, float]) -> None:
    ours, chance = [], []
    for seed in range(8):
        index = index_of(crowded(seed), 5)
        made = split(index, fractions, seed=seed)
        ours.append(off(made.counts, fractions))
        chance.append(off(split(index, fractions, by="random", seed=seed).counts, fractions))
        assert [len(names) for names in made.names.values()] == sizes_of(200, fractions)
    assert max(ours) < 0.02
    assert np.mean(ours) * 5 < np.mean(chance)


@pytest.mark.parametrize("seed", range(8))
def test_of_all_ways_to_split_a_few_pictures_it_takes_a_good_one(seed: int) -> None:
    shown = crowded(seed, count=10, classes=3)
    ways = []
    for val in combinations(range(10), 2):
        held = Counter(label for row in val for label in shown[row])
        total = Counter(label for labels in shown for label in labels)
        ways.append(max(abs(held[label] / total[label] - 0.2) for label in total))
    ours = off(split(index_of(shown, 3), TWO, seed=seed).counts, TWO)
    assert min(ways) <= ours + 1e-9
    assert ours <= np.quantile(ways, 0.25)


def test_crowded_pictures_do_not_all_go_to_one_split() -> None:
    shown = [[0] * count for count in range(1, 101)]
    made = split(index_of(shown, 1), TWO)
    assert abs(made.counts["c0"]["val"] / 5050 - 0.2) < 0.01
    most = {f"{number:04d}.jpg" for number in range(80, 100)}
    assert 1 <= len(most & set(made.names["val"])) <= 8


GROUPED = st.lists(st.tuples(st.integers(0, 12), st.lists(st.integers(0, 2), max_size=4)), min_size=16, max_size=60)


@pytest.mark.part("format/split")
@given(GROUPED, st.sampled_from(["class", "random", "group"]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_group_is_never_divided(rows: list[tuple[int, list[int]]], by: str, seed: int) -> None:
    names = [f"patient{group}/{number}.jpg" for number, (group, _) in enumerate(rows)]
    index = index_of([labels for _, labels in rows], 3, names)
    assume(len({group for group, _ in rows}) >= 4)
    assume(by != "class" or len(index.labels))
    made = split(index, {"train": 0.6, "val": 0.4}, by=by, group="folder", seed=seed)
    train, val = ({name.partition("/")[0] for name in names} for names in made.names.values())
    assert not train & val
    assert train
    assert val
    assert sum(map(len, made.names.values())) == len(rows)
    # Not further from the wanted size than the largest group can put it.
    largest = max(Counter(group for group, _ in rows).values())
    assert abs(len(made.names["val"]) - 0.4 * len(rows)) <= largest + 1


def test_groups_of_equal_size_are_split_like_those_of_scikit_learn() -> None:
    groups = np.repeat(np.arange(20), 5)
    names = [f"{group:02d}_{number:03d}.jpg" for number, group in enumerate(groups)]
    made = split(index_of([[0]] * 100, 1, names), TWO, by="group", group=r"^(\d+)_")
    _, val = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(groups, groups=groups))
    assert len(made.names["val"]) == len(val) == 20
    assert len({name[:2] for name in made.names["val"]}) == len(set(groups[val])) == 4


def test_near_duplicates_stay_together_with_their_groups() -> None:
    # a/0 looks like b/1, so folders a and b become one group.
    names = ["a/0", "b/1", "a/2", "b/3", *(f"c{number}/0" for number in range(16))]
    alike = [0, 0, *range(2, 20)]
    for seed in range(10):
        made = split(index_of([[0]] * 20, 1, names), TWO, by="random", group="folder", groups=alike, seed=seed)
        assert len({name in made.names["val"] for name in names[:4]}) == 1
    assert together(["x", "y", "x", "z"], [1, 2, 3, 2]).tolist() == [0, 1, 0, 1]
    with pytest.raises(DataError, match="expected a number for each of 20 pictures, came 1"):
        split(index_of([[0]] * 20, 1), groups=[1])


def test_the_same_seed_and_pictures_give_the_same_split_in_whatever_order_they_are_listed() -> None:
    index = index_of(crowded(0), 5)
    for by in ("class", "random"):
        one = split(index, seed=3, by=by)
        assert one == split(index, seed=3, by=by)
        shuffled = index.select(np.random.default_rng(0).permutation(200).tolist())
        assert split(shuffled, seed=3, by=by) == one
        assert split(index, seed=4, by=by).names != one.names
    # Which pictures come together differs from seed to seed, crowded ones too.
    val = [set(split(index, seed=seed).names["val"]) for seed in range(4)]
    assert all(len(a & b) < 30 for a, b in combinations(val, 2))


@pytest.mark.part("format/split")
@pytest.mark.parametrize("file", ["deep/splits.json", "deep/lists"])
def test_a_file_brings_the_same_pictures_back(tmp_path: Path, file: str) -> None:
    index = small_index(tmp_path / "data", count=10)
    made = split(index, {"train": 0.5, "val": 0.3, "test": 0.2}, seed=7)
    assert made.save(tmp_path / file) == tmp_path / file
    assert read_split(tmp_path / file) == made.names
    for name in made.names:
        part = select_split(index, tmp_path / file, name)
        assert part.paths == made.names[name]
        assert not part.problems
        rows = [index.paths.index(path) for path in part.paths]
        assert np.array_equal(part.boxes, index.select(rows).boxes)
    with pytest.raises(DataError, match="exists already"):
        made.save(tmp_path / file)
    with pytest.raises(DataError, match="no split 'all'; it has"):
        select_split(index, tmp_path / file, "all")


def test_the_file_says_how_it_was_made(tmp_path: Path) -> None:
    index = small_index(tmp_path, count=10)
    content = json.loads(split(index, seed=7).save(tmp_path / "splits.json").read_text())
    assert (content["by"], content["seed"], content["fractions"], content["group"]) == ("class", 7, TWO, None)
    assert content["fingerprint"] == pictures_of(index) == pictures_of(index.select(range(9, -1, -1)))
    assert pictures_of(index.select(range(9))) != content["fingerprint"]
    assert sum(content["counts"]["a"].values()) == int((index.labels == 0).sum())


def test_data_that_changed_after_the_split_are_told(tmp_path: Path) -> None:
    index = small_index(tmp_path / "data", count=10)
    file = split(index.select(range(8))).save(tmp_path / "splits.json")
    (problem,) = select_split(index, file, "val").problems
    assert (problem.kind, problem.fatal) == ("in no split", False)
    assert problem.message == "2 of 10 pictures are in none of its splits"
    gone = read_split(file)["val"][0]
    less = index.select([row for row in range(10) if index.paths[row] != gone])
    with pytest.raises(DataError, match=rf"1 of 1 pictures of val are not in .*: {gone}"):
        select_split(less, file, "val")


def test_lists_of_other_tools_may_leave_out_folders_and_suffixes(tmp_path: Path) -> None:
    index = index_of([[0]] * 3, 1, ["images/a.jpg", "images/b.jpg", "more/b.jpg"])
    (tmp_path / "train.txt").write_text("a\n./more/b.jpg\n\n")
    assert select_split(index, tmp_path, "train").paths == ["images/a.jpg", "more/b.jpg"]
    (tmp_path / "train.txt").write_text("b.jpg\n")  # which of the two?
    with pytest.raises(DataError, match=r"are not in /nowhere: b.jpg"):
        select_split(index, tmp_path, "train")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read as splits"),
        ("[" * 100_000, "cannot be read as splits"),
        ("[]", "expected"),
        ('{"splits": {}}', "expected"),
        ('{"splits": {"train": [1]}}', "expected"),
        ('{"splits": {"train": ["a"], "val": ["b", "a"]}}', "a is listed more than once"),
    ],
)
def test_files_that_are_no_splits(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(DataError, match=says):
        read_split(tmp_path / "splits.json")
    with pytest.raises(DataError, match="cannot be read as splits"):
        read_split(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("fractions", "says"),
    [
        ({"train": 1.0}, "two splits or more"),
        ({"train": 1.2, "val": -0.2}, "between 0 and 1, came train 1.2, val -0.2"),
        ({"train": 0.5, "val": 0.2}, "add up to 1, came train 0.5, val 0.2"),
        ({"train": 0.99, "val": 0.01}, "val: would get none of 20 pictures"),
    ],
)
def test_fractions_that_cannot_be(fractions: dict[str, float], says: str) -> None:
    with pytest.raises(DataError, match=says):
        split(index_of([[0]] * 20, 1), fractions)


def test_splits_that_cannot_be_made() -> None:
    with pytest.raises(DataError, match="expected what makes a group"):
        split(index_of([[0]] * 20, 1), by="group")
    with pytest.raises(DataError, match="val: would get no picture; there are only 1 groups"):
        split(index_of([[0]] * 20, 1), by="group", group="folder")
    with pytest.raises(DataError, match="neither boxes nor classes of pictures; split at random"):
        split(index_of([[]] * 20, 1))
    assert len(split(index_of([[]] * 20, 1), by="random").names["val"]) == 4
    odd = split(index_of([[0]] * 20, 1, [f"a\n{number}" for number in range(20)]))
    with pytest.raises(DataError, match="one path a line"):
        odd.save("lists")


def test_groups_are_folders_matches_or_values_of_a_table(tmp_path: Path) -> None:
    paths = ["p1/a.jpg", "p1/b.jpg", "p2/c.jpg"]
    assert group_of(paths, "folder") == ["p1", "p1", "p2"]
    assert group_of(paths, r"p\d") == group_of(paths, r"^(p\d)/[abc]") == ["p1", "p1", "p2"]
    table = tmp_path / "who.csv"
    table.write_text(
        "\ufefffile,age,patient\nb,3,Ann\np2/c.jpg,4,Bob\na.jpg,3,Ann\nother.jpg,1,Eve\n", encoding="utf-8"
    )
    assert group_of(paths, f"{table}:patient") == ["Ann", "Ann", "Bob"]
    assert group_of(paths, f"{table}:age") == ["3", "3", "4"]
    for group, says in (
        (r"p1", "finds nothing in p2/c.jpg; every picture needs a group"),
        ("(", "is not a regular expression"),
        (f"{table}:doctor", "expected a column 'doctor'"),
        (f"{tmp_path}/gone.csv:doctor", "cannot be read as a table"),
    ):
        with pytest.raises(DataError, match=says):
            group_of(paths, group)
    table.write_text("file,patient\na,Ann\n")
    with pytest.raises(DataError, match=r"no row for p1/b.jpg \(2 of 3 pictures are missing\)"):
        group_of(paths, f"{table}:patient")


def test_the_rarest_class_is_shared_out_first() -> None:
    # The rare class 1 sits on crowded pictures; shared out last, they would have no room any more.
    holds = [{0: 1}] * 40 + [{0: 20, 1: 1}] * 10
    parts = by_classes(holds, [1] * 50, [40, 10], np.random.default_rng(0))
    assert np.bincount(parts).tolist() == [40, 10]
    assert int((parts[40:] == 1).sum()) == 2


@pytest.mark.part("format/split")
def test_blood_cells_are_divided_anew_with_each_class_in_proportion(shared_data: Path) -> None:
    cells = whole(shared_data / "bccd")
    assert (len(cells), len(set(cells.paths)), len(cells.labels)) == (364, 364, 2804 + 1137 + 945)
    assert len(cells.problems) == 2  # each once, though two of the lists name the picture
    made = split(cells, seed=0)
    assert [len(names) for names in made.names.values()] == [292, 72]
    assert off(made.counts, TWO) < 0.01
    assert made == split(shared_data / "bccd", seed=0)


def test_one_class_a_picture_in_a_folder(shared_data: Path, tmp_path: Path) -> None:
    made = split(shared_data / "trashnet", {"train": 0.75, "val": 0.25})
    assert {name: own["val"] for name, own in made.counts.items()} == dict.fromkeys(made.counts, 21)
    again = select_split(whole(shared_data / "trashnet"), made.save(tmp_path / "splits.json"), "val")
    assert np.bincount(again.image_labels).tolist() == [21] * 6  # type: ignore[arg-type]


def test_whole_says_what_is_wrong_with_a_name(digits: Path) -> None:
    with pytest.raises(DataError, match="no format is called 'vok'"):
        whole(digits, format="vok")
    assert len(whole(digits)) == 24
    assert open_index(digits, "val").paths[0] in whole(digits, format="voc").paths

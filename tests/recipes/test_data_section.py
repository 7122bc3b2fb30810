"""The data section of a recipe: protocols, splits, samplers, epochs without mosaic, sizes by batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from torso.config import DataError, RecipeError
from torso.data import digits as makes
from torso.data.split import split
from torso.recipes.recipe import Recipe
from torso.recipes.sources import open_split, read, training_loader


def section(path: Path, *overrides: str) -> dict:
    return Recipe.load("demo", [f"data.path={path}", "data.workers=0", "data.size=64", *overrides]).data.build()


@pytest.mark.part("format/voc_protocols")
@pytest.mark.parametrize(
    ("name", "train", "val"),
    [
        ("voc07", "2007_trainval", "2007_test"),
        ("voc12", "2012_trainval", "2012_test"),
        ("voc07+12", "2007_trainval+2012_trainval", "2007_test"),
        ("voc07++12", "2007_trainval+2007_test+2012_trainval", "2012_test"),
    ],
)
def test_a_protocol_names_both_splits(name: str, train: str, val: str) -> None:
    data = section(Path("VOCdevkit"), f"data.protocol={name}")
    assert (data["train"], data["val"]) == (train, val)


@pytest.mark.part("format/voc_protocols")
def test_two_years_are_learned_from_as_one(tmp_path: Path) -> None:
    for year, seed in (("2007", 0), ("2012", 1)):
        made = makes.make(tmp_path / year, format="voc", count=10, size=64, seed=seed)
        source = next(made.rglob("Annotations")).parent
        target = tmp_path / "VOCdevkit" / f"VOC{year}"
        target.parent.mkdir(exist_ok=True)
        source.rename(target)
        lists = target / "ImageSets" / "Main"
        (lists / "trainval.txt").write_text((lists / "train.txt").read_text())
        (lists / "test.txt").write_text((lists / "val.txt").read_text())
    data = section(tmp_path / "VOCdevkit", "data.protocol=voc07+12")
    both = open_split(data, data["train"])
    parts = [open_split(data, f"{year}_trainval") for year in ("2007", "2012")]
    assert len(both) == len(parts[0]) + len(parts[1])
    assert len(both.labels) == len(parts[0].labels) + len(parts[1].labels)
    assert len(set(both.paths)) == len(both)
    assert all(both.file(row).is_file() for row in range(len(both)))
    assert len(open_split(data, data["val"], both.classes)) == 2


@pytest.mark.part("format/split")
def test_a_file_of_splits_decides(digits: Path, tmp_path: Path) -> None:
    division = split(digits, {"a": 0.5, "b": 0.5}, seed=3)
    file = division.save(tmp_path / "splits.json")
    data = section(digits, f"data.splits={file}", "data.train=a", "data.val=b")
    names = {side: set(read(data, side).paths) for side in "ab"}
    assert names["a"] == set(division.names["a"])
    assert not names["a"] & names["b"]
    with pytest.raises(DataError, match="no split 'train'"):
        read(data, "train")


@pytest.mark.part("sampler/repeat_factor")
def test_a_sampler_is_one_word(digits: Path) -> None:
    data = section(digits, "data.sampler=repeat_factor", "data.sampler.threshold=1.0", "data.batch=4")
    index = open_split(data, "train")
    plain = training_loader(section(digits, "data.batch=4"), index, 0)
    assert len(training_loader(data, index, 0)) > len(plain)
    with pytest.raises(RecipeError, match="threshold"):
        section(digits, "data.sampler=random", "data.sampler.threshold=1.0")


@pytest.mark.parametrize("name", ["batch", "aspect_ratio", "under", "over", "weighted", "class_balanced", "subset"])
def test_every_sampler_is_one_word(name: str, digits: Path) -> None:
    options = {"subset": ["data.sampler.rows=[0,1,2]"], "weighted": ["data.sampler.weights=[1,2,3,4,5,6,7,8]"]}
    index = open_split(section(digits), "train").select(range(8))
    data = section(digits, f"data.sampler={name}", "data.batch=4", *options.get(name, []))
    assert len(next(training_loader(data, index, 0).epoch(0))) in (3, 4)


def test_sizes_change_by_batch_and_are_the_same_again(digits: Path) -> None:
    data = section(digits, "data.multiscale=[0.5,2.0]", "data.batch=2")
    index = open_split(data, "train")
    sizes = [tuple(batch.images.shape[-2:]) for batch in training_loader(data, index, 0).epoch(1)]
    again = [tuple(batch.images.shape[-2:]) for batch in training_loader(data, index, 0).epoch(1, start=1)]
    assert len(set(sizes)) > 1
    assert all(side % 32 == 0 and 32 <= side <= 128 for size in sizes for side in size)
    assert sizes[1:] == again


def test_the_last_epochs_are_without_mosaic(digits: Path) -> None:
    data = section(digits, "data.transforms=[mosaic]", "data.close_mosaic=2", "data.batch=4")
    index = open_split(data, "train")
    loader = training_loader(data, index, 0, epochs=3)
    early, late = (next(loader.epoch(epoch)) for epoch in (0, 1))
    most = max(int(count) for count in index.offsets[1:] - index.offsets[:-1])
    assert late.targets.valid.sum(1).max() <= most
    assert early.targets.valid.sum() > late.targets.valid.sum()


def test_options_reach_the_format_and_unknown_ones_are_told(digits: Path) -> None:
    data = section(digits, "data.options={offset: 0}")
    first = open_split(section(digits), "train").boxes
    assert (open_split(data, "train").boxes - first).max() <= 1
    assert not (open_split(data, "train").boxes == first).all()
    with pytest.raises(DataError, match=r"data\.options\.ofset: the format voc has no such option; did you mean"):
        open_split(section(digits, "data.options={ofset: 0}"), "train")


def test_data_for_another_task_is_told(tmp_path: Path) -> None:
    from PIL import Image

    from torso.recipes.run import train

    for split_name in ("train", "val"):
        (tmp_path / split_name).mkdir()
        for number in range(3):
            Image.new("RGB", (40, 30)).save(tmp_path / split_name / f"{number}.png")
    with pytest.raises(DataError, match="has no labels to learn from: look with torso data check"):
        train("demo", [f"data.path={tmp_path}", "data.size=64"], runs=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()

"""A detector from before networks: its windows, its planes, its mining, and the verbs around it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.recipes.small import SMALL
from torso.boxes.overlap import pairwise_iou
from torso.config import DataError, RecipeError
from torso.models.classical import Scale, SlidingWindow, pyramid
from torso.models.mining import NOTHING, HardNegatives
from torso.recipes.recipe import Recipe
from torso.structures import Batch, Targets

SIZE = 96


def built(*overrides: str) -> SlidingWindow:
    changes = ["model.cell=8", "model.shapes=[[4, 4], [3, 5]]", "model.scales=[1.0, 0.75, 0.5]", *overrides]
    model: SlidingWindow = Recipe.load("hog_svm", changes, without_data=True).model.build(num_classes=2)
    return model


def with_planes(model: SlidingWindow) -> SlidingWindow:
    generator = torch.Generator().manual_seed(0)
    for plane in model.head.buffers():
        plane.copy_(torch.randn(plane.shape, generator=generator) * 0.3)
    return model


def batch_of(seed: int = 0, pictures: int = 4) -> Batch:
    """Squares with stripes along x (class 0) or y (class 1) on a noisy ground; one more of each picture is ignored."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(100, 130, (pictures, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    boxes = torch.zeros(pictures, 3, 4)
    for i in range(pictures):
        for row, (x, y) in enumerate(((4, 4), (56, 48), (52, 8))):
            side = 32
            stripes = (torch.arange(side) // 4 % 2 * 120 + 60).to(torch.uint8).expand(side, side)
            images[i, :, y : y + side, x : x + side] = stripes if row % 2 == 0 else stripes.T
            boxes[i, row] = torch.tensor([x, y, x + side, y + side])
    labels = torch.tensor([0, 1, 0]).expand(pictures, -1)
    ignore = torch.tensor([False, False, True]).expand(pictures, -1)
    whole = torch.full((pictures, 2), SIZE)
    targets = Targets(boxes, labels, ~ignore, ignore)
    return Batch(images, targets, torch.arange(pictures), torch.eye(3).expand(pictures, 3, 3), whole)


@pytest.mark.part("recipe/hog_svm", "model/classical")
def test_margins_are_planes_times_the_blocks_of_each_window():
    model = with_planes(built()).double()
    images = batch_of(pictures=2).images.double()
    output, levels = model.look(images)
    assert len(output.counts) == 3 * 2, "a count for each level and shape"
    assert output.logits.shape == (2, sum(output.counts), 2)
    begin = 0
    for place, count in enumerate(output.counts):
        level, (wide, high) = levels[place // 2], model.shapes[place % 2]
        weight = model.head.get_buffer(f"weight{place % 2}")
        columns = level.blocks.shape[3] - (wide - 1) + 1
        for window in range(0, count, 5):
            row, column = divmod(window, columns)
            blocks = level.blocks[:, :, row : row + high - 1, column : column + wide - 1]
            margin = (blocks[:, None] * weight).sum(dim=(2, 3, 4)) + model.head.get_buffer(f"bias{place % 2}")
            torch.testing.assert_close(output.logits[:, begin + window], margin)
            step = 8 * SIZE / (SIZE * (1.0, 0.75, 0.5)[place // 2])
            box = torch.tensor([column, row, column + wide, row + high], dtype=torch.float64) * step
            torch.testing.assert_close(output.priors[begin + window], box)
        begin += count


@pytest.mark.part("recipe/hog_svm")
def test_a_pyramid_keeps_what_is_flat_and_where_edges_are():
    images = torch.full((1, 3, 64, 96), 50.0)
    images[..., 48:] = 90.0
    scales = [1.5, 1.0, 0.75, 0.5, 0.375]
    assert Scale.of(0.375) == (3, 8, 1)
    for scale, picture in zip(scales, pyramid(images, [*map(Scale.of, scales)]), strict=True):
        assert picture.shape[-2:] == (64 * scale, 96 * scale)
        edge = int(48 * scale)
        assert (picture[..., : edge - 1] - 50).abs().max() < 1e-3
        assert (picture[..., edge + 1 :] - 90).abs().max() < 1e-3
    (whole,) = pyramid(images, [Scale.of(1.0)])
    assert whole is images


@pytest.mark.part("recipe/hog_svm")
def test_rounds_find_what_is_there_and_leave_alone_what_is_not():
    model, batch = built("model.cost=1"), batch_of()
    learner = model.learner(0)
    told = [learner.round([batch], number) for number in range(3)]
    assert told[-1]["loss"] < 0.5
    assert told[-1]["objects"] == told[0]["objects"] > 0, "the same pictures have the same windows of objects"
    assert all(row["new"] >= 0 for row in told)
    found = model.predict(batch.images)
    sure = found.scores > 0.5
    overlap = pairwise_iou(found.boxes, batch.targets.boxes)  # [B, D, 3]
    right = (found.labels[..., None] == batch.targets.labels[:, None]) & sure[..., None]
    assert ((overlap > 0.6) & right).any(dim=1).all(), "every square is found, the ignored one too"
    assert (overlap.amax(dim=2)[sure] > 0.5).all(), "and nothing where there is none"


@pytest.mark.part("recipe/hog_svm")
def test_later_rounds_bring_the_windows_that_were_taken_for_objects_and_forget_easy_ones():
    model, batch = built("model.negatives=100", "model.cost=1"), batch_of()
    learner = model.learner(0)
    first = learner.round([batch], 0)
    kept = sum(int((pool.labels == NOTHING).sum()) for pool in learner.pools)
    assert 0 < kept < first["nothing"], "easy windows are forgotten, hard ones are not"
    output = model(batch.images)
    assigned, _, _ = model.assign(output, batch)
    wrong = output.logits.amax(dim=-1).masked_fill(~assigned.negative, -9).max()
    before = [pool.rows.copy() for pool in learner.pools]
    for pool in learner.pools:
        assert len(np.unique(pool.rows, axis=0)) == len(pool), "no window twice"
    learner._take(batch, 1, torch.Generator())
    added = [np.concatenate([rows for rows, _ in pool._new]) for pool in learner.pools]
    for shape, rows in enumerate(added):
        weight, bias = model.head.get_buffer(f"weight{shape}"), model.head.get_buffer(f"bias{shape}")
        margins = torch.from_numpy(rows) @ weight.flatten(1).T + bias
        assert (margins.amax(dim=1) > -1).all(), "what is safe is not added"
        assert not (rows[:, None] == before[shape]).all(axis=2).any()
    assert wrong > -1
    learner.round([batch], 1)
    after = model(batch.images).logits.amax(dim=-1).masked_fill(~assigned.negative, -9).max()
    assert after < 0, "none of them lies on the side of objects"


@pytest.mark.part("recipe/hog_svm")
def test_nothing_is_learned_in_ignored_regions():
    model, batch = built(), batch_of()
    output = model(batch.images)
    assigned, _, overlap = model.assign(output, batch)
    on_ignored = pairwise_iou(output.boxes, batch.targets.boxes[:, 2:]).squeeze(2) > 0.7
    assert on_ignored.any()
    assert not (on_ignored & (assigned.negative | assigned.positive)).any()
    assert (overlap[assigned.positive] >= 0.6).all()


@pytest.mark.part("recipe/hog_svm")
def test_planes_are_those_of_the_library_on_the_same_windows():
    from sklearn.svm import LinearSVC

    model, batch = built(), batch_of()
    learner = model.learner(0)
    learner._take(batch, 0, torch.Generator().manual_seed(0))
    for pool in learner.pools:
        pool.settle()
    rows, labels = learner.pools[0].rows.copy(), learner.pools[0].labels.copy()
    assert set(labels.tolist()) == {NOTHING, 0, 1}
    learner._learn(0, learner.pools[0])
    for label in (0, 1):
        peer = LinearSVC(
            C=model.mining.cost, loss="squared_hinge", dual=True, tol=1e-8, max_iter=100000, random_state=0
        )
        peer.fit(rows, labels == label)
        said = rows @ model.head.get_buffer("weight0")[label].flatten().numpy() + float(
            model.head.get_buffer("bias0")[label]
        )
        np.testing.assert_allclose(said, peer.decision_function(rows), atol=0.02)


@pytest.mark.part("recipe/hog_svm")
@pytest.mark.parametrize("count", [0, 1, 10, 300])
def test_any_number_of_objects_is_finite(count):
    model = with_planes(built())
    torch.manual_seed(0)
    low = torch.rand(2, count, 2) * 60
    boxes = torch.cat([low, low + 8 + torch.rand(2, count, 2) * 28], dim=-1)
    boxes[:, :1] = torch.tensor([8.0, 8, 40, 40])  # a window
    valid = (torch.arange(count) % 4 != 3).expand(2, -1)
    targets = Targets(boxes, torch.randint(0, 2, (2, count)), valid, ~valid)
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    batch = Batch(images, targets, torch.arange(2), torch.eye(3).expand(2, 3, 3), torch.full((2, 2), SIZE))
    (hinge,) = model.losses(batch).values()
    assert hinge.isfinite()
    assert hinge > 0
    learner = HardNegatives(model, model.mining)
    if count:
        assert np.isfinite(learner.round([batch, batch], 0)["loss"])
        assert model(images).logits.isfinite().all()
    else:
        with pytest.raises(
            DataError, match=r"windows of 32x32, 24x40 pixels on pictures of 0\.5 to 1 times their size"
        ):
            learner.round([batch], 0)


@pytest.mark.part("recipe/hog_svm")
def test_a_class_that_is_nowhere_is_never_found():
    model, batch = built("model.threshold=0.01"), batch_of()
    only = Targets(
        batch.targets.boxes, torch.zeros_like(batch.targets.labels), batch.targets.valid, batch.targets.ignore
    )
    model.learner(0).round([Batch(batch.images, only, batch.index, batch.to_source, batch.source_size)], 0)
    found = model.predict(batch.images)
    assert found.valid.any()
    assert not found.labels[found.valid].any()


@pytest.mark.part("recipe/hog_svm")
def test_wrong_sizes_and_pictures_are_told():
    with pytest.raises(RecipeError, match="sides of at least a block"):
        built("model.shapes=[[1, 4]]")
    with pytest.raises(RecipeError, match="scales are 1/64 or more"):
        built("model.scales=[0.0]")
    with pytest.raises(ValueError, match="larger than every level of a 24x24 picture"):
        built()(torch.zeros(1, 3, 24, 24))


@pytest.mark.part("recipe/hog_svm")
def test_the_run_is_whole_from_training_to_an_exported_file(digits: Path, tmp_path: Path):
    from torso.recipes import run

    settings = [
        *SMALL["hog_svm"],
        "model.scales=[2.0, 1.0]",
        f"data.path={digits}",
        "data.size=96",
        "data.batch=4",
        "data.workers=0",
    ]
    done = run.train("hog_svm", [*settings, "train.epochs=3"], runs=tmp_path, quiet=True)
    folder = Path(done["run"])
    for name in ("model.safetensors", "config.json", "report.html", "results.csv", "metrics.jsonl", "evaluation.json"):
        assert (folder / name).is_file(), name
    assert json.loads((folder / "state.json").read_text())["status"] == "done"
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + 3
    judged = run.evaluate(folder)
    assert judged["summary"]["AP50"] == pytest.approx(done["metrics"]["AP50"])
    assert judged["summary"]["AP50"] > 0.05
    told: list[str] = []
    exported = run.export(folder, say=told.append)
    assert "detections compared" in "\n".join(told), "the file was verified, and it found something"
    again = run.evaluate(exported["file"])
    # Which bin a direction falls into hangs on the last bits of the pyramid's pictures: a window or two rank otherwise.
    assert again["summary"]["AP50"] == pytest.approx(judged["summary"]["AP50"], abs=5e-3)
    picture = next((digits / "JPEGImages").glob("*.jpg"))
    assert run.predict(folder, [str(picture)], out=tmp_path / "out")["images"] == 1
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "report.html").unlink()
    run.resume(folder, quiet=True)
    assert (folder / "model.safetensors").read_bytes() == weights, "a run that begins anew ends the same"


@pytest.mark.part("recipe/hog_svm")
@pytest.mark.parametrize(
    "setting",
    [
        "train.optimizer=adamw",
        "train.tricks=[ema]",
        "train.schedule=cosine",
        "train.accumulate=2",
        "train.backbone_factor=0.1",
    ],
)
def test_settings_that_would_do_nothing_are_refused(setting: str, digits: Path, tmp_path: Path):
    from torso.recipes import run

    key = setting.partition("=")[0]
    with pytest.raises(RecipeError, match=f"{key}: classical finds its planes without gradients"):
        run.train("hog_svm", [f"data.path={digits}", setting], runs=tmp_path, quiet=True)
    assert not [*tmp_path.iterdir()]
